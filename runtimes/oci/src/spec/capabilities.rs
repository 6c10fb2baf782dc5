//! What processes of a container may do beside what users may.

use std::collections::BTreeSet;

use coracle_runtime::Security;
use serde::{Deserialize, Serialize};

/// All capabilities, at their numbers (capabilities(7)).
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What container engines give.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities, without `CAP_`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Capabilities(BTreeSet<String>);

impl Capabilities {
    /// The default ones, less those that are dropped, with those that are added; all of a container
    /// with all rights. `own` are those that can be given, as the kernel writes them.
    ///
    /// Where no devices are filtered whoever could make one could use it: the right to is not given.
    pub(super) fn of(security: &Security, filtered: bool, own: u64) -> Result<Self, String> {
        // All that there are: nobody can give what the machine or its root lacks.
        let all = ALL.iter().enumerate();
        let all = all.filter(|(number, _)| own & (1 << number) != 0);
        let all: BTreeSet<String> = all.map(|(_, name)| (*name).to_owned()).collect();
        if security.privileged {
            return Ok(Self(all));
        }
        let add = names(&security.add_capabilities, &all)?;
        let drop = names(&security.drop_capabilities, &all)?;
        let asks = security.add_capabilities.iter();
        if !filtered && asks.map(|name| bare(name)).any(|name| name == "MKNOD") {
            return Err(
                "capability MKNOD is not given on this node: its kernel does not filter devices"
                    .into(),
            );
        }
        let default = DEFAULT.map(str::to_owned);
        let mut set: BTreeSet<String> = default.into_iter().filter(|c| !drop.contains(c)).collect();
        set.extend(add);
        // What is named in both is dropped, unless it is the rest of ALL.
        let all = |names: &[String]| names.iter().any(|name| bare(name) == "ALL");
        if !all(&security.drop_capabilities) {
            set.retain(|c| !drop.contains(c));
        }
        if !filtered {
            set.remove("MKNOD");
        }
        Ok(Self(set))
    }

    /// With what it takes to install a filter, and to give that up again.
    pub(super) fn with_filter_rights(&self) -> Self {
        let mut set = self.0.clone();
        set.extend(["SYS_ADMIN", "SETPCAP"].map(str::to_owned));
        Self(set)
    }

    /// With what it takes beside that to join users of a Pod's own, and to give them a terminal.
    pub(super) fn with_joining_rights(&self) -> Self {
        let Self(mut set) = self.with_filter_rights();
        set.insert("CHOWN".to_owned());
        Self(set)
    }

    /// With what it takes to become another user.
    pub(crate) fn with_ids(&self) -> Self {
        let mut set = self.0.clone();
        set.extend(["SETUID", "SETGID", "SETPCAP"].map(str::to_owned));
        Self(set)
    }

    /// As the OCI runtime specification names them.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.iter().map(|name| format!("CAP_{name}")).collect()
    }

    /// Whether it is in the set.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// As the kernel writes it: a bit per number.
    pub(crate) fn bits(&self) -> u64 {
        let numbers = ALL.iter().enumerate();
        numbers
            .filter(|(_, name)| self.0.contains(**name))
            .fold(0, |bits, (number, _)| bits | 1 << number)
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix("CAP_").unwrap_or(name)
}

fn names(given: &[String], all: &BTreeSet<String>) -> Result<BTreeSet<String>, String> {
    let mut set = BTreeSet::new();
    for name in given {
        match bare(name) {
            "ALL" => set.extend(all.iter().cloned()),
            known if ALL.contains(&known) => {
                set.insert(known.to_owned());
            }
            _ => return Err(format!("unknown capability \"{name}\"")),
        }
    }
    Ok(set)
}
