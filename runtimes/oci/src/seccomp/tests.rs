#![allow(clippy::unwrap_used)]

use super::*;
use crate::spec::Capabilities;

fn with(capabilities: &[&str]) -> Capabilities {
    serde_json::from_value(serde_json::json!(capabilities)).unwrap()
}

/// What a filter answers to a call: the strictest of its programs, as the kernel has it.
fn answer(capabilities: &[&str], call: i64, arguments: &[u64]) -> u32 {
    let profile = default_profile(&with(capabilities)).unwrap();
    let programs = profile.compile().unwrap();
    let mut padded = [0; 6];
    padded[..arguments.len()].copy_from_slice(arguments);
    let answers = programs
        .programs
        .iter()
        .map(|program| run(program, call, padded));
    // Smaller numbers are stricter actions.
    answers.min_by_key(|answer| *answer as i32).unwrap()
}

/// The kernel's own machine, as far as filters use it (linux/filter.h).
fn run(program: &BpfProgram, call: i64, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend((call as u32).to_le_bytes());
    let architecture: u32 = match std::env::consts::ARCH {
        "x86_64" => 0xc000_003e,
        _ => 0xc000_00b7,
    };
    data.extend(architecture.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let instruction = &program[at];
        let k = instruction.k;
        at += 1;
        let jump = |taken: bool| {
            usize::from(if taken {
                instruction.jt
            } else {
                instruction.jf
            })
        };
        match instruction.code {
            0x20 => {
                let bytes = &data[k as usize..][..4];
                accumulator = u32::from_le_bytes(bytes.try_into().unwrap());
            }
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

const ALLOW: u32 = 0x7fff_0000;

fn errno(number: i32) -> u32 {
    0x0005_0000 | number as u32
}

#[test]
fn what_programs_need_is_allowed_and_the_rest_fails() {
    let refused = errno(libc::EPERM);
    for (call, arguments, expected) in [
        (libc::SYS_openat, &[][..], ALLOW),
        (libc::SYS_execve, &[], ALLOW),
        (libc::SYS_mount, &[], refused),
        (libc::SYS_unshare, &[], refused),
        (libc::SYS_setns, &[], refused),
        (libc::SYS_bpf, &[], refused),
        (libc::SYS_ptrace, &[], refused),
        (libc::SYS_keyctl, &[], refused),
        (libc::SYS_add_key, &[], refused),
        (libc::SYS_userfaultfd, &[], refused),
        (libc::SYS_io_uring_setup, &[], refused),
        (libc::SYS_kexec_load, &[], refused),
        (libc::SYS_init_module, &[], refused),
        // A thread, and a process in a user namespace of its own.
        (libc::SYS_clone, &[libc::CLONE_VM as u64], ALLOW),
        (libc::SYS_clone, &[libc::CLONE_NEWUSER as u64], refused),
        (libc::SYS_clone, &[libc::CLONE_NEWNS as u64 | 17], refused),
        (libc::SYS_clone3, &[], errno(libc::ENOSYS)),
        (libc::SYS_socket, &[libc::AF_INET as u64], ALLOW),
        (libc::SYS_socket, &[libc::AF_UNIX as u64], ALLOW),
        (libc::SYS_socket, &[libc::AF_VSOCK as u64], refused),
        (libc::SYS_socket, &[libc::AF_ALG as u64], refused),
        (libc::SYS_personality, &[0xffff_ffff], ALLOW),
        (libc::SYS_personality, &[0x4_0000], refused),
        // Numbers of the x32 architecture.
        (0x4000_0000 | libc::SYS_openat, &[], refused),
    ] {
        let found = answer(&["CHOWN"], call, arguments);
        assert_eq!(found, expected, "call {call} {arguments:x?}: {found:x}");
    }
}

#[test]
fn a_capability_brings_its_calls() {
    for (capability, call) in [
        ("SYS_ADMIN", libc::SYS_mount),
        ("SYS_ADMIN", libc::SYS_clone3),
        ("SYS_CHROOT", libc::SYS_chroot),
        ("SYS_PTRACE", libc::SYS_ptrace),
        ("SYS_TIME", libc::SYS_clock_settime),
        ("BPF", libc::SYS_bpf),
    ] {
        assert_ne!(answer(&["CHOWN"], call, &[]), ALLOW, "{capability}");
        assert_eq!(answer(&[capability], call, &[]), ALLOW, "{capability}");
    }
    let namespace = [libc::CLONE_NEWNS as u64];
    assert_eq!(answer(&["SYS_ADMIN"], libc::SYS_clone, &namespace), ALLOW);
}
