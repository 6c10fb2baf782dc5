//! test/e2e/common/node/pods.go, init_container.go, kubelet.go and runtime.go: what a kubelet does
//! with Pods.

use serde_json::{Value, json};

use super::{cluster_with, create, shown};
use crate::cluster::{Kubectl, eventually};

/// Makes a Pod with a label of its own, of one container that goes on until it is told to end.
fn serving(kubectl: &Kubectl, name: &str, more: Value) {
    let mut spec = more;
    spec["containers"] = json!([{"name": "server", "image": "hello-http:v1"}]);
    let metadata = json!({"name": name, "labels": {"time": "now"}});
    create(
        kubectl,
        &json!({"kind": "Pod", "metadata": metadata, "spec": spec}),
    );
}

/// Must: a Pod that is made is found by its label.
/// Must: a watch sees the Pod run and, once it is deleted, its deletion timestamp and that it is gone.
/// Must: the label then finds nothing.
#[test]
fn pods_should_be_submitted_and_removed() {
    let Some((cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    let found = || kubectl.ok(&["get", "pods", "-l", "time=now", "-o", "name"]);
    assert_eq!(found(), "");
    let template =
        r#"jsonpath={.type} {.object.status.phase} {.object.metadata.deletionTimestamp}{"\n"}"#;
    let watching = [
        "get",
        "pods",
        "-l",
        "time=now",
        "--watch",
        "--output-watch-events",
        "-o",
        template,
    ];
    let watch = kubectl.spawn(&watching, &cluster.folder().join("watch"));
    // It is watched before it runs.
    let node = kubectl.value(&["nodes"], ".items[0].metadata.name");
    kubectl.ok(&["cordon", &node]);
    serving(&kubectl, "submitted", json!({}));
    assert_eq!(found(), "pod/submitted\n");
    let sees = |what: &str, wanted: &dyn Fn(&str) -> bool| {
        eventually(what, || {
            let printed = watch.printed();
            if printed.lines().any(wanted) {
                Ok(())
            } else {
                Err(printed)
            }
        });
    };
    sees("it is there", &|line| line.trim_end() == "ADDED Pending");
    kubectl.ok(&["uncordon", &node]);
    sees("it runs", &|line| line.trim_end() == "MODIFIED Running");
    kubectl.ok(&["delete", "pod", "submitted", "--grace-period=30"]);
    sees("it is to end", &|line| {
        line.starts_with("MODIFIED ") && line.contains(" 20")
    });
    sees("it is gone", &|line| {
        line.starts_with("DELETED ") && line.contains(" 20")
    });
    assert_eq!(found(), "");
}

/// Must: the status of a Pod that runs has a valid address of its node.
#[test]
fn pods_should_get_a_host_ip() {
    let Some((_cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    serving(&kubectl, "hosted", json!({}));
    kubectl.wait_value(&["pod", "hosted"], ".status.phase", "Running");
    let ip = kubectl.value(&["pod", "hosted"], ".status.hostIP");
    assert!(ip.parse::<std::net::IpAddr>().is_ok(), "{ip}");
    let addresses = kubectl.value(&["nodes"], ".items[0].status.addresses[*].address");
    assert!(
        addresses.split(' ').any(|address| address == ip),
        "{addresses}"
    );
}

/// Must: a Pod that runs is found by its label.
/// Must: once it has been given a deadline by an update, it ends when that has passed.
#[test]
fn pods_should_allow_activedeadlineseconds_to_be_updated() {
    let Some((_cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    serving(&kubectl, "bounded", json!({}));
    kubectl.wait_value(&["pod", "bounded"], ".status.phase", "Running");
    let found = kubectl.ok(&["get", "pods", "-l", "time=now", "-o", "name"]);
    assert_eq!(found, "pod/bounded\n");
    let deadline = r#"{"spec":{"activeDeadlineSeconds":1}}"#;
    kubectl.ok(&["patch", "pod", "bounded", "-p", deadline]);
    kubectl.wait_value(&["pod", "bounded"], ".status.reason", "DeadlineExceeded");
    let phase = kubectl.value(&["pod", "bounded"], ".status.phase");
    assert_eq!(phase, "Failed");
}

/// Must: after 499 updates of its spec the generation of a Pod is 500.
/// Must: so is, then, the one that its kubelet has observed.
#[test]
fn pods_extended_pod_generation_pod_generation_issue_500_podspec_updates_and_verify_generation_and_observedgeneration_eventually_converge()
 {
    let Some((cluster, kubectl)) = cluster_with(&["hello-http"]) else {
        return;
    };
    serving(&kubectl, "updated", json!({"activeDeadlineSeconds": 5000}));
    kubectl.wait_value(&["pod", "updated"], ".status.phase", "Running");
    // One kubectl makes many updates: it applies one file after the other.
    let mut updates = Vec::new();
    for deadline in (4501..5000).rev() {
        let containers = json!([{"name": "server", "image": "hello-http:v1"}]);
        let metadata = json!({"name": "updated", "labels": {"time": "now"}});
        updates.push(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"activeDeadlineSeconds": deadline, "containers": containers},
        }));
    }
    let file = cluster.folder().join("updates.yaml");
    let texts: Vec<String> = updates.iter().map(Value::to_string).collect();
    std::fs::write(&file, texts.join("\n---\n")).unwrap();
    kubectl.ok(&["apply", "-f", file.to_str().unwrap()]);
    let generation = kubectl.value(&["pod", "updated"], ".metadata.generation");
    assert_eq!(generation, "500");
    kubectl.wait_value(&["pod", "updated"], ".status.observedGeneration", "500");
}

/// A Pod of two init containers and one that follows, with what each of them runs.
fn initialized(kubectl: &Kubectl, policy: &str, [first, second, last]: [&str; 3]) {
    let container = |name: &str, image: &str| json!({"name": name, "image": format!("{image}:v1")});
    let spec = json!({
        "restartPolicy": policy,
        "initContainers": [container("init1", first), container("init2", second)],
        "containers": [container("run1", last)],
    });
    let metadata = json!({"name": "initialized"});
    create(
        kubectl,
        &json!({"kind": "Pod", "metadata": metadata, "spec": spec}),
    );
}

const INITIALIZED: &str = r#".status.conditions[?(@.type=="Initialized")].status"#;
const INIT_CODES: &str = ".status.initContainerStatuses[*].state.terminated.exitCode";

/// Must: the init containers of a Pod that never restarts end, and then its container, with code 0.
/// Must: the Pod is initialized and has succeeded, and nothing was restarted.
#[test]
fn initcontainer_should_invoke_init_containers_on_a_restartnever_pod() {
    let Some((_cluster, kubectl)) = cluster_with(&["batch-hello"]) else {
        return;
    };
    initialized(&kubectl, "Never", ["batch-hello"; 3]);
    let pod = ["pod", "initialized"];
    kubectl.wait_value(&pod, ".status.phase", "Succeeded");
    assert_eq!(kubectl.value(&pod, INITIALIZED), "True");
    assert_eq!(kubectl.value(&pod, INIT_CODES), "0 0");
    let code = ".status.containerStatuses[*].state.terminated.exitCode";
    assert_eq!(kubectl.value(&pod, code), "0");
    let restarts = ".status.initContainerStatuses[*].restartCount";
    assert_eq!(kubectl.value(&pod, restarts), "0 0");
}

/// Must: the init containers of a Pod that always restarts end with code 0, and its container runs.
/// Must: the Pod is initialized.
#[test]
fn initcontainer_should_invoke_init_containers_on_a_restartalways_pod() {
    let Some((_cluster, kubectl)) = cluster_with(&["batch-hello", "hello-http"]) else {
        return;
    };
    initialized(
        &kubectl,
        "Always",
        ["batch-hello", "batch-hello", "hello-http"],
    );
    let pod = ["pod", "initialized"];
    kubectl.wait_value(&pod, ".status.phase", "Running");
    assert_eq!(kubectl.value(&pod, INITIALIZED), "True");
    assert_eq!(kubectl.value(&pod, INIT_CODES), "0 0");
    let started = ".status.containerStatuses[0].state.running.startedAt";
    assert!(kubectl.value(&pod, started).starts_with("20"));
}

/// Must: where an init container fails and nothing restarts, the Pod has failed and is not
/// initialized.
/// Must: the container of the Pod has never been started.
#[test]
fn initcontainer_should_not_start_app_containers_and_fail_the_pod_if_init_containers_fail_on_a_restartnever_pod()
 {
    let Some((_cluster, kubectl)) = cluster_with(&["batch-hello", "exit3"]) else {
        return;
    };
    initialized(&kubectl, "Never", ["batch-hello", "exit3", "batch-hello"]);
    let pod = ["pod", "initialized"];
    kubectl.wait_value(&pod, ".status.phase", "Failed");
    assert_eq!(kubectl.value(&pod, INITIALIZED), "False");
    assert_eq!(kubectl.value(&pod, INIT_CODES), "0 3");
    let state = ".status.containerStatuses[0].state.waiting.reason";
    assert_eq!(kubectl.value(&pod, state), "PodInitializing");
}

/// Must: what a process writes to its outputs is in the logs of its Pod.
#[test]
fn kubelet_when_scheduling_a_busybox_command_in_a_pod_should_print_the_output_to_logs() {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
        return;
    };
    // It reads one of the files, and complains of the other.
    let spec = json!({
        "restartPolicy": "Never",
        "volumes": [{"name": "own", "downwardAPI": {
            "items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}],
        }}],
        "containers": [{
            "name": "test", "image": "inspect:v1", "args": ["/own/name", "/own/absent"],
            "volumeMounts": [{"name": "own", "mountPath": "/own"}],
        }],
    });
    create(
        &kubectl,
        &json!({"kind": "Pod", "metadata": {"name": "says"}, "spec": spec}),
    );
    kubectl.wait_value(&["pod", "says"], ".status.phase", "Failed");
    let said = kubectl.ok(&["logs", "says"]);
    super::has_lines(&said, &["/own/name: says"]);
    assert!(
        said.lines().any(|line| line.starts_with("/own/absent: ")),
        "{said}"
    );
}

/// A Pod whose container fails whenever it is started.
fn failing(kubectl: &Kubectl) {
    let spec = json!({"containers": [{"name": "fails", "image": "exit3:v1"}]});
    create(
        kubectl,
        &json!({"kind": "Pod", "metadata": {"name": "failing"}, "spec": spec}),
    );
}

/// Must: a Pod whose container has ended, and would be started again, is deleted.
#[test]
fn kubelet_when_scheduling_a_busybox_command_that_always_fails_in_a_pod_should_be_possible_to_delete()
 {
    let Some((_cluster, kubectl)) = cluster_with(&["exit3"]) else {
        return;
    };
    failing(&kubectl);
    let last = ".status.containerStatuses[0].lastState.terminated.exitCode";
    kubectl.wait_value(&["pod", "failing"], last, "3");
    kubectl.ok(&["delete", "pod", "failing", "--timeout=60s"]);
    assert!(
        kubectl
            .fails(&["get", "pod", "failing"])
            .contains("not found")
    );
}

/// Must: the Pod has one container.
/// Must: that is in a terminated state.
/// Must: the state has a reason, and a code that is not 0.
#[test]
fn kubelet_when_scheduling_a_busybox_command_that_always_fails_in_a_pod_should_have_an_terminated_reason()
 {
    let Some((_cluster, kubectl)) = cluster_with(&["exit3"]) else {
        return;
    };
    failing(&kubectl);
    let ended = eventually("the container ends", || {
        let pod = kubectl.ok(&["get", "pod", "failing", "-o", "json"]);
        let pod: Value = serde_json::from_str(&pod).unwrap();
        let statuses = &pod["status"]["containerStatuses"];
        let state = &statuses[0]["state"]["terminated"];
        // It may have been started again meanwhile.
        let last = &statuses[0]["lastState"]["terminated"];
        match (statuses.as_array().map(Vec::len), state, last) {
            (Some(1), Value::Null, Value::Null) | (None, ..) => Err(statuses.to_string()),
            (Some(1), Value::Null, state) | (Some(1), state, _) => Ok(state.clone()),
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(ended["exitCode"], 3);
    assert_eq!(ended["reason"], "Error");
}

/// Must: a container that succeeds leaves no message, though what it said would be one had it failed.
#[test]
fn container_runtime_blackbox_test_on_terminated_container_should_report_termination_message_as_empty_when_pod_succeeds_and_terminationmessagepolicy_fallbacktologsonerror_is_set()
 {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
        return;
    };
    let container = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let said = shown(&kubectl, container, json!({}));
    assert!(said.contains('='), "{said}");
    let terminated = ".status.containerStatuses[0].state.terminated";
    let pod = ["pod", "inspect"];
    assert_eq!(kubectl.value(&pod, &format!("{terminated}.exitCode")), "0");
    assert_eq!(kubectl.value(&pod, &format!("{terminated}.message")), "");
}

/// Must: the message of a container that fails is the end of what it said, where that is asked for.
#[test]
fn container_runtime_blackbox_test_on_terminated_container_should_report_termination_message_from_log_output_if_terminationmessagepolicy_fallbacktologsonerror_is_set()
 {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
        return;
    };
    let spec = json!({"restartPolicy": "Never", "containers": [{
        "name": "test", "image": "inspect:v1", "args": ["/absent"],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }]});
    create(
        &kubectl,
        &json!({"kind": "Pod", "metadata": {"name": "fails"}, "spec": spec}),
    );
    kubectl.wait_value(&["pod", "fails"], ".status.phase", "Failed");
    let message = ".status.containerStatuses[0].state.terminated.message";
    let message = kubectl.value(&["pod", "fails"], message);
    assert!(message.starts_with("/absent: "), "{message}");
    assert_eq!(
        message.trim_end(),
        kubectl.ok(&["logs", "fails"]).trim_end()
    );
}
