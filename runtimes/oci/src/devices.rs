//! Which devices the processes of a container may use, where no control group has rules for it.
//!
//! Of the older hierarchies one has such rules, which libcontainer writes. With the unified one the
//! kernel asks a program that is attached to a cgroup (`BPF_PROG_TYPE_CGROUP_DEVICE`; "Device
//! controller" in the kernel's document on control groups), and here is one that allows what
//! libcontainer's rules do. It goes with the cgroup. Devices of a Pod's own are deliberately absent:
//! containers have those of all or, with all rights, all.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Character devices that may be used: the numbers of each, of which the second may be any.
const ALLOWED: [(i32, Option<i32>); 10] = [
    // null, zero, full, random, urandom
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    // tty, console, ptmx
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    // pts
    (136, None),
    // tun
    (10, Some(200)),
];

/// A filter of devices that the kernel has taken.
pub(crate) struct Filter(OwnedFd);

impl Filter {
    /// Loads it. Errors where the kernel has no such filters, or does not take them from this process.
    pub(crate) fn load() -> io::Result<Self> {
        let program = program();
        let attributes = Load {
            kind: CGROUP_DEVICE,
            length: u32::try_from(program.len()).map_err(io::Error::other)?,
            instructions: program.as_ptr() as u64,
            // It calls nothing of the kernel's that would ask for another.
            license: c"Apache-2.0".as_ptr() as u64,
            ..Load::default()
        };
        // SAFETY: the attributes are those of the command, and what they point to lives until the
        // call returns.
        let loaded = unsafe { bpf(PROG_LOAD, &attributes)? };
        // SAFETY: the kernel has just given this descriptor to us alone.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(loaded) }))
    }

    /// Attaches it to a cgroup, beside filters of others.
    pub(crate) fn attach(&self, cgroup: &Path) -> io::Result<()> {
        let cgroup = File::open(cgroup)?;
        let attributes = Attach {
            target: cgroup.as_raw_fd(),
            program: self.0.as_raw_fd(),
            kind: DEVICE,
            flags: ALLOW_MULTI,
            replaced: 0,
        };
        // SAFETY: the attributes are those of the command, and hold no pointer.
        unsafe { bpf(PROG_ATTACH, &attributes) }.map(|_| ())
    }
}

/// Lets programs be loaded however many there are: kernels before 5.11 count them as memory that
/// processes of the user have locked.
pub(crate) fn lift_limit() -> io::Result<()> {
    let none = Rlimit {
        current: None,
        maximum: None,
    };
    Ok(setrlimit(Resource::Memlock, none)?)
}

/// `BPF_PROG_LOAD`.
const PROG_LOAD: libc::c_int = 5;
/// `BPF_PROG_ATTACH`.
const PROG_ATTACH: libc::c_int = 8;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`.
const CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE`.
const DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`.
const ALLOW_MULTI: u32 = 2;

/// The first fields of `union bpf_attr` of the first command; the kernel takes the others as 0.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    length: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The same of the second one.
#[repr(C)]
struct Attach {
    target: i32,
    program: i32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// Calls bpf(2).
///
/// # Safety
/// `attributes` must be those of the command, and what they point to must live.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: the caller says so; the size is that of what is pointed to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// The register that is changed or compared, and in the upper half the one that is read.
    registers: u8,
    /// Of memory, or how many instructions are left out.
    offset: i16,
    value: i32,
}

/// Reads 32 bits of memory.
const READ: u8 = 0x61;
/// Sets to a value.
const SET: u8 = 0xb7;
/// Sets to another register.
const COPY: u8 = 0xbf;
const SHIFT_RIGHT: u8 = 0x77;
const AND: u8 = 0x57;
/// Jumps unless it is the value.
const UNLESS: u8 = 0x55;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_ACC_MKNOD`, alone.
const MAKE: i32 = 1;
/// `BPF_DEVCG_DEV_CHAR`.
const CHARACTER: i32 = 2;

