//! Requests per second to a guest, beside wasmtime's own handler, and what guests are to each
//! other.

use std::path::Path;

use crate::Row;
use crate::cluster::{Cluster, eventually, http_get, is_root, sample};
use crate::figures::{figures, print};
use crate::peer::{Peer, rates};

const CONNECTIONS: u32 = 64;

pub(crate) fn rows() {
    requests();
    guests();
}

/// One Pod of a real cluster, at its own address and through its NodePort.
fn requests() {
    let folder = sample("hello-http");
    let cluster = Cluster::up(&["--apply", folder.to_str().unwrap()]);
    let kubectl = cluster.kubectl();
    eventually("the Deployment", || {
        let scaled = kubectl.run(&["scale", "deployment", "hello-http", "--replicas=1"]);
        scaled
            .status
            .success()
            .then_some(())
            .ok_or_else(|| String::from_utf8_lossy(&scaled.stderr).into_owned())
    });
    kubectl.wait_value(&["pods"], ".items[*].status.phase", "Running");
    let node_port = format!("127.0.0.1:{}", kubectl.node_port("hello-http"));
    eventually("an answer", || http_get(&node_port, "/"));
    let pod = kubectl.value(&["pods"], ".items[0].status.podIP");
    let pod = format!("{pod}:8080");

    let peer = Peer::start(Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut addresses = vec![node_port.as_str()];
    // Only with a namespace does the machine reach Pods' addresses.
    addresses.extend(is_root().then_some(pod.as_str()));
    addresses.extend(peer.as_ref().map(|peer| peer.address.as_str()));
    let Some(measured) = rates(&addresses, CONNECTIONS) else {
        let what = "HTTP requests/s to one hello-http Pod";
        Row::new(what, "wrk not installed", "").print();
        return;
    };
    let theirs = peer.as_ref().and_then(|_| measured.last().copied());
    let row = |what: &str, rate: f64, aim| {
        let what =
            format!("HTTP requests/s to one hello-http Pod {what}, {CONNECTIONS} connections");
        Row::new(what, format!("{rate:.0}/s"), aim).beside("wasmtime's own handler", rate, theirs)
    };
    if is_root() {
        row("at its own address", measured[1], "≥ 1.2").print();
    }
    row("through its NodePort", measured[0], "≥ 1.0").print();
}

/// What the runtime's own measurements say, which need no cluster.
fn guests() {
    let bench = ["bench", "--workspace", "--bench", "host", "--"];
    let aims = [
        ("a quiet Pod, p99 beside to p99 alone", "≤ 2"),
        ("10000 idle Pods, their host", "≤ 40 MiB"),
    ];
    print(
        &figures(&[&bench[..], &["neighbours", "idle"]].concat()),
        &aims,
    );
}
