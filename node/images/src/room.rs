//! Room on a disk: what stays free of it, and whether more fits.
//!
//! A node whose disk is full serves nobody. So what is pulled and unpacked leaves free what the
//! kubelet would end Pods for (its hard eviction thresholds of `imagefs` and `nodefs`, which are one
//! disk here): it is refused at once where it is known to be too much, and stops while it is
//! written where that turns out. How many files an image has shows only then.
//!
//! Deliberately absent: making room (the kubelet's garbage collection).

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{StatVfs, fstatvfs, statvfs};

/// Bytes after which the disk is looked at again. Fewer would ask it for every small file; more would
/// let it fill up between two looks.
pub(crate) const STEP: u64 = 16 << 20;

/// What of a disk stays free: of bytes and of files the larger of both.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reserve {
    /// So many bytes.
    pub bytes: u64,
    /// That part of all bytes, from 0 to 100.
    pub percent: f64,
    /// So many files (inodes).
    pub files: u64,
    /// That part of all files, from 0 to 100.
    pub files_percent: f64,
}

impl Default for Reserve {
    /// Enough for what else a node writes.
    fn default() -> Self {
        Self {
            bytes: 512 << 20,
            percent: 0.0,
            files: 1 << 10,
            files_percent: 0.0,
        }
    }
}

/// The larger of an amount and a part of all.
fn larger(amount: u64, percent: f64, all: u64) -> u64 {
    amount.max((all as f64 * percent / 100.0) as u64)
}

/// How much there is of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Bytes.
    pub(crate) capacity: u64,
    pub(crate) available: u64,
    /// Files that it can have; 0 where it has no bound of them.
    pub(crate) files: u64,
    pub(crate) files_free: u64,
}

impl Disk {
    /// The disk on which a folder is.
    pub(crate) fn at(folder: &Path) -> io::Result<Self> {
        Ok(Self::from(statvfs(folder)?))
    }

    /// The disk of an open file or folder.
    pub(crate) fn of(open: impl AsFd) -> io::Result<Self> {
        Ok(Self::from(fstatvfs(open)?))
    }
}

impl From<StatVfs> for Disk {
    fn from(disk: StatVfs) -> Self {
        Self {
            capacity: disk.f_blocks.saturating_mul(disk.f_frsize),
            available: disk.f_bavail.saturating_mul(disk.f_frsize),
            files: disk.f_files,
            files_free: disk.f_favail,
        }
    }
}

/// Why something is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// There is no room for its bytes.
    Bytes {
        needed: u64,
        available: u64,
        reserved: u64,
    },
    /// There is none for more files.
    Files { free: u64, reserved: u64 },
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Bytes {
                needed,
                available,
                reserved,
            } => {
                let [needed, available, reserved] = [needed, available, reserved].map(in_units);
                write!(
                    f,
                    "no space left on the node's disk of images: {needed} more do not fit into \
                     {available} that are free, of which {reserved} stay free"
                )
            }
            Self::Files { free, reserved } => write!(
                f,
                "no inodes left on the node's disk of images: {free} are free, where {reserved} \
                 stay free"
            ),
        }?;
        f.write_str(
            " (the node's eviction threshold); remove images or other files from the node, or give \
             it a larger disk",
        )
    }
}

impl std::error::Error for NoRoom {}

/// Whether so many bytes more fit beside what stays free.
pub(crate) fn fits(disk: Disk, reserve: Reserve, bytes: u64) -> Result<(), NoRoom> {
    let reserved = larger(reserve.bytes, reserve.percent, disk.capacity);
    // Some file systems do not tell, and say that there is none at all.
    if disk.capacity > 0 && reserved.saturating_add(bytes) > disk.available {
        return Err(NoRoom::Bytes {
            needed: bytes,
            available: disk.available,
            reserved,
        });
    }
    let reserved = larger(reserve.files, reserve.files_percent, disk.files);
    if disk.files > 0 && reserved > disk.files_free {
        return Err(NoRoom::Files {
            free: disk.files_free,
            reserved,
        });
    }
    Ok(())
}

/// The same as an error of the disk's, [`io::ErrorKind::StorageFull`].
pub(crate) fn check(disk: Disk, reserve: Reserve, bytes: u64) -> io::Result<()> {
    fits(disk, reserve, bytes).map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))
}

/// Looks at a disk while it is written to, every [`STEP`] bytes.
#[derive(Debug)]
pub(crate) struct Watch {
    reserve: Reserve,
    unseen: u64,
}

impl Watch {
    pub(crate) fn new(reserve: Reserve) -> Self {
        Self { reserve, unseen: 0 }
    }

    /// Takes note of bytes that are written, and where it is time to look makes sure that `next` more
    /// fit.
    pub(crate) fn take(
        &mut self,
        bytes: u64,
        next: u64,
        disk: impl FnOnce() -> io::Result<Disk>,
    ) -> io::Result<()> {
        self.unseen = self.unseen.saturating_add(bytes);
        if self.unseen < STEP {
            return Ok(());
        }
        self.unseen = 0;
        check(disk()?, self.reserve, next.min(STEP))
    }
}

