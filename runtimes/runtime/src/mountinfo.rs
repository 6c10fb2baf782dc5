//! The table of mounts that a process sees, `/proc/PID/mountinfo` (proc(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A place where something is mounted, and how mounts below it propagate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// Where it is.
    pub path: PathBuf,
    /// Whether mounts go to others and come from them.
    pub shared: bool,
    /// Whether mounts come from others.
    pub slave: bool,
}

/// What this process sees, in the order in which it was mounted.
pub fn of_this_process() -> io::Result<Vec<MountPoint>> {
    // Bytes, since whoever mounts something gives the place any name.
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Reads a table; lines that are none of it are passed over.
pub fn parse(table: &[u8]) -> Vec<MountPoint> {
    let lines = table.split(|byte| *byte == b'\n');
    lines.filter_map(mount_point).collect()
}

fn mount_point(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let path = unescaped(fields.nth(4)?);
    let mut point = MountPoint {
        path,
        shared: false,
        slave: false,
    };
    // Behind the options stands how it propagates, in any number of fields.
    for field in fields.skip(1).take_while(|field| *field != b"-") {
        point.shared |= field.starts_with(b"shared:");
        point.slave |= field.starts_with(b"master:");
    }
    Some(point)
}

/// Blanks, line ends and backslashes stand as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut left = field;
    while let [first, after @ ..] = left {
        let code = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = code.and_then(|code| str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                left = &after[3..];
            }
            None => {
                path.push(*first);
                left = after;
            }
        }
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_propagation() {
        let table = b"\
            22 1 0:21 / / rw - ext4 /dev/vda rw\n\
            30 22 0:30 / /a\\040b\\134040\\011 rw shared:7 - tmpfs shared:8 rw\n\
            31 22 0:31 / /\xff rw unbindable shared:3 master:7 - tmpfs b rw\n\
            32 22 0:31 / /slave\\09 rw master:7 propagate_from:2 - tmpfs b rw\n\
            nonsense\n";
        let names: [&[u8]; 4] = [b"/", b"/a b\\040\t", b"/\xff", b"/slave\\09"];
        let expected = names
            .into_iter()
            .zip([(false, false), (true, false), (true, true), (false, true)])
            .map(|(name, (shared, slave))| MountPoint {
                path: OsString::from_vec(name.to_vec()).into(),
                shared,
                slave,
            });
        assert_eq!(parse(table), expected.collect::<Vec<_>>());
    }

    #[test]
    fn this_process_sees_a_root() {
        let points = of_this_process().expect("the kernel has the table");
        assert!(points.iter().any(|point| point.path == *"/"));
    }
}
