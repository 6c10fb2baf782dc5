//! Where guest processes of this node live: their network namespace, their user, and the folder
//! in which they begin.
//!
//! A process with a user of its own may enter the node's folder and little below it, and none of
//! the folders above. It begins in the node's folder and is told relative paths, so that nothing
//! above has to be opened for it, wherever the data directory lies.
//!
//! A process that was started elsewhere or as somebody else, by an agent of another configuration,
//! is not taken over: its Pod would have addresses that lead nowhere, and folders that it cannot
//! open.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use coracle_runtime::GuestUser;

use super::WasmConfig;
use super::home::Home;
use crate::launch::{Launch, PATIENCE, SCRATCH};
use crate::protocol::GuestSpec;
use coracle_runtime::disk::{self, Access};

/// What of the agent's environment is for guests' processes too: whose certificates they trust.
const TRUST: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// How guest processes are started.
pub(super) struct Placement {
    exe: PathBuf,
    ephemeral: bool,
    network_namespace: Option<PathBuf>,
    network: Network,
    folder: PathBuf,
}

/// What tells one network namespace from another: device and inode of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network(u64, u64);

impl Network {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|error| {
            let path = path.display();
            io::Error::new(error.kind(), format!("network namespace {path}: {error}"))
        })?;
        Ok(Self(metadata.dev(), metadata.ino()))
    }
}

impl Placement {
    pub(super) fn new(config: &WasmConfig) -> io::Result<Self> {
        let own = Path::new("/proc/self/ns/net");
        let of = config.network_namespace.as_deref().unwrap_or(own);
        let node = config.state_dir.parent();
        let root = Path::new("/");
        let folder = match &config.guest_users {
            Some(_) => node.unwrap_or(root),
            None => root,
        };
        Ok(Self {
            exe: config.exe.clone(),
            ephemeral: config.ephemeral,
            network: Network::of(of)?,
            network_namespace: config.network_namespace.clone(),
            folder: folder.to_owned(),
        })
    }

    /// Makes the folder of a process, anew.
    pub(super) fn make_folder(&self, folder: &Path, user: Option<GuestUser>) -> io::Result<()> {
        disk::remove_dir(folder)?;
        let Some(user) = user else {
            return disk::private_dir(folder);
        };
        disk::folder(folder, Access::Group(user.gid))?;
        disk::folder(&folder.join(SCRATCH), Access::User(user))
    }

    /// The command that starts a process in its folder.
    pub(super) fn command(
        &self,
        subcommand: &str,
        folder: &Path,
        user: Option<GuestUser>,
        home: &Home,
        patience: Option<Duration>,
    ) -> Command {
        let launch = Launch {
            folder: self.path(folder),
            ephemeral: patience.or(self.ephemeral.then_some(PATIENCE)),
            network_namespace: match home.network() {
                Some(own) => Some(own.to_owned()),
                None => self.network_namespace.clone(),
            },
            user,
        };
        let mut command = Command::new(&self.exe);
        command
            .arg(subcommand)
            .args(launch.arguments())
            .env_clear()
            .envs(
                TRUST
                    .iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .current_dir(&self.folder);
        command
    }

    /// A path as a guest process finds it.
    fn path(&self, path: &Path) -> PathBuf {
        if self.folder == Path::new("/") {
            return path.to_owned();
        }
        match path.strip_prefix(&self.folder) {
            Ok(below) if below.as_os_str().is_empty() => PathBuf::from("."),
            Ok(below) => below.to_owned(),
            Err(_) => path.to_owned(),
        }
    }

    /// A specification with paths as the guest's process finds them.
    pub(super) fn localize(&self, mut spec: GuestSpec) -> GuestSpec {
        for path in [
            &mut spec.artifact,
            &mut spec.network_snapshot,
            &mut spec.log_file,
            &mut spec.exit_file,
        ] {
            *path = self.path(path);
        }
        for mount in &mut spec.mounts {
            mount.host_path = self.path(&mount.host_path);
        }
        spec.termination_message = spec.termination_message.map(|path| self.path(&path));
        spec
    }

    /// Why a process cannot be taken over that lives; none if it can.
    pub(super) fn objection(
        &self,
        pid: i32,
        user: Option<GuestUser>,
        home: &Home,
    ) -> Option<String> {
        let wanted = match home.network() {
            Some(own) => Network::of(own),
            None => Ok(self.network),
        };
        let network = Network::of(Path::new(&format!("/proc/{pid}/ns/net")));
        let uid = effective_user(pid);
        match (wanted, network, uid) {
            (Ok(wanted), Ok(network), Ok(uid)) => {
                let own = rustix::process::geteuid().as_raw();
                objection(wanted, network, user.map_or(own, |user| user.uid), uid)
            }
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                Some(format!("where its process lives cannot be told: {error}"))
            }
        }
    }
}

fn objection(wanted: Network, network: Network, user: u32, uid: u32) -> Option<String> {
    if network != wanted {
        return Some("its process lived in another network namespace than its Pod now has".into());
    }
    (uid != user).then(|| {
        format!("its process ran as user {uid}, and guests of its namespace now run as {user}")
    })
}

/// The effective user of a process.
fn effective_user(pid: i32) -> io::Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = ids.and_then(|ids| ids.split_whitespace().nth(1));
    effective
        .and_then(|id| id.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc status"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lives_as_configured_is_taken_over() {
        let (here, there) = (Network(1, 2), Network(1, 3));
        assert_eq!(objection(here, here, 5, 5), None);
        let elsewhere = objection(here, there, 5, 5).unwrap();
        assert!(elsewhere.contains("network namespace"), "{elsewhere}");
        let other = objection(here, here, 5, 0).unwrap();
        assert!(other.contains("ran as user 0"), "{other}");
    }

    #[test]
    fn this_process_lives_where_it_does() {
        let pid = std::process::id() as i32;
        let own = Network::of(Path::new("/proc/self/ns/net")).unwrap();
        let of = Network::of(Path::new(&format!("/proc/{pid}/ns/net"))).unwrap();
        assert_eq!(own, of);
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(effective_user(pid).unwrap(), uid);
    }

    #[test]
    fn paths_are_relative_to_the_folder_of_the_node() {
        let placement = |folder: &str| Placement {
            exe: "coracle".into(),
            ephemeral: false,
            network_namespace: None,
            network: Network(0, 0),
            folder: folder.into(),
        };
        for (folder, path, expected) in [
            ("/data/agent", "/data/agent/logs/0.log", "logs/0.log"),
            ("/data/agent", "/data/agent", "."),
            ("/data/agent", "/elsewhere", "/elsewhere"),
            ("/", "/data/agent/logs", "/data/agent/logs"),
        ] {
            let got = placement(folder).path(Path::new(path));
            assert_eq!(got, Path::new(expected), "{folder} {path}");
        }
    }
}
