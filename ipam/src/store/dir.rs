//! A directory that is held open, and the few operations the store needs in it.
//!
//! Every name is looked up relative to the open directory and never through a symbolic link, so nothing that is
//! planted in it leads out of it. Opening does not block on a FIFO.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::dir::Dir as Listing;
use nix::errno::Errno;
use nix::fcntl::{self, AtFlags, OFlag};
use nix::sys::stat::{self, Mode, SFlag};
use nix::sys::statfs::{self, FsType};
use nix::sys::time::TimeSpec;
use nix::unistd::{self, UnlinkatFlags};

use crate::error::Error;

/// Largest state file that is read, in bytes; ours and Go's are far smaller.
const READ_MAX: u64 = 16 << 10;

/// The same for a record, which has up to fifty for each address that ADD's configuration, of a mebibyte at most, can ask for.
const RECORD_MAX: u64 = 4 << 20;

/// File systems of networks and clusters, by the number that statfs(2) reports: NFS, SMB 1 to 3 in the kernel's three
/// spellings, Ceph, 9P, AFS in two implementations, Coda, GFS2, OCFS2, Lustre, GPFS, BeeGFS, and all that run in user space
/// (FUSE), of which the kernel does not tell what they are.
const SHARED: [FsType; 15] = [
    FsType(0x6969),
    FsType(0x517b),
    FsType(0xff53_4d42),
    FsType(0xfe53_4d42),
    FsType(0x00c3_6400),
    FsType(0x0102_1997),
    FsType(0x5346_414f),
    FsType(0x6b41_4653),
    FsType(0x7375_7245),
    FsType(0x0116_1970),
    FsType(0x7461_636f),
    FsType(0x0bd0_0bd0),
    FsType(0x4750_4653),
    FsType(0x1983_0326),
    FsType(0x6573_5546),
];

/// A modification time: seconds and nanoseconds.
pub(super) type Modified = (i64, i64);

/// What reading a file found.
#[derive(Debug)]
pub(super) enum Content {
    /// No entry has this name.
    Missing,
    /// The name is that of a symbolic link, a directory or a socket.
    NoFile,
    /// The content, up to a size that no state file has.
    Bytes(Vec<u8>),
}

impl Content {
    /// The content, if there is any.
    pub(super) fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Missing | Self::NoFile => None,
        }
    }
}

