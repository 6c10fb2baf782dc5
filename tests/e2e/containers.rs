//! Containers as users meet them: an image of busybox in the cluster's own registry, run by root.

use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::eventually;

#[test]
fn busybox_runs() {
    let Some((_cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    // Nobody finds what it had in memory in a core file.
    let script = "echo hello $FROM as $(id -u); ulimit -c; ulimit -H -c; exit 3";
    kubectl.ok(&[
        "run",
        "busybox",
        "--image=busybox:v1",
        "--restart=Never",
        "--command",
        "--",
        "sh",
        "-c",
        script,
    ]);
    kubectl.wait_value(&["pod", "busybox"], ".status.phase", "Failed");
    let said = kubectl.ok(&["logs", "busybox"]);
    assert_eq!(said, "hello image as 0\n0\n0\n");
    let state = ".status.containerStatuses[0].state.terminated";
    assert_eq!(
        kubectl.value(&["pod", "busybox"], &format!("{state}.exitCode")),
        "3"
    );
    assert_eq!(
        kubectl.value(&["pod", "busybox"], &format!("{state}.reason")),
        "Error"
    );

    kubectl.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: confined}
spec:
  hostNetwork: true
  securityContext: {runAsUser: 33, runAsNonRoot: true}
  containers:
  - name: main
    image: busybox:v1
    command: [sh, -c, 'trap \"exit 0\" TERM; id -u; while true; do sleep 0.1; done']
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    resources: {limits: {memory: 32Mi}}
",
    );
    kubectl.wait_value(&["pod", "confined"], ".status.phase", "Running");
    let host = kubectl.value(&["pod", "confined"], ".status.hostIP");
    assert_eq!(kubectl.value(&["pod", "confined"], ".status.podIP"), host);

    kubectl.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: rooted}
spec:
  securityContext: {runAsNonRoot: true}
  containers: [{name: main, image: 'busybox:v1'}]
",
    );
    let waiting = ".status.containerStatuses[0].state.waiting";
    let reason = format!("{waiting}.reason");
    kubectl.wait_value(&["pod", "rooted"], &reason, "CreateContainerConfigError");
    let message = kubectl.value(&["pod", "rooted"], &format!("{waiting}.message"));
    let why = "container has runAsNonRoot and image will run as root (pod: \"rooted_default(";
    assert!(message.starts_with(why), "{message}");
    kubectl.ok(&["delete", "pod", "--all", "--timeout=60s"]);
}

#[test]
fn hooks_and_probes_run_commands_in_containers() {
    let Some((_cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    kubectl.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: hooked}
spec:
  terminationGracePeriodSeconds: 20
  containers:
  - name: main
    image: busybox:v1
    command: [sh, -c, 'trap \"exit 0\" TERM; while true; do sleep 0.1; done']
    lifecycle:
      postStart: {exec: {command: [sh, -c, 'echo began > /began']}}
      preStop: {exec: {command: [sh, -c, 'echo stopping > /proc/1/fd/1']}}
    readinessProbe: {exec: {command: [test, -e, /ready]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [test, '!', -e, /dead]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: unhooked}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:v1
    command: [sleep, '1000']
    lifecycle: {postStart: {exec: {command: [sh, -c, 'echo no luck; exit 3']}}}
",
    );
    kubectl.wait_value(&["pod", "hooked"], ".status.phase", "Running");
    assert_eq!(
        kubectl.ok(&["exec", "hooked", "--", "cat", "/began"]),
        "began\n"
    );
    let ready = ".status.containerStatuses[0].ready";
    assert_eq!(kubectl.value(&["pod", "hooked"], ready), "false");
    kubectl.ok(&["exec", "hooked", "--", "sh", "-c", ": > /ready"]);
    kubectl.wait_value(&["pod", "hooked"], ready, "true");
    kubectl.ok(&["exec", "hooked", "--", "sh", "-c", ": > /dead"]);
    let restarts = ".status.containerStatuses[0].restartCount";
    kubectl.wait_value(&["pod", "hooked"], restarts, "1");
    assert_eq!(kubectl.ok(&["logs", "--previous", "hooked"]), "stopping\n");
    kubectl.wait_value(&["pod", "unhooked"], ".status.phase", "Failed");
    eventually("the event of the hook", || {
        let events = kubectl.ok(&["events", "--for", "pod/unhooked"]);
        // What it has printed may be secret.
        let told = events.contains("PostStartHook failed") && !events.contains("no luck");
        told.then_some(()).ok_or(events)
    });
    kubectl.ok(&["delete", "pod", "--all", "--timeout=60s"]);
}
