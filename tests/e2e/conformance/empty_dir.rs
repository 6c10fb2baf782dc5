//! test/e2e/common/storage/empty_dir.go and test/e2e/storage/empty_dir_wrapper.go: folders that
//! begin empty, on disk and in memory, as the processes of containers find them.

use serde_json::{Value, json};

use super::outputs::{NAME, container, output_with, wait_for_phase};
use super::shared::{IDLE, place};
use crate::cluster::eventually;

fn disk() -> Value {
    json!({"emptyDir": {}})
}

fn memory() -> Value {
    json!({"emptyDir": {"medium": "Memory"}})
}

/// The Pod's `securityContext`. Labels of SELinux mean nothing where it is not enabled.
fn user(id: u32) -> Value {
    let mut user = json!({"seLinuxOptions": {"level": "s0"}});
    if id != ROOT {
        user["runAsUser"] = json!(id);
    }
    user
}

const ROOT: u32 = 0;
const NON_ROOT: u32 = 1001;

/// What the kernel calls the volume's file system, where that is a matter of the volume.
fn kind(volume: &Value) -> &'static str {
    if volume["emptyDir"]["medium"] == "Memory" {
        "; stat -f -c %T ."
    } else {
        ""
    }
}

/// A user makes a file in the volume: its mode, its content, and whose it is.
#[track_caller]
fn holds(volume: Value, id: u32, mode: &str, wanted: &str) {
    let Some(place) = place() else {
        return;
    };
    let script = format!(
        "cd /volume; umask 0; echo new file > file; chmod {mode} file; stat -c '%A %u' file; cat \
         file{}",
        kind(&volume)
    );
    let in_memory = if kind(&volume).is_empty() {
        ""
    } else {
        "tmpfs\n"
    };
    let said = output_with(&place, &script, volume, user(id));
    assert_eq!(said, format!("{wanted} {id}\nnew file\n{in_memory}"));
}

/// Everybody may do anything in the volume itself.
#[track_caller]
fn is_open(volume: Value) {
    let Some(place) = place() else {
        return;
    };
    let script = format!("cd /volume; stat -c %A .{}", kind(&volume));
    let in_memory = if kind(&volume).is_empty() {
        ""
    } else {
        "tmpfs\n"
    };
    let said = output_with(&place, &script, volume, user(ROOT));
    assert_eq!(said, format!("drwxrwxrwx\n{in_memory}"));
}

/// Must: a volume has the mode 0777.
#[test]
fn emptydir_volumes_volume_on_default_medium_should_have_the_correct_mode() {
    is_open(disk());
}

/// Must: a volume has the mode 0777, and is a file system in memory.
#[test]
fn emptydir_volumes_volume_on_tmpfs_should_have_the_correct_mode() {
    is_open(memory());
}

/// Must: a file that root makes in a volume has the mode 0644.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_root_0644_default() {
    holds(disk(), ROOT, "0644", "-rw-r--r--");
}

/// Must: a file that root makes in a volume has the mode 0666.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_root_0666_default() {
    holds(disk(), ROOT, "0666", "-rw-rw-rw-");
}

/// Must: a file that root makes in a volume has the mode 0777.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_root_0777_default() {
    holds(disk(), ROOT, "0777", "-rwxrwxrwx");
}

/// Must: a file that another user makes in a volume has the mode 0644.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_non_root_0644_default() {
    holds(disk(), NON_ROOT, "0644", "-rw-r--r--");
}

/// Must: a file that another user makes in a volume has the mode 0666.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_non_root_0666_default() {
    holds(disk(), NON_ROOT, "0666", "-rw-rw-rw-");
}

/// Must: a file that another user makes in a volume has the mode 0777.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_non_root_0777_default() {
    holds(disk(), NON_ROOT, "0777", "-rwxrwxrwx");
}

/// Must: a file that root makes in a volume in memory has the mode 0644.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_root_0644_tmpfs() {
    holds(memory(), ROOT, "0644", "-rw-r--r--");
}

