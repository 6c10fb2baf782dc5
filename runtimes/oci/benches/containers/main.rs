//! Figures of containers, for people and for the project's table: `cargo bench -p coracle-oci`.
//!
//! Real shims, no cluster; it takes root and busybox. Every figure is a line of JSON on standard
//! output, `{"figure": …, "value": …, "unit": …}`. Where `crun` and `runc` are installed they start
//! what our own container is made of, in turns with it. Nothing fails for being slow.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement that fails, fails loudly"
)]

#[path = "../../tests/containers/node.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use the rest")]
mod node;
mod peer;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coracle_runtime::RuntimeService;
use coracle_runtime::identity::Identity;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use node::Node;
use peer::Peer;

/// Containers that are started, and processes that are executed in one.
const TURNS: usize = 40;

fn figure(name: &str, value: f64, unit: &str) {
    let line = serde_json::json!({ "figure": name, "value": value, "unit": unit });
    println!("{line}");
}

fn median_millis(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Takes the unified hierarchy out of sight where the older ones are beside it: `crun` refuses
/// machines that have both.
fn without_unified() {
    let unified = Path::new("/sys/fs/cgroup/unified");
    if !unified.exists() {
        return;
    }
    // SAFETY: it touches no memory, and the process has one thread.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0);
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).unwrap();
    unmount(unified, UnmountFlags::DETACH).unwrap();
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = coracle_oci::subcommand(&args) {
        return code;
    }
    if let Some(reason) = node::lacks() {
        eprintln!("containers are not measured: {reason}");
        return ExitCode::SUCCESS;
    }
    // Before there are threads, which would keep their own.
    without_unified();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let node = Node::new().await;
        starts(&node).await;
        further(&node).await;
    });
    ExitCode::SUCCESS
}

/// From the call that creates a container to the one that has started it, in a sandbox that is
/// there.
async fn starts(node: &Node) {
    node.runtime.ensure_image(&node.busybox).await.unwrap();
    let peers: Vec<Peer> = ["crun", "runc"].into_iter().filter_map(Peer::new).collect();
    let mut ours = Vec::new();
    let mut theirs = vec![Vec::new(); peers.len()];
    for _ in 0..TURNS {
        let (sandbox, _) = node.sandbox().await;
        let began = Instant::now();
        let created = node
            .runtime
            .create_container(&sandbox, node.container_config("exec sleep 1000"));
        let container = created.await.unwrap();
        node.runtime.start_container(&container).await.unwrap();
        ours.push(began.elapsed());
        let bundle = peer::spec_of(&node.folder.path().join("oci"), &container);
        for (peer, times) in peers.iter().zip(&mut theirs) {
            times.push(peer.start(node, &bundle));
        }
        node.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }
    figure(
        "a container, created and started",
        median_millis(ours),
        "ms",
    );
    for (peer, times) in peers.iter().zip(theirs) {
        figure(
            &format!("the same by {}", peer.program),
            median_millis(times),
            "ms",
        );
    }
}

/// A further process, and the memory of what holds a container.
async fn further(node: &Node) {
    let pod = node.start("exec sleep 1000", |_| ()).await;
    let mut times = Vec::new();
    for _ in 0..TURNS {
        let began = Instant::now();
        let (code, output) = node.exec(&pod, &["true"]).await;
        times.push(began.elapsed());
        assert_eq!((code, &*output), (0, ""));
    }
    figure("exec of true", median_millis(times), "ms");
    let shim = Identity::living(&node.shim_folder(&pod.sandbox)).unwrap();
    let (shim, _) = shim.expect("the shim lives");
    figure(
        "private memory of a shim",
        private_kibibytes(shim) / 1024.0,
        "MiB",
    );
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

fn private_kibibytes(pid: i32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let parts = rollup.lines().filter(|line| line.starts_with("Private_"));
    let sizes = parts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    sizes.sum()
}
