//! containerd, started for a test with everything of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use coracle_runtime::cgroup::Hierarchies;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// A program without libraries that is many.
pub(crate) const BUSYBOX: &str = "/bin/busybox";
/// Where distributions have the plugins of the CNI.
const PLUGINS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// The plugin that every runtime has for a namespace's loopback interface.
fn loopback() -> Option<PathBuf> {
    let found = PLUGINS.iter().map(|of| Path::new(of).join("loopback"));
    found.into_iter().find(|path| path.exists())
}

/// Why containerd cannot be run here; none if it can.
pub(crate) fn lacks() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it takes root".into());
    }
    for program in ["containerd", "ctr", "runc"] {
        if Command::new(program).arg("--version").output().is_err() {
            return Some(format!("no {program}: install containerd"));
        }
    }
    if loopback().is_none() {
        return Some("no plugin loopback: install containernetworking-plugins".into());
    }
    if !Path::new(BUSYBOX).exists() {
        return Some(format!("no {BUSYBOX}: install busybox-static"));
    }
    match Hierarchies::detect() {
        Ok(found) if found.limit_memory() => None,
        _ => Some("no control groups that limit memory are mounted".into()),
    }
}

/// How the folders of this process's daemons are called.
pub(crate) fn folders() -> String {
    format!("containerd-{}-", std::process::id())
}

/// What a run of tests must leave nothing of.
#[derive(Debug)]
pub(crate) struct Machine {
    mounts: BTreeSet<String>,
    namespaces: BTreeSet<PathBuf>,
    cgroups: BTreeSet<PathBuf>,
}

impl Machine {
    pub(crate) fn now() -> Self {
        let list = |path: &Path| -> BTreeSet<PathBuf> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let folders = folders();
        let of_pods = |line: &&str| line.contains(&folders);
        // As the Pods of this process are known by.
        let mark = format!("{:08x}", std::process::id());
        let networks = format!("test-{}-", std::process::id());
        let mut hierarchies = list(Path::new("/sys/fs/cgroup"));
        hierarchies.insert("/sys/fs/cgroup".into());
        let pods = hierarchies.iter().flat_map(|root| {
            let own = list(&root.join("coracle"));
            own.into_iter().chain(list(&root.join("test")))
        });
        let own = |path: &PathBuf| path.to_string_lossy().contains(&mark);
        Self {
            mounts: mounts.lines().filter(of_pods).map(str::to_owned).collect(),
            namespaces: list(Path::new("/run/netns"))
                .into_iter()
                .filter(|path| path.to_string_lossy().contains(&networks))
                .collect(),
            cgroups: pods.filter(own).collect(),
        }
    }

    /// What has come since.
    pub(crate) fn added(&self) -> Vec<String> {
        fn new<T: Ord + std::fmt::Debug>(after: &BTreeSet<T>, before: &BTreeSet<T>) -> Vec<String> {
            let new = after.difference(before);
            new.map(|it| format!("{it:?}")).collect()
        }
        let now = Self::now();
        [
            new(&now.mounts, &self.mounts),
            new(&now.namespaces, &self.namespaces),
            new(&now.cgroups, &self.cgroups),
        ]
        .concat()
    }
}

/// A running containerd.
pub(crate) struct Daemon {
    folder: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts one in a folder; Pods' first processes are of an image of that name, and their networks
    /// lie in the folder too, or where it has them by itself.
    pub(crate) fn start(folder: &Path, pause: &str, networks_in_folder: bool) -> Self {
        let plugins = folder.join("plugins");
        fs::create_dir_all(&plugins).unwrap();
        let link = plugins.join("loopback");
        if !link.exists() {
            std::os::unix::fs::symlink(loopback().unwrap(), link).unwrap();
        }
        let at = folder.display();
        let config = format!(
            r#"version = 2
root = "{at}/root"
state = "{at}/state"
disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{at}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{at}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
netns_mounts_under_state_dir = {networks_in_folder}
# Root need not have CAP_SYS_RESOURCE here.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{at}/plugins"
conf_dir = "{at}/networks"
"#
        );
        fs::write(folder.join("config.toml"), config).unwrap();
        let mut log = fs::File::create(folder.join("containerd.log")).unwrap();
        let mut child = Command::new("containerd")
            .arg("--config")
            .arg(folder.join("config.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The socket is there before its services are.
        let (booted, boots) = std::sync::mpsc::channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = writeln!(log, "{line}");
                if line.contains("successfully booted") {
                    let _ = booted.send(());
                }
            }
        });
        let daemon = Self {
            folder: folder.to_owned(),
            child,
        };
        assert!(boots.recv_timeout(DEADLINE).is_ok(), "{}", daemon.log());
        daemon
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("containerd.log")).unwrap_or_default()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    /// Stops it; what it runs goes on.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.end();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
            clear(&self.folder);
        }
    }
}

/// Ends what a daemon of a folder has left after a failure.
fn clear(folder: &Path) {
    let mark = folder.to_string_lossy().into_owned();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        if !command.starts_with("/usr/bin/containerd-shim") || !command.contains(&mark) {
            continue;
        }
        // Its containers are its children.
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            if let Some(child) = child.parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(child, Signal::KILL);
            }
        }
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let mounts = coracle_runtime::mountinfo::of_this_process().unwrap_or_default();
    for mount in mounts.iter().rev().filter(|at| at.path.starts_with(folder)) {
        let flags = rustix::mount::UnmountFlags::DETACH;
        let _ = rustix::mount::unmount(&mount.path, flags);
    }
}
