//! Commands in WebAssembly containers: `kubectl exec`, probes and hooks.

use serde_json::json;

use crate::cluster::{Cluster, Kubectl, eventually, kubectl_available, sample};

/// Makes a Pod of the guest `kv-store`, which counts in `/data`, with a command in `/tools`.
fn counting(kubectl: &Kubectl, name: &str, more: serde_json::Value) {
    let mut container = more;
    container["name"] = json!("main");
    container["image"] = json!("kv-store:v1");
    container["env"] = json!([{"name": "COLOUR", "value": "red"}]);
    container["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}, {"name": "tools", "mountPath": "/tools"}]);
    let volumes = json!([
        {"name": "data", "emptyDir": {}},
        {"name": "tools", "configMap": {"name": "tools"}},
    ]);
    kubectl.apply(
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 5, "restartPolicy": "Never",
                "containers": [container], "volumes": volumes,
            },
        })
        .to_string(),
    );
}

fn with_tools(cluster: &Cluster) -> Kubectl {
    let kubectl = cluster.kubectl();
    cluster.coracle(&["push", sample("kv-counter").to_str().unwrap()]);
    let inspect = sample("inspect/inspect.wasm");
    let from = format!("--from-file={}", inspect.display());
    kubectl.ok(&["create", "configmap", "tools", &from]);
    kubectl
}

fn commands_run_in_the_sandbox_of_a_guest(cluster: &Cluster) {
    let kubectl = with_tools(cluster);
    let inspect = |file: &str| json!({"exec": {"command": ["/tools/inspect.wasm", file]}});
    let mut readiness = inspect("/data/count");
    readiness["periodSeconds"] = json!(1);
    readiness["timeoutSeconds"] = json!(30);
    let hook = json!({"postStart": {"exec": {"command": ["/tools/inspect.wasm"]}}});
    counting(
        &kubectl,
        "counts",
        json!({"readinessProbe": readiness, "lifecycle": hook}),
    );
    kubectl.wait_value(&["pod", "counts"], ".status.phase", "Running");
    let shown = kubectl.ok(&["exec", "counts", "--", "/tools/inspect.wasm"]);
    has(&shown, "COLOUR=red");
    has(&shown, "HOSTNAME=counts");
    // Nobody has counted yet.
    let file = ["exec", "counts", "--", "/tools/inspect.wasm", "/data/count"];
    let absent = kubectl.run(&file);
    assert_eq!(absent.status.code(), Some(1), "{absent:?}");
    let errors = String::from_utf8_lossy(&absent.stderr).into_owned();
    assert!(errors.contains("/data/count: "), "{errors}");
    let ready = ".status.containerStatuses[0].ready";
    assert_eq!(kubectl.value(&["pod", "counts"], ready), "false");
    // Its own machine's files are not the guest's.
    let passwd = ["exec", "counts", "--", "/tools/inspect.wasm", "/etc/passwd"];
    assert_eq!(kubectl.run(&passwd).status.code(), Some(1));
    for (command, why) in [
        (&["ls", "/"][..], "runs nothing but WebAssembly"),
        (&["kv-store.wasm"], "serves HTTP, and is no command"),
        (&["/tools/absent.wasm"], "No such file"),
    ] {
        let refused = kubectl.run(&[&["exec", "counts", "--"][..], command].concat());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(126), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let output = cluster.folder().join("forward");
    let forwarding = kubectl.spawn(&["port-forward", "counts", ":8080"], &output);
    let port = eventually("the forwarded port", || {
        let printed = forwarding.printed();
        let from = printed.split_once("127.0.0.1:");
        let port = from.and_then(|(_, rest)| rest.split_once(' '));
        port.map(|(port, _)| port.to_owned()).ok_or(printed)
    });
    use std::io::{Read, Write};
    let mut counter = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    let request = "POST / HTTP/1.0\r\nHost: counts\r\nContent-Length: 0\r\n\r\n";
    counter.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    counter.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("1\n"), "{answer}");
    kubectl.wait_value(&["pod", "counts"], ready, "true");
    assert_eq!(kubectl.ok(&file), "/data/count: .\n");

    // A hook that fails ends its container.
    let hook = json!({"postStart": inspect("/absent")});
    counting(&kubectl, "hooked", json!({"lifecycle": hook}));
    eventually("the event of the hook", || {
        let events = kubectl.ok(&["events", "--for", "pod/hooked"]);
        let told = events.contains("PostStartHook failed");
        told.then_some(()).ok_or(events)
    });
    // What could not work is refused before anything is started.
    let hook = json!({"preStop": {"exec": {"command": ["sh", "-c", "sync"]}}});
    counting(&kubectl, "refused", json!({"lifecycle": hook}));
    let why = ".status.containerStatuses[0].state.waiting.message";
    eventually("the refusal", || {
        let why = kubectl.value(&["pod", "refused"], why);
        why.contains("runs nothing but WebAssembly")
            .then_some(())
            .ok_or(why)
    });
    kubectl.ok(&["delete", "pod", "--all", "--timeout=60s"]);
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|said| said == line), "{line}: {text}");
}

#[test]
fn commands_run_in_guests() {
    if kubectl_available() {
        commands_run_in_the_sandbox_of_a_guest(&Cluster::up(&[]));
    }
}

#[test]
fn commands_run_in_guests_of_a_user_without_rights() {
    if kubectl_available() {
        commands_run_in_the_sandbox_of_a_guest(&Cluster::up_as_nobody(&[]));
    }
}
