//! Other runtimes, given what our own container is made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use coracle_runtime::ContainerId;
use serde_json::Value;

use crate::node::{self, Node};

/// A runtime with the command line of runc.
pub(crate) struct Peer {
    pub(crate) program: &'static str,
    next: AtomicU32,
}

/// The configuration of one of our containers.
pub(crate) fn spec_of(state: &Path, container: &ContainerId) -> Value {
    let mut folders = vec![state.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.ends_with(Path::new(&container.0).join("config.json")) {
                return serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            }
            // Of mounted images there is nothing to be found.
            if entry.file_type().unwrap().is_dir() && entry.file_name() != "rootfs" {
                folders.push(path);
            }
        }
    }
    panic!("the container {container:?} has no configuration");
}

impl Peer {
    pub(crate) fn new(program: &'static str) -> Option<Self> {
        let found = Command::new(program).arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            eprintln!("{program} is not measured: it is not installed");
            return None;
        }
        let next = AtomicU32::new(0);
        Some(Self { program, next })
    }

    /// Creates and starts a container like ours on a root of the same files.
    pub(crate) fn start(&self, node: &Node, spec: &Value) -> Duration {
        let bundle = node.folder.path().join(self.program);
        self.write(&bundle, spec);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("bench-{}-{number}", std::process::id());
        let began = Instant::now();
        self.run(&["create", "--bundle", bundle.to_str().unwrap(), &id]);
        self.run(&["start", &id]);
        let took = began.elapsed();
        self.run(&["delete", "--force", &id]);
        took
    }

    fn write(&self, bundle: &Path, spec: &Value) {
        let root = bundle.join("rootfs");
        if !root.exists() {
            fs::create_dir_all(&root).unwrap();
            tar::Archive::new(&node::archive(&[])[..])
                .unpack(&root)
                .unwrap();
        }
        let mut spec = spec.clone();
        spec["root"]["path"] = root.to_str().unwrap().into();
        // Namespaces of a sandbox are ours alone.
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.iter_mut().for_each(|namespace| {
            namespace.as_object_mut().unwrap().remove("path");
        });
        // Nothing of it is newer, and releases of peers refuse versions that came after them.
        spec["ociVersion"] = "1.0.2".into();
        spec["linux"]["cgroupsPath"] = format!("/coracle-bench-{}", std::process::id()).into();
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    }

    fn run(&self, arguments: &[&str]) {
        let state: PathBuf = format!("/run/coracle-bench-{}", std::process::id()).into();
        let ran = Command::new(self.program)
            .arg("--root")
            .arg(&state)
            .args(arguments)
            // What stays of it would keep a pipe open.
            .stdout(Stdio::null())
            .stdin(Stdio::null())
            .status();
        assert!(ran.unwrap().success(), "{} {arguments:?}", self.program);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(format!("/run/coracle-bench-{}", std::process::id()));
    }
}
