//! Network namespaces: opening, comparing and entering them.
//!
//! A namespace is held by an open file of nsfs, so it stays alive for as long as its [`NetNs`]
//! does. `setns(2)` with `CLONE_NEWNET` moves the calling thread only; for that reason everything
//! here goes through `/proc/thread-self` and is sound in a program with several threads. See
//! namespaces(7).

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::statfs::{FsType, fstatfs};

use super::error::HostError;

/// The magic number of nsfs, from include/uapi/linux/magic.h.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Where the calling thread finds its own network namespace.
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

thread_local! {
    /// The cookies of namespaces that are held open on this thread, by the paths they were opened by.
    static HELD: RefCell<Vec<(PathBuf, u64)>> = const { RefCell::new(Vec::new()) };
}

/// A network namespace, kept alive for as long as this value lives.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Whether [`NetNs::cookie_at`] knows it.
    noted: AtomicBool,
}

impl NetNs {
    /// Opens the namespace at `path`, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`HostError::NetNsMissing`] when there is nothing; [`HostError::NotANetNs`] when there is
    /// something else, such as the empty file that is left when a bind mount is gone, or a
    /// namespace of another kind; [`HostError::NetNsOpen`] for everything else, lacking permission
    /// among it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, HostError> {
        let path = path.as_ref();
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => HostError::NetNsMissing {
                path: path.to_owned(),
            },
            _ => HostError::NetNsOpen {
                path: path.to_owned(),
                source,
            },
        };
        // O_NONBLOCK, because the path may turn out to be a FIFO that nobody writes to.
        let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = File::options()
            .read(true)
            .custom_flags(flags.bits())
            .open(path)
            .map_err(refused)?;
        let metadata = file.metadata().map_err(refused)?;
        let not_a_netns = |found| HostError::NotANetNs {
            path: path.to_owned(),
            found,
        };
        if fstatfs(&file)
            .map_err(|errno| refused(errno.into()))?
            .filesystem_type()
            != NSFS_MAGIC
        {
            return Err(not_a_netns(kind_of(&metadata)));
        }
        match namespace_type(&file) {
            Ok(libc::CLONE_NEWNET) => {}
            Ok(_) => return Err(not_a_netns("a namespace of another kind")),
            Err(errno) => return Err(refused(errno.into())),
        }
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            noted: AtomicBool::new(false),
            path: path.to_owned(),
            file,
        })
    }

    /// The namespace that the calling thread is in.
    ///
    /// # Errors
    /// As [`NetNs::open`]; fails where /proc is not mounted.
    pub fn current() -> Result<Self, HostError> {
        Self::open(OWN_NETNS)
    }

    /// The path this namespace was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file of nsfs, for netlink attributes that take a namespace by descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Whether the calling thread is in this namespace.
    ///
    /// # Errors
    /// [`HostError::NetNsOpen`] where /proc is not mounted.
    pub fn is_current(&self) -> Result<bool, HostError> {
        let own = Self::current_id().map_err(|source| HostError::NetNsOpen {
            path: OWN_NETNS.into(),
            source,
        })?;
        Ok((self.device, self.inode) == own)
    }

    /// Device and inode number of the namespace that the calling thread is in. They tell it from every other one for
    /// as long as it lives, and may be another's afterwards.
    ///
    /// # Errors
    /// The system's, where /proc is not mounted.
    pub fn current_id() -> io::Result<(u64, u64)> {
        let own = std::fs::metadata(OWN_NETNS)?;
        Ok((own.dev(), own.ino()))
    }

    /// The namespace's cookie: a number that the kernel never gives to another namespace until the
    /// machine is restarted, while inode numbers are used again.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] before Linux 5.14; failures to enter the namespace.
    pub fn cookie(&self) -> Result<u64, HostError> {
        let failed = |errno: Errno| match errno {
            Errno::ENOPROTOOPT => HostError::Unsupported {
                operation: self.cookie_operation(),
                remedy: "SO_NETNS_COOKIE came with Linux 5.14.",
            },
            errno => HostError::System {
                operation: self.cookie_operation(),
                source: errno.into(),
            },
        };
        // Any kind of socket belongs to the namespace it was made in; this kind costs least.
        let socket = self
            .enter(|| {
                socket(
                    AddressFamily::Unix,
                    SockType::Datagram,
                    SockFlag::SOCK_CLOEXEC,
                    None,
                )
            })?
            .map_err(failed)?;
        socket_cookie(socket.as_fd()).map_err(failed)
    }

    /// The cookie of the namespace at a path: that of the one that this thread holds open by the path and told of
    /// ([`NetNs::note_cookie`]), even if the path leads to another one by now, else of the one that is there.
    ///
    /// # Errors
    /// As [`NetNs::open`] and [`NetNs::cookie`].
    pub fn cookie_at(path: &Path) -> Result<u64, HostError> {
        let held = HELD.with_borrow(|held| {
            let mut held = held.iter();
            held.find(|(known, _)| known == path)
                .map(|(_, cookie)| *cookie)
        });
        match held {
            Some(cookie) => Ok(cookie),
            None => Self::open(path)?.cookie(),
        }
    }

    /// Has [`NetNs::cookie_at`] know this namespace's cookie for as long as this value lives. The socket is one that
    /// was opened inside, which spares going there once more. Before Linux 5.14 nothing comes of it.
    pub fn note_cookie(&self, socket: BorrowedFd<'_>) {
        if let Ok(cookie) = socket_cookie(socket) {
            self.noted.store(true, Ordering::Relaxed);
            HELD.with_borrow_mut(|held| held.push((self.path.clone(), cookie)));
        }
    }

    fn cookie_operation(&self) -> String {
        format!(
            "read the cookie of network namespace {}",
            self.path.display()
        )
    }

    /// Runs `work` with the calling thread inside this namespace, and returns what it returned.
    ///
    /// The thread goes back to where it was when `work` ends, by a panic too. Where the way back is
    /// barred, the process is aborted: nothing may go on in a namespace it did not choose. Threads
    /// that `work` starts stay in this namespace. Sockets that `work` opens belong to it for good.
    ///
    /// # Errors
    /// When the namespace can't be entered; then `work` is not run.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T, HostError> {
        let home = File::open(OWN_NETNS).map_err(|source| HostError::NetNsOpen {
            path: OWN_NETNS.into(),
            source,
        })?;
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| HostError::NetNsEnter {
            path: self.path.clone(),
            errno,
        })?;
        let _restore = Restore {
            home,
            on_this_thread: PhantomData,
        };
        Ok(work())
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if *self.noted.get_mut() {
            // The thread's variables may be gone when it ends.
            let _ = HELD.try_with(|held| held.borrow_mut().retain(|(path, _)| *path != self.path));
        }
    }
}

