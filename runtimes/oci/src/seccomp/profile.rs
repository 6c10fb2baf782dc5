//! The runtime's own filter: what programs in containers need, as container engines document their
//! default profiles.
//!
//! Everything else fails with EPERM, so that programs try what else there is. What a capability is
//! for comes with the capability. `clone3` fails with ENOSYS, since a filter cannot look at its
//! flags, and libraries then use `clone`, whose flags are looked at.

use std::io;

use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::calls::of_every_program;
use super::{Calls, Profile, Rule};
use crate::spec::Capabilities;

/// Flags of `clone` that make namespaces (clone(2)); that of time namespaces is no flag of
/// `clone`.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// What `personality` may set: Linux, with or without the addresses of before 2.6.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The profile for processes with these capabilities.
pub(crate) fn default_profile(capabilities: &Capabilities) -> io::Result<Profile> {
    let mut allowed: Calls = of_every_program()
        .map(|(_, call)| (*call, Vec::new()))
        .collect();
    for (capability, calls) in BY_CAPABILITY {
        if capabilities.has(capability) {
            allowed.extend(calls.iter().map(|call| (*call, Vec::new())));
        }
    }
    let personalities = PERSONALITIES
        .iter()
        .map(|value| rule(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value))
        .collect::<io::Result<_>>()?;
    allowed.push((libc::SYS_personality, personalities));
    // Of sockets all but those that reach past the machine's own network and the kernel's ciphers.
    let sockets = [libc::AF_VSOCK, libc::AF_ALG];
    let condition = |family: &i32| {
        let (length, family) = (SeccompCmpArgLen::Dword, *family as u64);
        SeccompCondition::new(0, length, SeccompCmpOp::Ne, family).map_err(io::Error::other)
    };
    let conditions = sockets.iter().map(condition).collect::<io::Result<_>>()?;
    let socket = SeccompRule::new(conditions).map_err(io::Error::other)?;
    allowed.push((libc::SYS_socket, vec![socket]));
    if !capabilities.has("SYS_ADMIN") {
        let no_namespace = SeccompCmpOp::MaskedEq(NAMESPACES);
        let clone = rule(0, SeccompCmpArgLen::Qword, no_namespace, 0)?;
        allowed.push((libc::SYS_clone, vec![clone]));
    }
    let mut rules = vec![Rule {
        action: SeccompAction::Allow,
        calls: allowed,
    }];
    if !capabilities.has("SYS_ADMIN") {
        rules.push(Rule {
            action: SeccompAction::Errno(libc::ENOSYS as u32),
            calls: vec![(libc::SYS_clone3, Vec::new())],
        });
    }
    Ok(Profile {
        otherwise: SeccompAction::Errno(libc::EPERM as u32),
        rules,
        flags: 0,
    })
}

fn rule(
    argument: u8,
    length: SeccompCmpArgLen,
    comparison: SeccompCmpOp,
    value: u64,
) -> io::Result<SeccompRule> {
    SeccompCondition::new(argument, length, comparison, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

const BY_CAPABILITY: &[(&str, &[i64])] = &[
    ("DAC_READ_SEARCH", &[libc::SYS_open_by_handle_at]),
    (
        "SYS_ADMIN",
        &[
            libc::SYS_bpf,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_fanotify_init,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fsopen,
            libc::SYS_fspick,
            libc::SYS_lookup_dcookie,
            libc::SYS_mount,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_perf_event_open,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_setdomainname,
            libc::SYS_sethostname,
            libc::SYS_setns,
            libc::SYS_syslog,
            libc::SYS_umount2,
            libc::SYS_unshare,
        ],
    ),
    ("SYS_BOOT", &[libc::SYS_reboot]),
    ("SYS_CHROOT", &[libc::SYS_chroot]),
    (
        "SYS_MODULE",
        &[
            libc::SYS_delete_module,
            libc::SYS_init_module,
            libc::SYS_finit_module,
        ],
    ),
    ("SYS_PACCT", &[libc::SYS_acct]),
    (
        "SYS_PTRACE",
        &[
            libc::SYS_kcmp,
            libc::SYS_pidfd_getfd,
            libc::SYS_process_madvise,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_ptrace,
        ],
    ),
    (
        "SYS_TIME",
        &[libc::SYS_settimeofday, libc::SYS_clock_settime],
    ),
    ("SYS_TTY_CONFIG", &[libc::SYS_vhangup]),
    (
        "SYS_NICE",
        &[
            libc::SYS_get_mempolicy,
            libc::SYS_mbind,
            libc::SYS_set_mempolicy,
        ],
    ),
    ("SYSLOG", &[libc::SYS_syslog]),
    ("BPF", &[libc::SYS_bpf]),
    ("PERFMON", &[libc::SYS_perf_event_open]),
];
