//! Huge pages: which sizes the machine has, and how control groups name them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Where the kernel has a folder for each size.
pub const FOLDER: &str = "/sys/kernel/mm/hugepages";

/// The sizes that a kernel has, in bytes, with how many pages are reserved of each. `folder` is
/// [`FOLDER`]; where there is none the kernel has no huge pages.
pub fn reserved(folder: &Path) -> BTreeMap<u64, u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        let size: u64 = size.parse().ok()?;
        let pages = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
        let pages: u64 = pages.trim().parse().ok()?;
        Some((size.checked_mul(1024)?, pages))
    };
    entries.filter_map(of).collect()
}

/// A size as the kernel writes it in the names of files of control groups, such as `2MB`.
pub fn unit(bytes: u64) -> String {
    match bytes >> 10 {
        kibibytes if kibibytes >= 1 << 20 => format!("{}GB", kibibytes >> 20),
        kibibytes if kibibytes >= 1 << 10 => format!("{}MB", kibibytes >> 10),
        kibibytes => format!("{kibibytes}KB"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_kernels_folders() {
        let folder = tempfile::tempdir().unwrap();
        for (name, pages) in [
            ("hugepages-2048kB", "512\n"),
            ("hugepages-1048576kB", "0\n"),
            ("hugepages-64kB", "no number\n"),
            ("another", "1\n"),
        ] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("nr_hugepages"), pages).unwrap();
        }
        let expected = BTreeMap::from([(2 << 20, 512), (1 << 30, 0)]);
        assert_eq!(reserved(folder.path()), expected);
        assert_eq!(reserved(&folder.path().join("none")), BTreeMap::new());
    }

    #[test]
    fn sizes_have_the_kernels_names() {
        for (bytes, name) in [
            (64 << 10, "64KB"),
            (2 << 20, "2MB"),
            (512 << 20, "512MB"),
            (1 << 30, "1GB"),
            (16 << 30, "16GB"),
        ] {
            assert_eq!(unit(bytes), name);
        }
    }
}
