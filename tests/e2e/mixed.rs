//! The samples whose Pods have a guest and a container: one address, localhost, a volume and an order
//! of starting and stopping for both.

use crate::cluster::busybox::cluster_with_busybox_as;
use crate::cluster::{Cluster, Kubectl, eventually, http_get, sample};

/// The name of the busybox that the manifests ask for.
const TAG: &str = "1.37";

/// A cluster in which a sample's Deployment, of one Pod, is ready; and the Pod.
fn with(name: &str) -> Option<(Cluster, Kubectl, String)> {
    let (cluster, kubectl) = cluster_with_busybox_as(TAG, &[])?;
    let folder = sample(name);
    let folder = folder.to_str().unwrap();
    cluster.coracle(&["push", folder]);
    kubectl.ok(&["apply", "-f", folder]);
    let deployment = format!("deployment/{name}");
    kubectl.ok(&["rollout", "status", &deployment, "--timeout=60s"]);
    let pod = kubectl.value(&["pods"], ".items[0].metadata.name");
    Some((cluster, kubectl, pod))
}

/// What the node answers at a Service's port.
fn answer(kubectl: &Kubectl, service: &str, port: &str, path: &str) -> String {
    let port = format!(".spec.ports[?(@.name==\"{port}\")].nodePort");
    let port = kubectl.value(&["service", service], &port);
    eventually("an answer", || {
        match http_get(&format!("127.0.0.1:{port}"), path) {
            Ok((200, body)) => Ok(body),
            other => Err(format!("{other:?}")),
        }
    })
}

/// Follows what a container says while its Pod ends, to the end.
fn last_words(cluster: &Cluster, kubectl: &Kubectl, pod: &str, container: &str) -> String {
    let follow = ["logs", "--follow", pod, "--container", container];
    let said = kubectl.spawn(&follow, &cluster.folder().join("said"));
    eventually("its first words", || {
        let printed = said.printed();
        printed.contains("begins").then_some(()).ok_or(printed)
    });
    let name = pod.rsplitn(3, '-').last().unwrap();
    kubectl.ok(&["delete", "deployment", name]);
    eventually("its last words", || {
        let printed = said.printed();
        let ends = printed.lines().find(|line| line.starts_with("ends: "));
        ends.map(|_| printed.clone()).ok_or(printed)
    })
}

/// No container of the Pod has been started twice.
fn nothing_restarted(kubectl: &Kubectl, pod: &str) {
    for of in ["initContainerStatuses", "containerStatuses"] {
        let restarts = kubectl.value(&["pod", pod], &format!(".status.{of}[0].restartCount"));
        assert_eq!(restarts, "0", "{of}");
    }
}

#[test]
fn a_guest_has_a_container_as_its_sidecar() {
    let Some((cluster, kubectl, pod)) = with("guest-with-sidecar") else {
        return;
    };
    let name = "guest-with-sidecar";
    // What the container wrote is the guest's, what the guest writes the container's.
    assert_eq!(answer(&kubectl, name, "guest", "/"), "3\n");
    let status = answer(&kubectl, name, "sidecar", "/cgi-bin/status");
    assert_eq!(status, "the guest counts 3, its file holds ...\n");
    assert_eq!(answer(&kubectl, name, "sidecar", "/count"), "...");
    // Both are at the Pod's one address.
    let address = kubectl.value(&["pod", &pod], ".status.podIP");
    for (port, body) in [(8080, "3\n"), (8081, "...")] {
        let path = if port == 8080 { "/" } else { "/count" };
        let (_, found) = http_get(&format!("{address}:{port}"), path).unwrap();
        assert_eq!(found, body);
    }
    nothing_restarted(&kubectl, &pod);
    // It was there before the guest, and is after it.
    let said = last_words(&cluster, &kubectl, &pod, "sidecar");
    assert_eq!(said, "begins: no guest\nends: no guest\n");
}

#[test]
fn a_container_has_a_guest_as_its_sidecar() {
    let Some((cluster, kubectl, pod)) = with("container-with-guest") else {
        return;
    };
    let name = "container-with-guest";
    // The container has counted once before it served anything.
    let visit = answer(&kubectl, name, "web", "/cgi-bin/visit");
    assert_eq!(visit, "visit 2, the file holds ..\n");
    assert_eq!(answer(&kubectl, name, "counter", "/"), "2\n");
    let address = kubectl.value(&["pod", &pod], ".status.podIP");
    let (_, found) = http_get(&format!("{address}:8080"), "/").unwrap();
    assert_eq!(found, "2\n");
    nothing_restarted(&kubectl, &pod);
    // The guest answered before the container began, and until it had ended.
    let said = last_words(&cluster, &kubectl, &pod, "web");
    assert_eq!(said, "begins: 1\nends: 3\n");
}

/// A Pod of a guest and a container, of a class.
fn classed(kubectl: &Kubectl, class: &str) {
    kubectl.apply(&format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: of-{class}}}
spec:
  runtimeClassName: {class}
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: container, image: 'busybox:{TAG}', command: [sleep, '1000']}}
  - {{name: guest, image: 'kv-store:v1'}}
"
    ));
}

/// A class names the runtime of a whole Pod, over what its images say, and where and at which cost it
/// runs.
#[test]
fn a_runtime_class_is_honoured() {
    let Some((cluster, kubectl)) = cluster_with_busybox_as(TAG, &[]) else {
        return;
    };
    cluster.coracle(&["push", sample("kv-counter").to_str().unwrap()]);
    kubectl.apply(
        "
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: containers}
handler: oci
overhead: {podFixed: {cpu: 10m, memory: 4Mi}}
scheduling: {nodeSelector: {fits: containers}}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: guests}
handler: wasm
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: odd}
handler: kata
",
    );
    for class in ["containers", "guests", "odd"] {
        classed(&kubectl, class);
    }
    // Neither runtime runs what is the other's.
    for (class, runs, refused) in [("containers", 0, 1), ("guests", 1, 0)] {
        let pod = format!("of-{class}");
        if class == "containers" {
            let node = kubectl.value(&["nodes"], ".items[0].metadata.name");
            assert_eq!(kubectl.value(&["pod", &pod], ".spec.nodeName"), "");
            kubectl.ok(&["label", "node", &node, "fits=containers"]);
            let overhead = kubectl.value(&["pod", &pod], ".spec.overhead.memory");
            assert_eq!(overhead, "4Mi");
        }
        let state = |of: usize| format!(".status.containerStatuses[{of}].state");
        let running = format!("{}.running.startedAt", state(runs));
        eventually("the other runs", || {
            let at = kubectl.value(&["pod", &pod], &running);
            at.starts_with("20").then_some(()).ok_or(at)
        });
        let waiting = format!("{}.waiting.message", state(refused));
        eventually("one is refused", || {
            let why = kubectl.value(&["pod", &pod], &waiting);
            why.contains("image").then_some(()).ok_or(why)
        });
    }
    eventually("no runtime of that name", || {
        let events = kubectl.ok(&["events", "--for", "pod/of-odd"]);
        let told = events.contains("no runtime for handler \"kata\"");
        told.then_some(()).ok_or(events)
    });
}