/// Returns the thread to its own namespace when dropped.
struct Restore {
    home: File,
    /// The guard must be dropped on the thread that it has to bring back.
    on_this_thread: PhantomData<*const ()>,
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Err(errno) = setns(&self.home, CloneFlags::CLONE_NEWNET) {
            eprintln!(
                "trestle: return to the own network namespace: {}",
                errno.desc()
            );
            std::process::abort();
        }
    }
}

/// What a file that is not on nsfs is, in words for an error message.
fn kind_of(metadata: &std::fs::Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_file() && metadata.len() == 0 {
        "an empty file (is the namespace's bind mount gone?)"
    } else if kind.is_file() {
        "a regular file"
    } else if kind.is_fifo() {
        "a FIFO"
    } else {
        "a special file"
    }
}

/// The `CLONE_NEW*` constant of the namespace behind a file of nsfs; ioctl_nsfs(2).
#[expect(unsafe_code, reason = "ioctl(2) has no safe wrapper")]
fn namespace_type(file: &File) -> Result<libc::c_int, Errno> {
    // SAFETY: NS_GET_NSTYPE takes no argument, touches no memory of this process and returns an
    // integer; the descriptor is open for the duration of the call.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE as _) };
    Errno::result(kind)
}

/// The cookie of the namespace that a socket belongs to; socket(7), `SO_NETNS_COOKIE`.
#[expect(unsafe_code, reason = "nix has no such socket option")]
fn socket_cookie(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: both pointers are to live, properly aligned variables; `length` is the size of
    // `cookie`, so the kernel writes no more than that; the descriptor is open for the duration of
    // the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    Errno::result(result).map(|_| cookie)
}
