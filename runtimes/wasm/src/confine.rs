//! What a guest process may still do once it has begun.
//!
//! Before a process loads code that it does not trust it drops its capabilities, and sets
//! no_new_privs and a seccomp filter: an allow-list of the system calls that wasmtime, tokio and
//! WASI make. What is not on it fails with EPERM, so that a library that tries something new falls
//! back instead of dying. Should a guest break out of the sandbox of WebAssembly, it cannot execute
//! a program, trace or signal another process, change namespaces, mount, or load anything into the
//! kernel.

use std::collections::BTreeMap;
use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// System calls that need no look at their arguments.
const COMMON: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_close,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_lseek,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_brk,
    libc::SYS_memfd_create,
    libc::SYS_membarrier,
    libc::SYS_futex,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_ioctl,
    libc::SYS_fcntl,
    libc::SYS_flock,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_symlinkat,
    libc::SYS_mkdirat,
    libc::SYS_readlinkat,
    libc::SYS_utimensat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_getdents64,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getcwd,
    libc::SYS_umask,
    libc::SYS_prctl,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// System calls that only older architectures have.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_link,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_readlink,
    libc::SYS_dup2,
    libc::SYS_pipe,
    libc::SYS_arch_prctl,
    libc::SYS_time,
    libc::SYS_getdents,
    libc::SYS_chmod,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// System calls on sockets; making one is looked at more closely.
const SOCKETS: &[i64] = &[
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
];

/// Gives up every capability, for good: not even a process of root's gets one back.
///
/// Where root runs the agent the process has taken a user of its own before, see
/// [`crate::launch`]; elsewhere it stays the agent's.
fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    if rustix::thread::capabilities(None)? != none {
        // Kernels before 4.3 have no ambient set.
        let _ = rustix::thread::clear_ambient_capability_set();
        rustix::thread::set_capabilities(None, none)?;
    }
    Ok(())
}

/// Confines a process that runs guests. Threads that it starts later inherit the filter.
pub(crate) fn guests() -> io::Result<()> {
    let mut rules = allow(&[COMMON, OLD, SOCKETS]);
    // Sockets of the Internet only: no netlink, no packets, no vsock. A socketpair has no way
    // out of the process.
    let families = [libc::AF_INET, libc::AF_INET6];
    let inet = families
        .iter()
        .map(|family| argument(0, SeccompCmpArgLen::Dword, *family as u64))
        .collect::<io::Result<_>>()?;
    rules.insert(libc::SYS_socket, inet);
    let local = argument(0, SeccompCmpArgLen::Dword, libc::AF_UNIX as u64)?;
    rules.insert(libc::SYS_socketpair, vec![local]);
    apply(rules)
}

/// Confines the compiler: as a guest process, without any socket.
pub(crate) fn compiler() -> io::Result<()> {
    apply(allow(&[COMMON, OLD]))
}

fn allow(lists: &[&[i64]]) -> BTreeMap<i64, Vec<SeccompRule>> {
    lists
        .iter()
        .flat_map(|list| list.iter())
        .map(|call| (*call, Vec::new()))
        .chain([(libc::SYS_prlimit64, read_limits())])
        .collect()
}

/// `prlimit64` with nothing to set.
fn read_limits() -> Vec<SeccompRule> {
    argument(2, SeccompCmpArgLen::Qword, 0)
        .into_iter()
        .collect()
}

fn argument(index: u8, length: SeccompCmpArgLen, value: u64) -> io::Result<SeccompRule> {
    SeccompCondition::new(index, length, SeccompCmpOp::Eq, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>) -> io::Result<()> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
        architecture,
    )
    .map_err(io::Error::other)?;
    let program = BpfProgram::try_from(filter).map_err(io::Error::other)?;
    drop_capabilities()?;
    rustix::thread::set_no_new_privs(true)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}
