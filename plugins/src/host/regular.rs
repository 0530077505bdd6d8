//! Files whose place somebody else may have taken: only regular ones are read and written.
//!
//! Opening a FIFO waits for its other end, and a device may have no end. What is no regular file is an error at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
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

/// Writes a file (mode 0600) that appears whole or not at all, in place of what was there before, whatever that was: first
/// under a temporary name in the same directory. Nothing is synced to disk.
///
/// What has the temporary name already was left by somebody who died; it is removed and not written to, as it would be through
/// a link.
///
/// # Errors
/// What the file system says. What was there before is there still then.
pub fn replace(path: &Path, temporary: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let written = options
        .open(temporary)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(temporary);
    }
    written
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
        // With a writer it can be opened.
        let mut both = OpenOptions::new();
        let _both = both.read(true).write(true).open(&fifo).unwrap();
        assert_eq!(read(&fifo).unwrap_err().to_string(), "not a regular file");
    }

    #[test]
    fn whatever_was_there_is_replaced_and_nothing_is_written_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (precious, path, temporary) = (at("precious"), at("file"), at(".file"));
        fs::write(&precious, "precious").unwrap();
        let fifo = || mkfifo(&path, Mode::S_IRWXU).unwrap();
        let link = || std::os::unix::fs::symlink(&precious, &path).unwrap();
        let ways: [&dyn Fn(); 3] = [&fifo, &link, &|| fs::write(&path, "old").unwrap()];
        for put in ways {
            put();
            std::os::unix::fs::symlink(&precious, &temporary).unwrap();
            replace(&path, &temporary, b"new").unwrap();
            assert_eq!(read(&path).unwrap(), b"new");
            assert!(!temporary.exists() && path.symlink_metadata().unwrap().is_file());
            fs::remove_file(&path).unwrap();
        }
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
    }

    #[test]
    fn what_cant_be_replaced_stays_and_nothing_lies_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a-directory");
        fs::create_dir(&path).unwrap();
        replace(&path, &dir.path().join(".temporary"), b"new").unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
