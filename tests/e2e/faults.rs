//! Guests and containers that misbehave, and what a user sees of it.

use serde_json::{Value, json};

use crate::cluster::busybox::{cluster_with_busybox, push_image};
use crate::cluster::{Cluster, Kubectl, eventually, kubectl_available, sample};

const TERMINATED: &str = ".status.containerStatuses[0].state.terminated";
const LAST: &str = ".status.containerStatuses[0].lastState.terminated";

#[test]
fn each_fault_ends_as_documented_and_the_node_stays_ready() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&["--apply", sample("faults").to_str().unwrap()]);
    let kubectl = cluster.kubectl();

    kubectl.wait_value(
        &["pod", "oom"],
        &format!("{TERMINATED}.reason"),
        "OOMKilled",
    );
    kubectl.wait_value(&["pod", "oom"], &format!("{TERMINATED}.exitCode"), "137");
    kubectl.wait_value(&["pod", "exit3"], &format!("{TERMINATED}.exitCode"), "3");
    kubectl.wait_value(&["pod", "exit3"], &format!("{TERMINATED}.reason"), "Error");
    kubectl.wait_value(&["pod", "exit3"], ".status.phase", "Failed");
    let trap = eventually("the trap's message", || {
        let message = kubectl.value(&["pod", "trap"], &format!("{LAST}.message"));
        if message.contains("unreachable") {
            Ok(message)
        } else {
            Err(message)
        }
    });
    assert!(trap.contains("wasm"), "{trap}");
    assert_ne!(
        kubectl.value(&["pod", "trap"], &format!("{LAST}.exitCode")),
        "0"
    );
    eventually("the back-off", || {
        let pods = kubectl.ok(&["get", "pods"]);
        let shown = |name: &str, status: &str| {
            pods.lines()
                .any(|line| line.starts_with(name) && line.contains(status))
        };
        if shown("trap", "CrashLoopBackOff") && shown("exit3", "Error") {
            Ok(())
        } else {
            Err(pods)
        }
    });

    kubectl.wait_value(&["pod", "spin"], ".status.phase", "Running");
    kubectl.ok(&["delete", "pod", "spin", "--timeout=30s"]);
    let nodes = kubectl.ok(&["get", "nodes"]);
    assert!(nodes.contains(" Ready"), "{nodes}");
}

#[test]
fn images_that_cannot_run_leave_a_reason_on_their_pod() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    // (module (import "acme" "widget" (func)) (func (export "_start")))
    let needs = cluster.folder().join("needs.wasm");
    std::fs::write(
        &needs,
        b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x0f\x01\x04acme\x06widget\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\x01\x0a\x04\x01\x02\0\x0b",
    )
    .unwrap();
    cluster.coracle(&["push", needs.to_str().unwrap(), "needs:v1"]);
    let registry = std::fs::read_to_string(cluster.data().join("registry-address")).unwrap();
    for (name, image) in [
        ("needs", "needs:v1".to_owned()),
        ("absent", format!("{}/absent:v1", registry.trim())),
        ("misnamed", "UPPER/Case:v1".to_owned()),
    ] {
        kubectl.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers: [{{name: main, image: '{image}'}}]\n"
        ));
    }
    let waiting = ".status.containerStatuses[0].state.waiting";
    for (name, reason, message) in [
        ("needs", None, "widget"),
        ("absent", None, "absent"),
        ("misnamed", Some("InvalidImageName"), "UPPER"),
    ] {
        eventually(&format!("the reason on {name}"), || {
            let found = kubectl.value(&["pod", name], &format!("{waiting}.reason"));
            let said = kubectl.value(&["pod", name], &format!("{waiting}.message"));
            let events = kubectl.ok(&[
                "get",
                "events",
                "--field-selector",
                &format!("involvedObject.name={name}"),
            ]);
            if !found.is_empty()
                && reason.is_none_or(|reason| reason == found)
                && (said.contains(message) || events.contains(message))
                && events.contains("Warning")
            {
                Ok(())
            } else {
                Err(format!("{found}: {said}\n{events}"))
            }
        });
    }
    let nodes = kubectl.ok(&["get", "nodes"]);
    assert!(nodes.contains(" Ready"), "{nodes}");
}

/// A Pod of one container, which is not started again.
fn pod(name: &str, mut container: Value) -> String {
    container["name"] = json!("main");
    let spec = json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container],
    });
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn limited(script: &str, limits: &Value) -> Value {
    let resources = json!({"limits": limits});
    json!({"image": "busybox:v1", "command": ["sh", "-c", script], "resources": resources})
}

