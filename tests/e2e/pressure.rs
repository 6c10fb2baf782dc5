//! A node keeps room for itself: Pods that take too much of it end, and images go that nothing uses.

use std::path::Path;

use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{Cluster, eventually, sample};

/// A Pod that writes so many bytes to a file and stays.
fn writer(name: &str, file: &str, bytes: u32, volumes: &str) -> String {
    let container = |name: &str, limit: &str, script: &str| {
        format!(
            r#"{{"name": "{name}", "image": "busybox:v1", "command": ["sh", "-c", "{script}"],
                 "resources": {{"limits": {{"ephemeral-storage": "{limit}"}}}},
                 "volumeMounts": [{{"name": "scratch", "mountPath": "/scratch"}}]}}"#
        )
    };
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}"}}, "spec": {{
            "terminationGracePeriodSeconds": 0, "volumes": [{volumes}],
            "containers": [{}, {}]}}}}"#,
        container(
            "writes",
            "10Mi",
            &format!("head -c {bytes} /dev/zero > {file}; sleep 1000")
        ),
        container("other", "1Gi", "sleep 1000"),
    )
}

#[test]
fn a_pod_over_a_limit_of_local_storage_is_evicted_while_others_run_on() {
    let Some((_cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    let unlimited = r#"{"name": "scratch", "emptyDir": {}}"#;
    let limited = r#"{"name": "scratch", "emptyDir": {"sizeLimit": "2Mi"}}"#;
    kubectl.apply(&writer("within", "/file", 5 << 20, unlimited));
    kubectl.apply(&writer("over", "/file", 20 << 20, unlimited));
    kubectl.apply(&writer("full", "/scratch/file", 4 << 20, limited));
    for (name, message) in [
        (
            "over",
            "Container writes exceeded its local ephemeral storage limit \"10Mi\". ",
        ),
        (
            "full",
            "Usage of EmptyDir volume \"scratch\" exceeds the limit \"2Mi\". ",
        ),
    ] {
        kubectl.wait_value(&["pod", name], ".status.reason", "Evicted");
        assert_eq!(kubectl.value(&["pod", name], ".status.phase"), "Failed");
        assert_eq!(kubectl.value(&["pod", name], ".status.message"), message);
        let events = || {
            let of = format!("involvedObject.name={name},reason=Evicted,type=Warning");
            let arguments = ["get", "events", "--field-selector", &of];
            kubectl.ok(&[&arguments[..], &["-o", "jsonpath={.items[*].message}"]].concat())
        };
        eventually("the event", || match events() {
            found if found == message => Ok(()),
            other => Err(other),
        });
    }
    kubectl.wait_value(&["pod", "within"], ".status.phase", "Running");
    let restarts = ".status.containerStatuses[*].restartCount";
    assert_eq!(kubectl.value(&["pod", "within"], restarts), "0 0");
}

/// Names in a folder of the node.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.retain(|name| name != "tmp");
    names.sort();
    names
}

/// Names two levels down.
fn below(folder: &Path) -> Vec<String> {
    let all = names(folder).into_iter();
    all.flat_map(|name| names(&folder.join(name))).collect()
}

#[test]
fn an_image_that_nothing_uses_is_collected_and_one_in_use_stays() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    let batch = sample("batch-hello");
    let batch = batch.to_str().unwrap();
    cluster.coracle(&["push", batch]);
    kubectl.ok(&["apply", "-f", batch]);
    kubectl.wait_value(&["pod", "batch-hello"], ".status.phase", "Succeeded");
    kubectl.ok(&[
        "run",
        "stays",
        "--image=busybox:v1",
        r#"--overrides={"spec": {"terminationGracePeriodSeconds": 1}}"#,
        "--command",
        "--",
        "sleep",
        "1000",
    ]);
    kubectl.wait_value(&["pod", "stays"], ".status.phase", "Running");
    kubectl.ok(&["delete", "-f", batch, "--wait"]);
    let node = cluster.data().join("agent");
    let (compiled, layers) = (
        below(&node.join("compiled")),
        names(&node.join("oci/snapshots")),
    );
    let images = names(&node.join("images/images"));
    assert_eq!(
        (images.len(), compiled.len()),
        (2, 1),
        "{images:?} {compiled:?}"
    );

    // The disk of whoever runs this is used by more than a hundredth.
    let arguments = [
        "--kubelet-arg=image-gc-high-threshold=1",
        "--kubelet-arg=image-gc-low-threshold=0",
        "--kubelet-arg=minimum-image-ttl-duration=0s",
    ];
    let cluster = Cluster::up_in(cluster.kill(), &arguments);
    let kubectl = cluster.kubectl();
    eventually("one image is left", || {
        match names(&node_folder(&cluster).join("images/images")) {
            left if left.len() == 1 => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
    let node = node_folder(&cluster);
    eventually("no compiled guest is left", || {
        match below(&node.join("compiled")) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
    assert_eq!(names(&node.join("oci/snapshots")), layers);
    let listed = || {
        kubectl.ok(&[
            "get",
            "nodes",
            "-o",
            "jsonpath={.items[*].status.images[*].names}",
        ])
    };
    eventually("the node says so", || match listed() {
        text if text.contains("busybox") && !text.contains("batch-hello") => Ok(()),
        text => Err(text),
    });
    kubectl.wait_value(&["pod", "stays"], ".status.phase", "Running");
    let events = || {
        let of = "reason=FreeDiskSpaceFailed,type=Warning";
        kubectl.ok(&[
            "get",
            "events",
            "--field-selector",
            of,
            "-o",
            "jsonpath={.items[*].message}",
        ])
    };
    eventually("an event says that this is too little", || match events() {
        text if text.contains("bytes eligible to free") => Ok(()),
        text => Err(text),
    });
}

fn node_folder(cluster: &Cluster) -> std::path::PathBuf {
    cluster.data().join("agent")
}

#[test]
fn a_node_that_is_short_of_room_says_so_and_takes_no_more_pods() {
    // There never is as much room as that.
    let short = "--kubelet-arg=eviction-hard=nodefs.available<99.999%";
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    kubectl.ok(&[
        "run",
        "lives",
        "--image=busybox:v1",
        r#"--overrides={"spec": {"terminationGracePeriodSeconds": 1}}"#,
        "--command",
        "--",
        "sleep",
        "1000",
    ]);
    kubectl.wait_value(&["pod", "lives"], ".status.phase", "Running");
    let cluster = Cluster::up_in(cluster.kill(), &[short]);
    let kubectl = cluster.kubectl();
    kubectl.wait_value(&["pod", "lives"], ".status.reason", "Evicted");
    let message = kubectl.value(&["pod", "lives"], ".status.message");
    let begin = "The node was low on resource: ephemeral-storage. Threshold quantity: ";
    assert!(message.starts_with(begin), "{message}");
    let of = ".status.conditions[?(@.type==\"DisruptionTarget\")].reason";
    assert_eq!(kubectl.value(&["pod", "lives"], of), "TerminationByKubelet");
    let node = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let of = ".status.conditions[?(@.type==\"DiskPressure\")].status";
    assert_eq!(kubectl.value(&["node", &node], of), "True");
    let key = ".spec.taints[?(@.key==\"node.kubernetes.io/disk-pressure\")].effect";
    kubectl.wait_value(&["node", &node], key, "NoSchedule");
    // Bound without the scheduler, it is the node that refuses it.
    let late = format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "late"}},
            "spec": {{"nodeName": "{node}", "containers": [{{"name": "c", "image": "busybox:v1"}}]}}}}"#
    );
    kubectl.apply(&late);
    kubectl.wait_value(&["pod", "late"], ".status.reason", "Evicted");
    assert_eq!(
        kubectl.value(&["pod", "late"], ".status.message"),
        "Pod was rejected: The node had condition: [DiskPressure]. "
    );
}

