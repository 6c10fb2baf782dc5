//! How a guest process is started: what the agent writes on its command line, and what the
//! process makes of it before it has any thread.
//!
//! The order matters. Joining a network namespace and taking another user need rights that the
//! process gives up with the latter; what is confined afterwards ([`crate::confine`]) cannot get
//! them back.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_runtime::GuestUser;
use rustix::fs::{Gid, Uid};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

/// How long an ephemeral process waits for an agent.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What the subcommands of guest processes take.
pub(crate) const USAGE: &str =
    "usage: <folder> [--ephemeral=MILLISECONDS] [--network-namespace PATH] [--user UID:GID]";
const EPHEMERAL: &str = "--ephemeral=";
const NETWORK_NAMESPACE: &str = "--network-namespace";
/// The option that names the user of a process.
pub(crate) const USER: &str = "--user";
/// The folder in a process's own in which it makes folders for volumes that are single files.
pub(crate) const SCRATCH: &str = "volumes";

/// What a guest process is told on its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// The process's own folder.
    pub folder: PathBuf,
    /// How long it waits for an agent before it ends, if it does not wait for ever.
    pub ephemeral: Option<Duration>,
    /// The network namespace that it joins.
    pub network_namespace: Option<PathBuf>,
    /// The user that it takes.
    pub user: Option<GuestUser>,
}

impl Launch {
    /// The arguments that [`Launch::parse`] reads.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![self.folder.clone().into_os_string()];
        if let Some(patience) = self.ephemeral {
            arguments.push(format!("{EPHEMERAL}{}", patience.as_millis()).into());
        }
        if let Some(path) = &self.network_namespace {
            arguments.extend([NETWORK_NAMESPACE.into(), path.into()]);
        }
        if let Some(user) = self.user {
            arguments.extend([USER.into(), user_text(user)]);
        }
        arguments
    }

    /// Reads what [`Launch::arguments`] wrote.
    pub(crate) fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let mut arguments = arguments.iter();
        let mut launch = Self {
            folder: arguments.next().ok_or(USAGE)?.into(),
            ephemeral: None,
            network_namespace: None,
            user: None,
        };
        while let Some(option) = arguments.next() {
            if let Some(patience) = option.to_str().and_then(|o| o.strip_prefix(EPHEMERAL)) {
                let patience = patience.parse().map_err(|_| USAGE)?;
                launch.ephemeral = Some(Duration::from_millis(patience));
            } else if option == NETWORK_NAMESPACE {
                launch.network_namespace = Some(arguments.next().ok_or(USAGE)?.into());
            } else if option == USER {
                launch.user = Some(user(arguments.next().ok_or(USAGE)?)?);
            } else {
                return Err(USAGE.into());
            }
        }
        Ok(launch)
    }
}

/// A user as it stands on a command line.
pub(crate) fn user_text(user: GuestUser) -> OsString {
    format!("{}:{}", user.uid, user.gid).into()
}

/// Reads a user. Root is none: a process that was told to give up its rights must not keep them.
pub(crate) fn user(text: &OsStr) -> Result<GuestUser, String> {
    let fault = || format!("{text:?} is no user: give UID:GID, neither of them 0");
    let (uid, gid) = text
        .to_str()
        .and_then(|text| text.split_once(':'))
        .ok_or_else(fault)?;
    match (uid.parse(), gid.parse()) {
        (Ok(uid @ 1..), Ok(gid @ 1..)) => Ok(GuestUser { uid, gid }),
        _ => Err(fault()),
    }
}

/// Joins the network namespace of that path. Only for a process without threads: each of them
/// has a namespace of its own.
pub(crate) fn join_network_namespace(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Takes a user, for good, with no group but its own. Only for a process without threads: each of
/// them has a user of its own.
pub(crate) fn become_user(user: GuestUser) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    // The change has given what /proc knows of this process to root; without its page map an
    // engine is slow to clear the memory of an instance. Core files stay off by their limit.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let user = GuestUser { uid: 7, gid: 8 };
        for (ephemeral, namespace, user) in [
            (None, None, None),
            (Some(PATIENCE), None, Some(user)),
            (None, Some("/run/netns/pods"), None),
            (Some(PATIENCE), Some("--user"), Some(user)),
        ] {
            let launch = Launch {
                folder: "wasm/hosts/default".into(),
                ephemeral,
                network_namespace: namespace.map(PathBuf::from),
                user,
            };
            assert_eq!(Launch::parse(&launch.arguments()), Ok(launch));
        }
    }

    #[test]
    fn what_is_no_launch_is_refused() {
        for arguments in [
            &[][..],
            &["folder", "--unknown"],
            &["folder", "--ephemeral"],
            &["folder", "--ephemeral=soon"],
            &["folder", "--network-namespace"],
            &["folder", "--user", "0:8"],
            &["folder", "--user", "7:0"],
            &["folder", "--user", "7"],
            &["folder", "--user", "-1:8"],
        ] {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            assert!(Launch::parse(&arguments).is_err(), "{arguments:?}");
        }
    }
}
