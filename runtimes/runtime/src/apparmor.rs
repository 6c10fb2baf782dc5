//! AppArmor, the security module of a kernel: whether it is enabled, and which profiles are loaded.
//!
//! Profiles are those of the administrator, and one that the runtime of containers has for all that
//! ask for none, which that loads itself. Deliberately absent: loading any other.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where a kernel tells of AppArmor.
#[derive(Clone, Debug)]
pub struct AppArmorPlaces {
    /// `Y` where it is enabled.
    enabled: PathBuf,
    /// The module's folder in securityfs.
    folder: PathBuf,
}

impl AppArmorPlaces {
    /// Those of this machine.
    pub fn of_machine() -> Self {
        Self::below(Path::new("/"))
    }

    /// The same below another root than the machine's.
    pub fn below(root: &Path) -> Self {
        Self {
            enabled: root.join("sys/module/apparmor/parameters/enabled"),
            folder: root.join("sys/kernel/security/apparmor"),
        }
    }

    /// The names of the profiles that are loaded; none where AppArmor is not enabled.
    ///
    /// # Errors
    /// It is enabled, and does not tell.
    pub fn profiles(&self) -> io::Result<Option<BTreeSet<String>>> {
        let enabled = fs::read_to_string(&self.enabled);
        if !enabled.is_ok_and(|text| text.starts_with('Y')) || !self.folder.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(self.folder.join("profiles"))?;
        Ok(Some(parse(&text)))
    }
}

/// The names in lines like `name of a profile (enforce)`.
fn parse(text: &str) -> BTreeSet<String> {
    let lines = text.lines();
    let names = lines.filter_map(|line| line.rsplit_once(" ("));
    names.map(|(name, _)| name.to_owned()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_those_that_the_kernel_lists() {
        let machine = tempfile::tempdir().unwrap();
        let places = AppArmorPlaces::below(machine.path());
        assert_eq!(places.profiles().unwrap(), None);
        let write = |path: &str, text: &str| {
            let path = machine.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("sys/module/apparmor/parameters/enabled", "N\n");
        assert_eq!(places.profiles().unwrap(), None);
        // Without securityfs nothing is known of it.
        write("sys/module/apparmor/parameters/enabled", "Y\n");
        assert_eq!(places.profiles().unwrap(), None);
        fs::create_dir_all(machine.path().join("sys/kernel/security/apparmor")).unwrap();
        assert!(places.profiles().is_err());
        write(
            "sys/kernel/security/apparmor/profiles",
            "k8s-deny-write (enforce)\n/usr/bin/man//filter (complain)\nwith (two) words (enforce)\n",
        );
        let expected = ["/usr/bin/man//filter", "k8s-deny-write", "with (two) words"];
        let found = places.profiles().unwrap().unwrap();
        assert!(found.iter().eq(expected.iter()), "{found:?}");
    }
}