#[test]
fn what_is_reserved_is_kept_from_pods() {
    let arguments = [
        "--kubelet-arg=kube-reserved=cpu=100m,memory=256Mi",
        "--kubelet-arg=system-reserved=memory=256Mi",
        "--kubelet-arg=eviction-hard=memory.available<64Mi",
    ];
    let Some((_cluster, kubectl)) = cluster_with_busybox(&arguments) else {
        return;
    };
    let of = |list: &str, name: &str| -> u64 {
        let path = format!("jsonpath={{.items[0].status.{list}.{name}}}");
        let text = kubectl.ok(&["get", "nodes", "-o", &path]);
        let text = text.trim();
        match text.strip_suffix("Ki").or(text.strip_suffix('m')) {
            Some(number) => number.parse().unwrap(),
            None => panic!("{text}"),
        }
    };
    let capacity = of("capacity", "memory");
    assert_eq!(
        capacity - of("allocatable", "memory"),
        (256 + 256 + 64) << 10
    );
    assert_eq!(of("allocatable", "cpu") % 1000, 900);
    kubectl.ok(&[
        "run",
        "lives",
        "--image=busybox:v1",
        r#"--overrides={"spec": {"terminationGracePeriodSeconds": 1}}"#,
        "--command",
        "--",
        "sleep",
        "1000",
    ]);
    kubectl.wait_value(&["pod", "lives"], ".status.phase", "Running");
    // The group above all Pods is bounded by what is reserved, and not by the threshold.
    let limits = [
        "/sys/fs/cgroup/memory/kubepods/memory.limit_in_bytes",
        "/sys/fs/cgroup/kubepods/memory.max",
    ];
    let limit = limits
        .iter()
        .find_map(|of| std::fs::read_to_string(of).ok());
    let limit: u64 = limit.unwrap().trim().parse().unwrap();
    assert_eq!(limit >> 10, capacity - (512 << 10));
}
