//! A container runtime of the machine in place of our own: Debian's containerd, started by the test with
//! folders of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::cluster::busybox::{cluster_with_busybox, image_layout};
use crate::cluster::{CORACLE, Cluster, Kubectl, eventually, http_get, succeeded};

#[path = "../../runtimes/cri/tests/containerd/daemon.rs"]
#[allow(dead_code, unreachable_pub, reason = "the other user takes more of it")]
mod daemon;

use daemon::Daemon;

const PAUSE: &str = "docker.io/test/pause";

/// containerd's own client, for what it runs for Kubernetes.
fn ctr(folder: &Path, arguments: &[&str]) -> String {
    let socket = folder.join("containerd.sock");
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket);
    command.args(["--namespace", "k8s.io"]).args(arguments);
    succeeded(&command.output().unwrap())
}

/// A daemon in a folder; none where none can be run.
fn containerd(folder: &Path) -> Option<Daemon> {
    if let Some(reason) = daemon::lacks() {
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("SKIPPED: {reason}");
        return None;
    }
    Some(Daemon::start(folder, &format!("{PAUSE}:v1"), false))
}

/// Gives the daemon the image of which Pods' first processes are.
fn import_pause(daemon: &Path, cluster: &Cluster) {
    let root = cluster.folder().join("busybox");
    let folder = cluster.folder().join("pause");
    std::fs::create_dir_all(&folder).unwrap();
    let config = json!({"Entrypoint": ["/bin/sleep", "1000000"]});
    let layout = image_layout(&folder, &root, &config);
    let archive: PathBuf = cluster.folder().join("pause.tar");
    let packed = Command::new("tar")
        .arg("-C")
        .arg(&layout)
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .output()
        .unwrap();
    succeeded(&packed);
    let archive = archive.to_str().unwrap();
    ctr(daemon, &["images", "import", "--base-name", PAUSE, archive]);
}

fn container_id(kubectl: &Kubectl) -> String {
    kubectl.value(
        &["pod", "busybox"],
        ".status.containerStatuses[0].containerID",
    )
}

#[test]
fn containerd_runs_the_containers_of_a_node() {
    let folder = tempfile::Builder::new()
        .prefix(&daemon::folders())
        .tempdir()
        .unwrap();
    let Some(daemon) = containerd(folder.path()) else {
        return;
    };
    let endpoint = daemon.endpoint();
    let options = ["--container-runtime-endpoint", &*endpoint];
    let Some((cluster, kubectl)) = cluster_with_busybox(&options) else {
        return;
    };
    import_pause(folder.path(), &cluster);
    let versions = kubectl.ok(&[
        "get",
        "nodes",
        "-o",
        "jsonpath={.items[0].status.nodeInfo.containerRuntimeVersion}",
    ]);
    assert!(versions.starts_with("containerd://"), "{versions}");
    kubectl.apply(
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: 'a page'}
---
apiVersion: v1
kind: Pod
metadata: {name: busybox, labels: {app: busybox}}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: main
    image: busybox:v1
    command: [sh, -c, 'echo hello $FROM; exec httpd -f -p 8080 -h /page']
    ports: [{containerPort: 8080}]
    readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
    livenessProbe: {exec: {command: [test, -e, /page/index.html]}, periodSeconds: 1}
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    volumeMounts:
    - {name: page, mountPath: /page}
    - {name: page, mountPath: /one, subPath: index.html}
  volumes:
  - {name: page, configMap: {name: page}}
---
apiVersion: v1
kind: Service
metadata: {name: busybox}
spec:
  selector: {app: busybox}
  ports: [{port: 80, targetPort: 8080}]
",
    );
    let ready = ".status.containerStatuses[0].ready";
    kubectl.wait_value(&["pod", "busybox"], ready, "true");
    assert_eq!(kubectl.ok(&["logs", "busybox"]), "hello image\n");
    let exec = ["exec", "busybox", "--", "cat", "/one"];
    assert_eq!(kubectl.ok(&exec), "a page");
    let piped = ["exec", "-i", "busybox", "--", "cat"];
    let piped = kubectl.feed(&piped, b"piped");
    assert_eq!(succeeded(&piped), "piped");
    let failed = kubectl.run(&["exec", "busybox", "--", "sh", "-c", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7));
    // The Pod is in the node's network: under its address, and by names and Services.
    let ip = kubectl.value(&["pod", "busybox"], ".status.podIP");
    let page = eventually("the page", || http_get(&format!("{ip}:8080"), "/"));
    assert_eq!(page, (200, "a page".to_owned()));
    // A static busybox has its resolver in `nslookup` alone.
    let service = kubectl.value(&["service", "busybox"], ".spec.clusterIP");
    let name = "busybox.default.svc.cluster.local";
    let found = kubectl.ok(&["exec", "busybox", "--", "nslookup", name]);
    assert!(found.contains(&service), "{found}");
    let url = format!("http://{service}");
    let fetch = ["exec", "busybox", "--", "wget", "-qO-", &*url];
    eventually("the Service by its address", || {
        let fetched = kubectl.run(&fetch);
        let said = String::from_utf8_lossy(&fetched.stdout).into_owned();
        (said == "a page").then_some(()).ok_or(said)
    });

    // The next agent finds what the first one has started.
    let before = container_id(&kubectl);
    let cluster = Cluster::up_in(cluster.kill(), &options);
    let kubectl = cluster.kubectl();
    kubectl.wait_value(&["pod", "busybox"], ready, "true");
    assert_eq!(container_id(&kubectl), before);
    let restarts = ".status.containerStatuses[0].restartCount";
    assert_eq!(kubectl.value(&["pod", "busybox"], restarts), "0");
    assert_eq!(kubectl.ok(&exec), "a page");
    kubectl.ok(&["delete", "pod", "busybox", "--timeout=60s"]);
    let left = ctr(folder.path(), &["containers", "list", "-q"]);
    assert_eq!(left.trim(), "");

    // What a killed cluster has left is taken away by a reset, which knows the runtime.
    let spare = ["run", "spare", "--image=busybox:v1", "--", "sleep", "1000"];
    kubectl.ok(&spare);
    kubectl.wait_value(&["pod", "spare"], ".status.phase", "Running");
    let left = cluster.kill();
    let data = left.path().join("data");
    let mut reset = Command::new(CORACLE);
    let said = succeeded(
        &reset
            .arg("reset")
            .arg("--data-dir")
            .arg(&data)
            .output()
            .unwrap(),
    );
    assert!(said.contains("1 Pods ended"), "{said}");
    let containers = ctr(folder.path(), &["containers", "list", "-q"]);
    assert_eq!(containers.trim(), "");
    let networks = std::fs::read_dir(folder.path().join("networks")).unwrap();
    assert_eq!(networks.count(), 0, "the runtime keeps no network of ours");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let data = data.to_str().unwrap();
    assert!(!mounts.contains(data), "{mounts}");
    drop(daemon);
}

#[test]
fn a_runtime_that_is_not_there_is_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let socket = format!("unix://{}", folder.path().join("none.sock").display());
    let started = Command::new(CORACLE)
        .args(["up", "--listen", "127.0.0.1:0", "--registry-listen"])
        .args(["127.0.0.1:0", "--kubelet-port", "0", "--data-dir"])
        .arg(&data)
        .args(["--container-runtime-endpoint", &socket])
        .output()
        .unwrap();
    assert!(!started.status.success());
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    let expected = match crate::cluster::is_root() {
        true => "no container runtime answers at unix://",
        false => "takes root",
    };
    assert!(said.contains(expected), "{said}");
}