/// Must: a file that root makes in a volume in memory has the mode 0666.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_root_0666_tmpfs() {
    holds(memory(), ROOT, "0666", "-rw-rw-rw-");
}

/// Must: a file that root makes in a volume in memory has the mode 0777.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_root_0777_tmpfs() {
    holds(memory(), ROOT, "0777", "-rwxrwxrwx");
}

/// Must: a file that another user makes in a volume in memory has the mode 0644.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_non_root_0644_tmpfs() {
    holds(memory(), NON_ROOT, "0644", "-rw-r--r--");
}

/// Must: a file that another user makes in a volume in memory has the mode 0666.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_non_root_0666_tmpfs() {
    holds(memory(), NON_ROOT, "0666", "-rw-rw-rw-");
}

/// Must: a file that another user makes in a volume in memory has the mode 0777.
/// Must: it is read.
#[test]
fn emptydir_volumes_should_support_non_root_0777_tmpfs() {
    holds(memory(), NON_ROOT, "0777", "-rwxrwxrwx");
}

/// Must: a container reads in a volume what another one of its Pod has put there.
#[test]
fn emptydir_volumes_pod_should_support_shared_volumes_between_containers() {
    let Some(place) = place() else {
        return;
    };
    let mounted = |name: &str, script: &str, path: &str| {
        let mut container = container(script);
        container["name"] = json!(name);
        container["volumeMounts"] = json!([{"name": "shared-data", "mountPath": path}]);
        container
    };
    let pod = json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": [
            mounted("main", IDLE, "/usr/share/volumeshare"),
            mounted("sub", "echo Hello > /pod-data/shareddata.txt", "/pod-data"),
        ],
        "volumes": [{"name": "shared-data", "emptyDir": {}}],
    });
    place.make("Pod", NAME, &pod);
    wait_for_phase(&place, "Running");
    let script = "cat /usr/share/volumeshare/shareddata.txt";
    place.shell_until(NAME, script, |said| said == "Hello\n");
}

const MAPS: usize = 50;
const PODS: usize = 5;
const ROUNDS: usize = 3;

/// Must: no Pod of many with many ConfigMaps as volumes fails while it waits for them.
#[test]
fn emptydir_wrapper_volumes_should_not_cause_race_condition_when_used_for_configmaps() {
    let Some(place) = place() else {
        return;
    };
    let name = |number: usize| format!("racey-configmap-{number}");
    let maps = (0..MAPS).map(|number| {
        let metadata = json!({"name": name(number)});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
            "data": {"data-1": "value-1"}})
    });
    super::create(
        &place,
        &json!({"kind": "List", "items": maps.collect::<Value>()}),
    );
    let volumes = (0..MAPS).map(|number| {
        let items = json!([{"key": "data-1", "path": "data-1"}]);
        json!({"name": name(number), "configMap": {"name": name(number), "items": items}})
    });
    let mounts = (0..MAPS)
        .map(|number| json!({"name": name(number), "mountPath": format!("/etc/config-{number}")}));
    let mut container = container(IDLE);
    container["volumeMounts"] = mounts.collect();
    let labels = json!({"name": "race"});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "race"},
        "spec": {"replicas": PODS, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [container], "volumes": volumes.collect::<Value>(),
                "terminationGracePeriodSeconds": 0, "dnsPolicy": "Default"},
        }},
    });
    for _ in 0..ROUNDS {
        place.apply(&set.to_string());
        let ready = PODS.to_string();
        place.wait_value(&["replicaset", "race"], ".status.readyReplicas", &ready);
        place.ok(&["delete", "replicaset", "race"]);
        eventually("the end of the Pods", || {
            let left = place.ok(&["get", "pods", "-o", "name"]);
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
    let failed = ["get", "events", "--field-selector", "reason=FailedMount"];
    let failed = place.ok(&failed);
    assert_eq!(failed, "");
}