/// An open directory.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens a directory by its path, whose components may be symbolic links; `None` if there is none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        match retry(|| fcntl::open(path, flags, Mode::empty())) {
            Ok(fd) => Ok(Some(Self {
                fd,
                path: path.to_owned(),
            })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(Error::io("open directory", path)(errno.into())),
        }
    }

    /// Opens a directory in this one; `None` if there is none.
    pub(super) fn find(&self, name: &str) -> Result<Option<Self>, Error> {
        match self.open_at(name, OFlag::O_DIRECTORY | OFlag::O_RDONLY) {
            Ok(fd) => Ok(Some(Self {
                fd,
                path: self.path.join(name),
            })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.error("open directory", name)(errno.into())),
        }
    }

    /// Opens a directory in this one and makes it (mode 0755) if it is missing.
    pub(super) fn ensure(&self, name: &str) -> Result<Self, Error> {
        loop {
            if let Some(dir) = self.find(name)? {
                return Ok(dir);
            }
            match retry(|| stat::mkdirat(&self.fd, name, Mode::from_bits_truncate(0o755))) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(self.error("create directory", name)(errno.into())),
            }
        }
    }

    fn open_at(&self, name: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        retry(|| fcntl::openat(&self.fd, name, flags, Mode::from_bits_truncate(0o600)))
    }

    /// Opens a file for reading and writing and makes it (mode 0600) if it is missing.
    pub(super) fn open_file(&self, name: &str) -> Result<File, Errno> {
        self.open_at(name, OFlag::O_RDWR | OFlag::O_CREAT)
            .map(File::from)
    }

    /// Opens an existing file for reading.
    pub(super) fn open_existing(&self, name: &str) -> Result<File, Errno> {
        self.open_at(name, OFlag::O_RDONLY).map(File::from)
    }

    /// Opens an existing file for reading and writing.
    pub(super) fn open_for_update(&self, name: &str) -> Result<File, Errno> {
        self.open_at(name, OFlag::O_RDWR).map(File::from)
    }

    /// Makes a file (mode 0600) in the place of any that is there, and opens it for writing.
    pub(super) fn replace_file(&self, name: &str) -> Result<File, Error> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        loop {
            match self.open_at(name, flags) {
                Ok(fd) => return Ok(File::from(fd)),
                Err(Errno::EEXIST) => self.remove(name)?,
                Err(errno) => return Err(self.error("create", name)(errno.into())),
            };
        }
    }

    /// Reads a file. An error means that there may be one but nothing is known of its content.
    pub(super) fn read(&self, name: &str) -> Result<Content, Error> {
        self.read_up_to(READ_MAX, name)
    }

    /// The same for a record.
    pub(super) fn read_record(&self, name: &str) -> Result<Content, Error> {
        self.read_up_to(RECORD_MAX, name)
    }

    fn read_up_to(&self, limit: u64, name: &str) -> Result<Content, Error> {
        let mut content = Vec::with_capacity(512);
        let read = self
            .open_existing(name)
            .map_err(io::Error::from)
            .and_then(|file| file.take(limit).read_to_end(&mut content));
        match read {
            Ok(_) => Ok(Content::Bytes(content)),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT) => Ok(Content::Missing),
                Some(Errno::ELOOP | Errno::EISDIR | Errno::ENXIO) => Ok(Content::NoFile),
                _ => Err(self.error("read", name)(error)),
            },
        }
    }

    /// True if something, of whatever kind, has this name.
    pub(super) fn has(&self, name: &str) -> Result<bool, Error> {
        match retry(|| stat::fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(self.error("look for", name)(errno.into())),
        }
    }

    /// True if the name is that of a regular file whose content was never written, or was not yet on the disk when the power
    /// was lost: see [`is_blank`].
    pub(super) fn is_leftover(&self, name: &str) -> bool {
        let is_file = |stat: stat::FileStat| {
            SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
        };
        stat::fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(is_file)
            && matches!(self.read(name), Ok(Content::Bytes(content)) if is_blank(&content))
    }

    /// Gives a file of this directory a second name in another one. Fails if the name is taken.
    pub(super) fn link(&self, name: &str, to: &Self, new: &str) -> Result<(), Error> {
        retry(|| unistd::linkat(&self.fd, name, &to.fd, new, AtFlags::empty()))
            .map_err(|errno| to.error("create", new)(errno.into()))
    }

    /// Gives a file of this directory another name, in the place of any that has it. Whoever looks finds the old or the new.
    pub(super) fn rename(&self, name: &str, new: &str) -> Result<(), Error> {
        retry(|| fcntl::renameat(&self.fd, name, &self.fd, new))
            .map_err(|errno| self.error("rename to", new)(errno.into()))
    }

    /// Removes a file; false if there was none.
    pub(super) fn remove(&self, name: &str) -> Result<bool, Error> {
        match retry(|| unistd::unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(self.error("remove", name)(errno.into())),
        }
    }

    /// The names in this directory that are UTF-8, in the order of their inodes. That is how files lie on a disk: to read a great
    /// many that are in no cache in the order of a directory, which is one of hashes, takes many times as long.
    pub(super) fn names(&self) -> Result<Vec<String>, Error> {
        let failed = |errno: Errno| Error::io("list", &self.path)(errno.into());
        let mut listing = Listing::openat(
            &self.fd,
            ".",
            OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(failed)?;
        let mut entries = Vec::new();
        for entry in listing.iter() {
            let entry = entry.map_err(failed)?;
            if let Ok(name) = entry.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                entries.push((entry.ino(), name.to_owned()));
            }
        }
        entries.sort_unstable_by_key(|(inode, _)| *inode);
        Ok(entries.into_iter().map(|(_, name)| name).collect())
    }

    /// When an entry was last made or removed in this directory, or what [`Dir::set_modified`] said since.
    pub(super) fn modified(&self) -> io::Result<Modified> {
        let stat = stat::fstat(&self.fd)?;
        Ok((stat.st_mtime, stat.st_mtime_nsec))
    }

    /// Sets the modification time.
    pub(super) fn set_modified(&self, (seconds, nanoseconds): Modified) -> io::Result<()> {
        let modified = TimeSpec::new(seconds, nanoseconds);
        Ok(stat::futimens(&self.fd, &TimeSpec::UTIME_OMIT, &modified)?)
    }

    /// True if other machines may work in this directory at the same time.
    pub(super) fn is_shared(&self) -> bool {
        statfs::fstatfs(&self.fd).is_ok_and(|found| SHARED.contains(&found.filesystem_type()))
    }

    /// Waits until the entries made so far are on the disk.
    pub(super) fn sync(&self) -> Result<(), Error> {
        retry(|| unistd::fsync(&self.fd))
            .map_err(|errno| Error::io("sync", &self.path)(errno.into()))
    }

    /// Path of an entry, for messages.
    pub(super) fn path_of(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// Wraps the error of an operation on an entry.
    pub(super) fn error(
        &self,
        operation: &'static str,
        name: &str,
    ) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(operation, self.path_of(name))
    }
}

/// True for what a file holds whose content is not on the disk though its name and its length are: nothing, or zeroes.
pub(super) fn is_blank(content: &[u8]) -> bool {
    content.iter().all(|byte| *byte == 0)
}

/// Replaces the content of a small file, which has `old` bytes now, beginning where the file is open for writing.
///
/// The file is not emptied first: for that, file systems give up its block and start to write the new one at once
/// (auto_da_alloc of ext4).
pub(super) fn overwrite(file: &mut File, content: &[u8], old: usize) -> io::Result<()> {
    file.write_all(content)?;
    if content.len() < old {
        file.set_len(content.len() as u64)?;
    }
    Ok(())
}

/// Does a system call again while a signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            outcome => return outcome,
        }
    }
}
