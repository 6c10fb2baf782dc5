//! Guests that misbehave, and what a user sees of it.

use crate::cluster::{Cluster, eventually, kubectl_available, sample};

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
