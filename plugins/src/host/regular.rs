//! Files whose place somebody else may have taken: only regular ones are read and written.
//!
//! Opening a FIFO waits for its other end, and a device may have no end. What is no regular file is an error at once.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// The most that is read of a file, in bytes: far more than anything that plugins write.
const SIZE_MAX: u64 = 64 << 20;

/// Reads a file, or what a link leads to.
///
/// # Errors
/// What the file system says; that it is no regular file, or has more than 64 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(OpenOptions::new().read(true), OFlag::O_NOCTTY, path)?;
    let mut content = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > SIZE_MAX {
        return Err(io::Error::other("it has more than 64 MiB"));
    }
    Ok(content)
}

/// Opens a file for writing, empty, and makes it (mode 0600) if it is missing. No link is followed.
///
/// # Errors
/// What the file system says; that it is no regular file.
pub fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    // Emptied when it is known what it is.
    options.write(true).create(true).truncate(false).mode(0o600);
    let file = open(&options, OFlag::O_NOCTTY | OFlag::O_NOFOLLOW, path)?;
    file.set_len(0)?;
    Ok(file)
}

fn open(options: &OpenOptions, flags: OFlag, path: &Path) -> io::Result<File> {
    let flags = flags | OFlag::O_NONBLOCK;
    let file = options.clone().custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        for path in [fifo.as_path(), dir.path(), Path::new("/dev/zero")] {
            read(path).unwrap_err();
        }
        create(&fifo).unwrap_err();
        // With a reader it can be opened.
        let _both = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&fifo)
            .unwrap();
        assert_eq!(create(&fifo).unwrap_err().to_string(), "not a regular file");
        assert_eq!(read(&fifo).unwrap_err().to_string(), "not a regular file");
    }

    #[test]
    fn a_link_leads_no_writer_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let (precious, link) = (dir.path().join("precious"), dir.path().join("link"));
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &link).unwrap();
        create(&link).unwrap_err();
        assert_eq!(read(&link).unwrap(), b"precious");
        create(&precious).unwrap();
        assert_eq!(read(&precious).unwrap(), b"");
    }
}
