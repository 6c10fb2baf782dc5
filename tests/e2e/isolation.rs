//! What Pods may do with the machine: its folders, its rights, its processes.

use std::path::Path;

use serde_json::json;

use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{Kubectl, eventually, sample};

/// Waits for an event of a Pod that says something.
fn told(kubectl: &Kubectl, pod: &str, said: &str) {
    eventually(said, || {
        let events = kubectl.ok(&["events", "--for", &format!("pod/{pod}")]);
        events.contains(said).then_some(()).ok_or(events)
    });
}

/// A Pod of busybox that goes on after its script.
fn pod(name: &str, script: &str, container: serde_json::Value, spec: serde_json::Value) -> String {
    let script = format!("{script}; trap 'exit 0' TERM; while true; do sleep 0.1; done");
    let (mut container, mut spec) = (container, spec);
    container["name"] = json!("main");
    container["image"] = json!("busybox:v1");
    container["command"] = json!(["sh", "-c", script]);
    match spec["containers"].as_array_mut() {
        Some(others) => others.insert(0, container),
        None => spec["containers"] = json!([container]),
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn volume(path: &Path, type_: &str) -> serde_json::Value {
    json!({"volumes": [{"name": "v", "hostPath": {"path": path, "type": type_}}]})
}

#[test]
fn folders_of_the_machine_are_volumes_of_both_kinds() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    let guest = sample("inspect").join("inspect.wasm");
    cluster.coracle(&["push", guest.to_str().unwrap(), "inspect:v1"]);
    // Of the guests' user nothing on the machine is but what is everybody's.
    let machine = tempfile::tempdir_in("/var/tmp").unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    mode(machine.path(), 0o755);
    let folder = machine.path().join("made");
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    kubectl.apply(&pod(
        "writer",
        "echo hello > /v/file",
        mounts.clone(),
        volume(&folder, "DirectoryOrCreate"),
    ));
    kubectl.wait_value(&["pod", "writer"], ".status.phase", "Running");
    let file = folder.join("file");
    eventually("the file is on the machine", || {
        let read = std::fs::read_to_string(&file);
        let read = read.ok().filter(|text| text == "hello\n");
        read.map(drop).ok_or_else(|| "it is not there".to_owned())
    });
    std::fs::write(folder.join("secret"), "secret").unwrap();
    mode(&folder.join("secret"), 0o600);

    let reader = |name: &str, path: &Path, reads: &str| {
        let mut spec = volume(path, "");
        spec["restartPolicy"] = json!("Never");
        spec["containers"] = json!([{
            "name": "main", "image": "inspect:v1", "args": [reads],
            "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}],
        }]);
        let pod =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        kubectl.apply(&pod.to_string());
    };
    reader("reader", &folder, "/v/file");
    kubectl.wait_value(&["pod", "reader"], ".status.phase", "Succeeded");
    assert_eq!(kubectl.ok(&["logs", "reader"]), "/v/file: hello\\n\n");
    reader("denied", &folder, "/v/secret");
    kubectl.wait_value(&["pod", "denied"], ".status.phase", "Failed");
    reader("single", &file, "/v");
    let why = format!("{} is no folder", file.display());
    told(&kubectl, "single", &why);

    let no = machine.path().join("none");
    kubectl.apply(&pod(
        "missing",
        "",
        mounts.clone(),
        volume(&no, "Directory"),
    ));
    kubectl.apply(&pod("other", "", mounts.clone(), volume(&file, "Socket")));
    let of = "MountVolume.SetUp failed for volume \"v\" : hostPath";
    told(
        &kubectl,
        "missing",
        &format!("{of} {} doesn't exist", no.display()),
    );
    let why = "is not a socket file, it's a File";
    told(
        &kubectl,
        "other",
        &format!("{of} type check failed: {} {why}", file.display()),
    );
    kubectl.ok(&["delete", "pod", "--all", "--timeout=60s"]);
    assert!(file.exists());
}

#[test]
fn rights_and_processes_are_shared_as_the_pod_says() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    let privileged = json!({"securityContext": {"privileged": true}});
    kubectl.apply(&pod(
        "privileged",
        "mkdir /m; mount -t tmpfs none /m && echo mounted",
        privileged,
        json!({}),
    ));
    let beside = json!({
        "name": "beside", "image": "busybox:v1", "command": ["sleep", "7654321"],
    });
    let shared = json!({
        "shareProcessNamespace": true, "terminationGracePeriodSeconds": 1, "containers": [beside],
    });
    kubectl.apply(&pod("shared", "true", json!({}), shared));
    let filter = json!({"securityContext": {"seccompProfile": {
        "type": "Localhost", "localhostProfile": "own/no-mkdir.json",
    }}});
    kubectl.apply(&pod("filtered", "mkdir /x", filter, json!({})));

    kubectl.wait_value(&["pod", "privileged"], ".status.phase", "Running");
    eventually("what the privileged may do", || {
        let said = kubectl.ok(&["logs", "privileged"]);
        (said == "mounted\n").then_some(()).ok_or(said)
    });
    kubectl.wait_value(&["pod", "shared"], ".status.phase", "Running");
    let seen = kubectl.ok(&["exec", "shared", "-c", "main", "--", "ps"]);
    assert!(seen.contains("sleep 7654321"), "{seen}");

    let waiting = ".status.containerStatuses[0].state.waiting";
    let reason = format!("{waiting}.reason");
    kubectl.wait_value(&["pod", "filtered"], &reason, "CreateContainerError");
    let why = kubectl.value(&["pod", "filtered"], &format!("{waiting}.message"));
    let profile = cluster.data().join("agent/seccomp/own/no-mkdir.json");
    assert!(why.contains(profile.to_str().unwrap()), "{why}");
    std::fs::create_dir_all(profile.parent().unwrap()).unwrap();
    let text = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
    ]});
    std::fs::write(&profile, text.to_string()).unwrap();
    kubectl.wait_value(&["pod", "filtered"], ".status.phase", "Running");
    eventually("what the filter refuses", || {
        let said = kubectl.ok(&["logs", "filtered"]);
        said.contains("No space left").then_some(()).ok_or(said)
    });
    kubectl.ok(&["delete", "pod", "--all", "--timeout=60s"]);
}

#[test]
fn a_pod_is_known_by_the_names_that_it_says_and_what_it_cannot_have_is_named() {
    let Some((_cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    let spec = json!({
        "hostname": "web",
        "subdomain": "sub",
        "setHostnameAsFQDN": true,
        "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["a", "b.example"]}],
    });
    kubectl.apply(&pod(
        "known",
        "cat /etc/hostname /etc/hosts",
        json!({}),
        spec,
    ));
    kubectl.wait_value(&["pod", "known"], ".status.phase", "Running");
    let full = "web.sub.default.svc.cluster.local";
    eventually("its names", || {
        // Until it has begun there is no log.
        let said = kubectl.run(&["logs", "known"]).stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let named = said.starts_with(&format!("{full}\n"))
            && said.contains(&format!("\t{full}\n"))
            && said.contains("# Entries added by HostAliases.\n192.0.2.1\ta\tb.example\n");
        named.then_some(()).ok_or(said)
    });
    let ports = json!({"ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "SCTP"}]});
    kubectl.apply(&pod("taken", "true", ports, json!({})));
    told(
        &kubectl,
        "taken",
        "hostPort 8080 of protocol SCTP is not supported on this node",
    );
    kubectl.ok(&["delete", "pod", "--all", "--timeout=60s"]);
}
