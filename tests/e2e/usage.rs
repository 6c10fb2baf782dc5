//! What nodes and Pods use, as `kubectl top` shows it.

use crate::cluster::{Cluster, eventually, kubectl_available, sample};

/// A guest that spins within half a core.
const SPIN: &str = "apiVersion: v1
kind: Pod
metadata: {name: spin, labels: {busy: 'yes'}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: main, image: 'spin:v1', resources: {limits: {cpu: 500m}}}
";

/// The millicores that `kubectl top` prints in a column.
fn millicores(line: &str, column: usize) -> Option<u64> {
    let word = line.split_whitespace().nth(column)?;
    word.strip_suffix('m')?.parse().ok()
}

#[test]
fn kubectl_top_shows_what_is_used() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    cluster.coracle(&["push", sample("faults").to_str().unwrap()]);
    kubectl.apply(SPIN);
    kubectl.wait_value(&["pod", "spin"], ".status.phase", "Running");
    // On a busy machine it gets less than its limit, and its first moments may not be counted yet.
    eventually("the guest spins", || {
        let top = kubectl.run(&["top", "pod", "spin", "--no-headers"]);
        let printed = String::from_utf8_lossy(&top.stdout).into_owned();
        match millicores(&printed, 1) {
            Some(100..=650) => Ok(()),
            _ => Err(format!("{printed}{}", String::from_utf8_lossy(&top.stderr))),
        }
    });
    let containers = kubectl.ok(&[
        "top",
        "pods",
        "--containers",
        "--no-headers",
        "-l",
        "busy=yes",
    ]);
    assert!(
        containers.starts_with("spin") && containers.contains("main"),
        "{containers}"
    );
    let none = kubectl.run(&["top", "pods", "-l", "busy=no"]);
    assert!(none.stdout.is_empty(), "{none:?}");
    let nodes = kubectl.ok(&["top", "nodes", "--no-headers"]);
    assert!(
        millicores(&nodes, 1).is_some_and(|used| used >= 100),
        "{nodes}"
    );
    assert!(nodes.contains("Mi") && nodes.contains('%'), "{nodes}");
    let window = kubectl.value(&["nodes.metrics.k8s.io"], ".items[0].window");
    assert!(window.ends_with('s'), "{window}");
    let missing = kubectl.fails(&["top", "pod", "none"]);
    assert!(missing.contains("not found"), "{missing}");
    let table = kubectl.ok(&["get", "pods.metrics.k8s.io"]);
    assert!(
        table.contains("MEMORY") && table.contains("spin"),
        "{table}"
    );
}
