//! Pods with users of their own (`hostUsers: false`, KEP-127).

use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{Cluster, Kubectl, eventually, sample};

/// A Pod of busybox that goes on, with users of its own.
fn pod(name: &str, container: Value, spec: Value) -> String {
    let (mut container, mut spec) = (container, spec);
    container["name"] = json!("main");
    container["image"] = json!("busybox:v1");
    container["command"] = json!([
        "sh",
        "-c",
        "trap 'exit 0' TERM; while true; do sleep 0.1; done"
    ]);
    spec["containers"] = json!([container]);
    spec["hostUsers"] = json!(false);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn running(kubectl: &Kubectl, name: &str) {
    kubectl.wait_value(&["pod", name], ".status.phase", "Running");
}

fn sh(kubectl: &Kubectl, name: &str, script: &str) -> String {
    kubectl.ok(&["exec", name, "--", "sh", "-c", script])
}

/// The machine's ID of a Pod's root, of its first process and of another.
fn first_id(kubectl: &Kubectl, name: &str) -> u32 {
    let maps = sh(kubectl, name, "cat /proc/1/uid_map /proc/self/gid_map");
    let maps: Vec<Vec<u32>> = maps
        .lines()
        .map(|line| {
            let numbers = line.split_whitespace().map(|number| number.parse());
            numbers.collect::<Result<_, _>>().unwrap()
        })
        .collect();
    assert_eq!(maps[0], maps[1]);
    assert_eq!((maps[0][0], maps[0][2]), (0, 65536), "{maps:?}");
    assert!(maps[0][1] > 65536, "{maps:?}");
    maps[0][1]
}

#[test]
fn root_of_a_pod_is_nobody_on_the_machine_and_stays_who_it_is() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    kubectl.ok(&["create", "configmap", "config", "--from-literal=key=value"]);
    let volumes = json!([
        {"name": "empty", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "config", "configMap": {"name": "config", "defaultMode": 0o400}},
    ]);
    let mounts = json!([
        {"name": "empty", "mountPath": "/empty"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "config", "mountPath": "/config"},
    ]);
    // An address of its own, since a port below 1024 and its network are the Pod's root's.
    let container = json!({
        "volumeMounts": mounts,
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
        "readinessProbe": {"exec": {"command": ["sh", "-c", "grep -q ' 65536$' /proc/self/uid_map"]}},
    });
    kubectl.apply(&pod("one", container, json!({"volumes": volumes})));
    kubectl.apply(&pod("two", json!({}), json!({})));
    for name in ["one", "two"] {
        running(&kubectl, name);
    }
    let ready = ".status.containerStatuses[0].ready";
    kubectl.wait_value(&["pod", "one"], ready, "true");
    let (one, two) = (first_id(&kubectl, "one"), first_id(&kubectl, "two"));
    assert!(one.abs_diff(two) >= 65536, "{one} {two}");
    assert_eq!(sh(&kubectl, "one", "id -u"), "0\n");

    // Files are root's as it sees them, and on the disk.
    let script = "cat /config/key; for f in /empty/f /memory/f /f; do echo x > $f; done; \
                  stat -c '%u:%g' /empty/f /memory/f /f /config/..data/key /etc/hosts; \
                  cat /var/run/secrets/kubernetes.io/serviceaccount/namespace";
    let said = sh(&kubectl, "one", script);
    assert_eq!(said, "value0:0\n0:0\n0:0\n0:0\n0:0\ndefault");
    let uid = kubectl.value(&["pod", "one"], ".metadata.uid");
    let folder = cluster.data().join("agent/pods/pods").join(&uid);
    let file = folder.join("volumes/kubernetes.io~empty-dir/empty/f");
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), 0);

    // What the machine sees of its processes.
    let of_range = |first: u32| {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let statuses =
            processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok());
        let uid = format!("Uid:\t{first}\t");
        statuses.filter(|status| status.contains(&uid)).count()
    };
    assert!(of_range(one) > 0 && of_range(two) > 0);
    let link = "ip link set eth0 mtu 1400 && cat /sys/class/net/eth0/mtu";
    assert_eq!(sh(&kubectl, "one", link), "1400\n");
    let host = sh(
        &kubectl,
        "one",
        "hostname; hostname other 2>/dev/null || echo kept",
    );
    assert_eq!(host, "one\nkept\n");

    // The next agent knows whose IDs are whose.
    let address = kubectl.value(&["pod", "one"], ".status.podIP");
    let range = format!("{}.0.0/16", address.rsplitn(3, '.').last().unwrap());
    let cluster = Cluster::up_in(cluster.kill(), &["--cluster-cidr", &range]);
    let kubectl = cluster.kubectl();
    assert_eq!(first_id(&kubectl, "one"), one);
    kubectl.apply(&pod("three", json!({}), json!({})));
    running(&kubectl, "three");
    let three = first_id(&kubectl, "three");
    assert!(![one, two].contains(&three), "{three}");
    // Also for a container that it starts anew, which may end before who asked is told.
    kubectl.run(&["exec", "one", "--", "kill", "1"]);
    let restarts = ".status.containerStatuses[0].restartCount";
    kubectl.wait_value(&["pod", "one"], restarts, "1");
    kubectl.wait_value(&["pod", "one"], ready, "true");
    assert_eq!(first_id(&kubectl, "one"), one);
    kubectl.ok(&["delete", "pod", "--all", "--timeout=60s"]);
    eventually("no process is left of them", || match of_range(one) {
        0 => Ok(()),
        left => Err(left.to_string()),
    });
}

#[test]
fn proc_is_whole_for_who_asks_and_what_users_cannot_have_is_refused() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    let unmasked = json!({"securityContext": {"procMount": "Unmasked"}});
    kubectl.apply(&pod("whole", unmasked, json!({})));
    kubectl.apply(&pod("masked", json!({}), json!({})));
    let mounted = "grep -c ' /proc/' /proc/self/mounts || true";
    running(&kubectl, "whole");
    assert_eq!(sh(&kubectl, "whole", mounted), "0\n");
    running(&kubectl, "masked");
    assert_ne!(sh(&kubectl, "masked", mounted), "0\n");

    // A file system whose IDs cannot be mapped.
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let machine = json!({"volumes": [{"name": "v", "hostPath": {"path": "/proc/sys"}}]});
    kubectl.apply(&pod("refused", mounts, machine));
    eventually("why it does not start", || {
        let events = kubectl.ok(&["events", "--for", "pod/refused"]);
        let why = "cannot be mounted with a Pod's own users";
        events.contains(why).then_some(()).ok_or(events)
    });

    // A guest has no users, and goes on as ever.
    let guest = sample("hello-http").join("hello-http.wasm");
    cluster.coracle(&["push", guest.to_str().unwrap(), "hello:v1"]);
    let spec = json!({"hostUsers": false, "containers": [{"name": "main", "image": "hello:v1"}]});
    let guest =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "guest"}, "spec": spec});
    kubectl.apply(&guest.to_string());
    running(&kubectl, "guest");
    kubectl.ok(&["delete", "pod", "--all", "--timeout=60s"]);
}