/// Bytes as people read them.
fn in_units(bytes: u64) -> String {
    let (shift, unit) = match bytes {
        0..0x10_0000 => (10, "KiB"),
        0x10_0000..0x4000_0000 => (20, "MiB"),
        _ => (30, "GiB"),
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn reserve(bytes: u64, percent: f64) -> Reserve {
        Reserve {
            bytes,
            percent,
            files: 0,
            files_percent: 0.0,
        }
    }

    fn disk(capacity: u64, available: u64) -> Disk {
        Disk {
            capacity,
            available,
            files: 0,
            files_free: 0,
        }
    }

    #[test]
    fn files_are_kept_free_too() {
        for (files, files_percent, free, fits) in [
            (10, 0.0, 10, true),
            (10, 0.0, 9, false),
            (0, 5.0, 50, true),
            (10, 5.0, 49, false),
            (0, 0.0, 0, true),
        ] {
            let reserve = Reserve {
                files,
                files_percent,
                ..reserve(0, 0.0)
            };
            let disk = Disk {
                files: 1000,
                files_free: free,
                ..disk(100, 50)
            };
            let checked = check(disk, reserve, 50);
            assert_eq!(checked.is_ok(), fits, "{reserve:?} {free}");
            if let Err(error) = checked {
                assert_eq!(error.kind(), io::ErrorKind::StorageFull);
                assert!(error.to_string().starts_with("no inodes left"), "{error}");
            }
        }
        // A file system that has as many as there is room for.
        let many = Reserve {
            files: 10,
            ..reserve(0, 0.0)
        };
        assert_eq!(fits(disk(100, 50), many, 50), Ok(()));
    }

    #[test]
    fn what_fits_leaves_the_reserve_free() {
        let (ten, none) = (reserve(10, 0.0), reserve(0, 0.0));
        let share = reserve(10, 5.0);
        for (disk, reserve, bytes, expected) in [
            (disk(100, 50), ten, 40, true),
            (disk(100, 50), ten, 41, false),
            (disk(100, 9), ten, 0, false),
            (disk(100, 50), none, 50, true),
            (disk(100, 50), none, 51, false),
            (disk(1000, 100), share, 50, true),
            (disk(1000, 100), share, 51, false),
            (disk(100, 50), share, 40, true),
            (disk(100, 50), share, 41, false),
            (disk(100, 50), ten, u64::MAX, false),
            (disk(100, 50), reserve(u64::MAX, 0.0), 1, false),
            (disk(100, 100), reserve(0, 100.0), 1, false),
            // A file system that does not tell.
            (disk(0, 0), ten, 40, true),
        ] {
            let found = fits(disk, reserve, bytes);
            assert_eq!(found.is_ok(), expected, "{disk:?} {reserve:?} {bytes}");
        }
    }

    #[test]
    fn it_is_said_how_much_is_missing() {
        let small = disk(100 * GIB, 8 * GIB);
        let error = check(small, reserve(0, 5.0), 12 * GIB + GIB / 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let error = error.to_string();
        let begin = "no space left on the node's disk of images: 12.5 GiB more do not fit into \
                     8.0 GiB that are free, of which 5.0 GiB stay free";
        assert!(error.starts_with(begin), "{error}");
        for (bytes, text) in [
            (0, "0.0 KiB"),
            (1536, "1.5 KiB"),
            (16 << 20, "16.0 MiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(in_units(bytes), text);
        }
    }

    #[test]
    fn a_disk_is_looked_at_as_it_fills() {
        let available = std::cell::Cell::new(10 * STEP);
        let looks = std::cell::Cell::new(0);
        let mut watch = Watch::new(reserve(2 * STEP, 0.0));
        let mut write = |bytes: u64, next| {
            available.set(available.get() - bytes);
            watch.take(bytes, next, || {
                looks.set(looks.get() + 1);
                Ok(disk(100 * STEP, available.get()))
            })
        };
        let quarter = STEP / 4;
        for _ in 0..28 {
            write(quarter, u64::MAX).unwrap();
        }
        assert_eq!((looks.get(), available.get()), (7, 3 * STEP));
        // One step is left over the reserve. What ends there fits, and what goes on does not.
        for next in [3, 2, 1, 0] {
            write(quarter, next * quarter).unwrap();
        }
        assert_eq!((looks.get(), available.get()), (8, 2 * STEP));
        for _ in 0..3 {
            write(quarter, u64::MAX).unwrap();
        }
        let error = write(quarter, u64::MAX).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn disks_tell() {
        let folder = tempfile::tempdir().unwrap();
        let at = Disk::at(folder.path()).unwrap();
        let of = Disk::of(std::fs::File::open(folder.path()).unwrap()).unwrap();
        assert!(at.available <= at.capacity, "{at:?}");
        assert!(at.files_free <= at.files, "{at:?}");
        assert_eq!(at.capacity, of.capacity);
    }
}