/// What is asked for comes as three numbers, to which register 1 points (`struct
/// bpf_cgroup_dev_ctx`): how the device is to be used and its kind, 16 bits each, and its own two
/// numbers. What is left in register 0 says whether it may be.
fn program() -> Vec<Instruction> {
    let of = |code, registers, offset, value| Instruction {
        code,
        registers,
        offset,
        value,
    };
    let exit = of(EXIT, 0, 0, 0);
    let mut all = vec![
        of(SET, 0, 0, 1),
        of(READ, 0x12, 0, 0),
        of(READ, 0x13, 4, 0),
        of(READ, 0x14, 8, 0),
        // Any may be made by who has the right to.
        of(COPY, 0x25, 0, 0),
        of(SHIFT_RIGHT, 5, 0, 16),
        of(UNLESS, 5, 1, MAKE),
        exit,
    ];
    all.push(of(AND, 2, 0, 0xffff));
    let checks = ALLOWED.iter().flat_map(|(major, minor)| match minor {
        Some(minor) => vec![of(UNLESS, 3, 2, *major), of(UNLESS, 4, 1, *minor), exit],
        None => vec![of(UNLESS, 3, 1, *major), exit],
    });
    let checks: Vec<Instruction> = checks.collect();
    // There are a few dozens.
    let length = i16::try_from(checks.len()).unwrap_or(i16::MAX);
    all.push(of(UNLESS, 2, length, CHARACTER));
    all.extend(checks);
    all.extend([of(SET, 0, 0, 0), exit]);
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What the program says: it is run as the kernel would.
    fn allows(how: u32, kind: u32, major: u32, minor: u32) -> bool {
        let (program, asked) = (program(), [(how << 16) | kind, major, minor]);
        let mut registers = [0_i64; 11];
        let mut at = 0;
        loop {
            let of = program[at];
            let (changed, read) = (
                usize::from(of.registers & 15),
                usize::from(of.registers >> 4),
            );
            let value = i64::from(of.value);
            at += 1;
            match of.code {
                READ => registers[changed] = asked[usize::try_from(of.offset).unwrap() / 4].into(),
                SET => registers[changed] = value,
                COPY => registers[changed] = registers[read],
                SHIFT_RIGHT => registers[changed] >>= value,
                AND => registers[changed] &= value,
                UNLESS if registers[changed] != value => at += usize::try_from(of.offset).unwrap(),
                UNLESS => {}
                EXIT => return registers[0] != 0,
                other => panic!("{other:x}"),
            }
        }
    }

    #[test]
    fn devices_of_every_container_are_allowed_and_no_others() {
        const BLOCK: u32 = 1;
        const CHARACTER: u32 = 2;
        const MAKE: u32 = 1;
        const READ: u32 = 2;
        const WRITE: u32 = 4;
        for (how, kind, major, minor, expected) in [
            (READ | WRITE, CHARACTER, 1, 3, true),
            (READ, CHARACTER, 1, 9, true),
            (READ, CHARACTER, 1, 1, false),
            (READ, CHARACTER, 3, 1, false),
            (READ, BLOCK, 1, 3, false),
            (WRITE, BLOCK, 254, 0, false),
            (READ | WRITE, CHARACTER, 136, 77, true),
            (READ | WRITE, CHARACTER, 137, 77, false),
            (READ, CHARACTER, 5, 3, false),
            (READ | WRITE, CHARACTER, 10, 200, true),
            (READ, CHARACTER, 10, 201, false),
            // Overlays hide files by such devices.
            (MAKE, CHARACTER, 0, 0, true),
            (MAKE, BLOCK, 254, 0, true),
            (MAKE | READ, BLOCK, 254, 0, false),
        ] {
            let allowed = allows(how, kind, major, minor);
            assert_eq!(allowed, expected, "{how} {kind} {major}:{minor}");
        }
    }

    #[test]
    fn the_kernel_takes_the_filter() {
        match Filter::load() {
            Ok(_) => {}
            // Of a user without rights, or where it has none.
            Err(error) if error.raw_os_error() != Some(libc::EACCES) => {
                eprintln!("SKIPPED: a filter of devices: {error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