#[test]
fn containers_that_misbehave_leave_others_alone() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    let stranger = cluster.folder().join("stranger");
    std::fs::create_dir(&stranger).unwrap();
    std::fs::copy("/bin/busybox", stranger.join("run")).unwrap();
    let config = json!({"Entrypoint": ["/run"], "User": "stranger"});
    push_image(&cluster, &stranger, "stranger:v1", &config);
    let flood = format!("exec yes {}", "0123456789".repeat(10));
    let doubles = "x=xxxxxxxxxxxxxxxx; while true; do x=$x$x; done";
    let none = json!({});
    for (name, container) in [
        (
            "steady",
            limited("trap exit TERM; while true; do sleep 0.1; done", &none),
        ),
        ("greedy", limited(doubles, &json!({"memory": "16Mi"}))),
        ("loud", limited(&flood, &json!({"cpu": "200m"}))),
        (
            "deaf",
            limited("trap '' TERM; while true; do sleep 1; done", &none),
        ),
        ("stranger", json!({"image": "stranger:v1"})),
        (
            "absent",
            json!({"image": "busybox:v1", "command": ["/bin/absent"]}),
        ),
    ] {
        kubectl.apply(&pod(name, container));
    }
    let reason = format!("{TERMINATED}.reason");
    kubectl.wait_value(&["pod", "greedy"], &reason, "OOMKilled");
    for (name, why) in [
        ("stranger", "unable to find user stranger"),
        ("absent", "\"/bin/absent\": no such file or directory"),
    ] {
        eventually(why, || {
            let events = kubectl.ok(&["events", "--for", &format!("pod/{name}")]);
            events.contains(why).then_some(()).ok_or(events)
        });
    }
    kubectl.wait_value(&["pod", "deaf"], ".status.phase", "Running");
    kubectl.ok(&["delete", "pod", "deaf", "--timeout=60s"]);
    log_is_bounded(&cluster, "loud");
    kubectl.ok(&["delete", "pod", "loud", "--timeout=60s"]);
    goes_on(&kubectl, "steady");
    kubectl.ok(&["delete", "pod", "--all", "--timeout=60s"]);
}

/// Waits until a Pod has as many files of logs as it may have, which are no larger than they may be.
fn log_is_bounded(cluster: &Cluster, pod: &str) {
    let logs = cluster.data().join("agent/logs");
    let part = format!("_{pod}_");
    let sizes = || -> Vec<u64> {
        let mut pods = std::fs::read_dir(&logs).unwrap().flatten();
        let own = pods.find(|entry| entry.file_name().to_string_lossy().contains(&part));
        let files = own.and_then(|own| std::fs::read_dir(own.path().join("main")).ok());
        // One that goes meanwhile takes no room.
        let files = files.into_iter().flatten().flatten();
        let sizes = files.filter_map(|file| file.metadata().ok());
        sizes.map(|of| of.len()).collect()
    };
    let all = eventually("files of logs", || {
        let all = sizes();
        if all.len() < 5 {
            Err(format!("{all:?}"))
        } else {
            Ok(all)
        }
    });
    // Ten MiB each; one that is renamed meanwhile may be seen twice.
    assert!(all.iter().sum::<u64>() < 61 << 20, "{all:?}");
}

/// A Pod has run all the time and still does, on a node that is ready.
fn goes_on(kubectl: &Kubectl, pod: &str) {
    let object = ["pod", pod];
    let container = ".status.containerStatuses[0]";
    kubectl.wait_value(&object, &format!("{container}.ready"), "true");
    let restarts = kubectl.value(&object, &format!("{container}.restartCount"));
    assert_eq!(restarts, "0");
    assert_eq!(kubectl.ok(&["exec", pod, "--", "echo", "fine"]), "fine\n");
    let ready = r#".items[0].status.conditions[?(@.type=="Ready")].status"#;
    assert_eq!(kubectl.value(&["nodes"], ready), "True");
}

#[test]
fn a_file_that_is_no_guest_is_not_pushed() {
    let cluster = Cluster::up(&[]);
    let broken = cluster.folder().join("broken.wasm");
    std::fs::write(&broken, b"\0asm\x01\0\0\0garbage").unwrap();
    let output = std::process::Command::new(crate::cluster::CORACLE)
        .args(["push", broken.to_str().unwrap(), "broken:v1", "--data-dir"])
        .arg(cluster.data())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("broken.wasm") && said.contains("not a WebAssembly"),
        "{said}"
    );
}
