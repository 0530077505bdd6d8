//! What is done to system calls, and to which of them.

/// The process is gone.
pub(super) const KILL: [&str; 1] = ["signal=KILL"];

/// What calls fail with.
pub(super) const ERRORS: [&str; 5] = [
    "error=EIO",
    "error=ENOSPC",
    "error=ENOMEM",
    "error=EINTR",
    "error=EAGAIN",
];

/// Calls that only look, or change nothing but the process itself, which is gone when it is killed. Being killed at one of
/// them leaves the same behind as being killed at the next call that is not one of them, and there always is one:
/// `exit_group`. So nothing is tried twice.
const INERT: [&str; 56] = [
    "access",
    "arch_prctl",
    "bind",
    "brk",
    "clock_nanosleep",
    "close",
    "dup",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "eventfd2",
    "faccessat2",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getdents64",
    "geteuid",
    "getpid",
    "getppid",
    "getrandom",
    "getsockname",
    "getsockopt",
    "gettid",
    "getuid",
    "lseek",
    "lstat",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "poll",
    "prctl",
    "pread64",
    "prlimit64",
    "pselect6",
    "read",
    "readlink",
    "readlinkat",
    "recvfrom",
    "recvmsg",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "set_robust_list",
    "set_tid_address",
    "setsockopt",
    "sigaltstack",
    "statfs",
    "statx",
    "sysinfo",
    "uname",
];

/// Calls that can't fail by their nature, or that belong to the start of any process and to its memory: no program
/// gets on without them.
///
/// Waiting for events can be interrupted but not fail, and the event loop relies on it. The keys of the standard
/// library's hash tables come from getrandom(2), which has nothing to wait for once the machine is up.
const BEYOND_REPAIR: [&str; 29] = [
    "epoll_wait",
    "epoll_create1",
    "epoll_ctl",
    "eventfd2",
    "getrandom",
    "execve",
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "arch_prctl",
    "prctl",
    "futex",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "exit",
    "exit_group",
    "close",
    "poll",
    "sched_getaffinity",
    "gettid",
    "getpid",
];

/// Whether it makes a difference to try this call.
pub(super) fn matters(call: &str, killed: bool) -> bool {
    call != "execve"
        && if killed {
            !INERT.contains(&call)
        } else {
            !BEYOND_REPAIR.contains(&call)
        }
}
