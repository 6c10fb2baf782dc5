//! System calls by their names.

use super::calls::{Numbers, numbered, of_every_program};

/// The number of a call; none if this machine's architecture has no such call.
pub(super) fn number(name: &str) -> Option<i64> {
    let mut known = of_every_program().chain(OTHERS).chain(OLD);
    known
        .find(|(constant, _)| constant.strip_prefix("SYS_") == Some(name))
        .map(|(_, number)| *number)
}

/// What not every program may make.
#[rustfmt::skip]
const OTHERS: Numbers = numbered![
    SYS_acct SYS_add_key SYS_bpf SYS_chroot SYS_clock_settime SYS_clone SYS_clone3
    SYS_delete_module SYS_fanotify_init SYS_finit_module SYS_fsconfig SYS_fsmount SYS_fsopen
    SYS_fspick SYS_get_mempolicy SYS_init_module SYS_io_uring_enter SYS_io_uring_register
    SYS_io_uring_setup SYS_kcmp SYS_kexec_load SYS_keyctl SYS_lookup_dcookie SYS_mbind
    SYS_migrate_pages SYS_mount SYS_mount_setattr SYS_move_mount SYS_move_pages SYS_mseal
    SYS_nfsservctl SYS_open_by_handle_at SYS_open_tree SYS_perf_event_open SYS_personality
    SYS_pidfd_getfd SYS_pivot_root SYS_process_madvise SYS_process_vm_readv
    SYS_process_vm_writev SYS_ptrace SYS_quotactl SYS_quotactl_fd SYS_reboot SYS_request_key
    SYS_set_mempolicy SYS_set_mempolicy_home_node SYS_setdomainname SYS_sethostname SYS_setns
    SYS_settimeofday SYS_socket SYS_swapoff SYS_swapon SYS_syslog SYS_umount2 SYS_unshare
    SYS_userfaultfd SYS_vhangup
];

/// Of those, what newer architectures leave out or number otherwise.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLD: Numbers = numbered![
    SYS__sysctl SYS_afs_syscall SYS_epoll_ctl_old SYS_epoll_wait_old SYS_getpmsg SYS_ioperm
    SYS_iopl SYS_kexec_file_load SYS_putpmsg SYS_security SYS_sysfs SYS_tuxcall SYS_uselib
    SYS_vserver
];
/// What libc does not name for each of them, with its number of asm-generic/unistd.h.
#[cfg(not(target_arch = "x86_64"))]
const OLD: Numbers = &[("SYS_kexec_file_load", 294)];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn calls_are_known_by_name_each_once() {
        for (name, expected) in [
            // What a program may make by default, on machines of every kind.
            ("read", Some(libc::SYS_read)),
            ("renameat", Some(libc::SYS_renameat)),
            ("getrlimit", Some(libc::SYS_getrlimit)),
            ("setrlimit", Some(libc::SYS_setrlimit)),
            ("sync_file_range", Some(libc::SYS_sync_file_range)),
            ("fchmodat2", Some(452)),
            // What it may not.
            ("mount", Some(libc::SYS_mount)),
            ("socketcall", None),
            ("SYS_read", None),
        ] {
            assert_eq!(number(name), expected, "{name}");
        }
        assert!(number("kexec_file_load").is_some());
        let mut seen = BTreeSet::new();
        for (name, number) in of_every_program().chain(OTHERS).chain(OLD) {
            assert!(seen.insert(number), "{name} stands twice");
        }
    }
}
