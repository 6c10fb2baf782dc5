//! test/e2e/common/node: runtime.go, containers.go, init_container.go, kubelet.go, image_volume.go
//! and kubelet_etc_hosts.go: what containers are given, and how they end.

use serde_json::{Value, json};

use super::shared::{IDLE, Place, place, pod};
use crate::cluster::busybox::push_image;
use crate::cluster::eventually;

const TERMINATED: &str = ".status.containerStatuses[0].state.terminated";

/// Runs a container to its end, which is to be good: the message that it has left.
fn message(place: &Place, mut pod: Value) -> String {
    pod["restartPolicy"] = json!("Never");
    place.make("Pod", "ends", &pod);
    place.wait_value(&["pod", "ends"], ".status.phase", "Succeeded");
    place.value(&["pod", "ends"], &format!("{TERMINATED}.message"))
}

/// Must: what a container that succeeds has written to its file is its message, and not what it said.
#[test]
fn container_runtime_blackbox_test_on_terminated_container_should_report_termination_message_from_file_when_pod_succeeds_and_terminationmessagepolicy_fallbacktologsonerror_is_set()
 {
    let Some(place) = place() else { return };
    let mut pod = pod("echo said; printf OK > /dev/termination-log");
    pod["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    assert_eq!(message(&place, pod), "OK");
}

/// Must: what a container of another user than root has written to the file that it names is its
/// message.
#[test]
fn container_runtime_blackbox_test_on_terminated_container_should_report_termination_message_if_terminationmessagepath_is_set_as_non_root_user_and_at_a_non_default_path()
 {
    let Some(place) = place() else { return };
    let mut pod = pod("test $(id -u) = 1000 && printf DONE > /dev/termination-custom-log");
    pod["containers"][0]["terminationMessagePath"] = json!("/dev/termination-custom-log");
    pod["containers"][0]["securityContext"] = json!({"runAsUser": 1000});
    assert_eq!(message(&place, pod), "DONE");
}

/// Must: a container that ends is started again where the policy is Always: here after a failure,
/// and after it has succeeded.
/// Must: where it is OnFailure that is so only after a failure.
/// Must: where it is Never it is never so.
/// Must: the counts, phases, readiness and states are accordingly.
#[test]
fn container_runtime_blackbox_test_when_starting_a_container_that_exits_should_run_with_the_expected_status()
 {
    let Some(place) = place() else { return };
    // How often it has been started is in a volume, which outlives it.
    let cases = [
        (
            "always",
            "Always",
            "case $count in 1) exit 1;; 2) exit 0;; esac; trap exit TERM; while true; do sleep 0.1; done",
            ("Running", "2", "True", "running"),
        ),
        (
            "on-failure",
            "OnFailure",
            "case $count in 1) exit 1;; esac; exit 0",
            ("Succeeded", "1", "False", "terminated"),
        ),
        (
            "never",
            "Never",
            "exit 1",
            ("Failed", "0", "False", "terminated"),
        ),
    ];
    for (name, policy, end, _) in cases {
        let script = format!("echo >> /count/starts; count=$(wc -l < /count/starts); {end}");
        let mut pod = pod(&script);
        pod["restartPolicy"] = json!(policy);
        pod["volumes"] = json!([{"name": "count", "emptyDir": {}}]);
        pod["containers"][0]["volumeMounts"] = json!([{"name": "count", "mountPath": "/count"}]);
        place.make("Pod", name, &pod);
    }
    for (name, _, _, (phase, restarts, ready, state)) in cases {
        let pod = ["pod", name];
        // A Pod that restarts runs between the restarts as well.
        place.wait_value(&pod, ".status.containerStatuses[0].restartCount", restarts);
        place.wait_value(&pod, ".status.phase", phase);
        let condition = r#".status.conditions[?(@.type=="Ready")].status"#;
        place.wait_value(&pod, condition, ready);
        let states = place.value(&pod, ".status.containerStatuses[0].state");
        let states: Value = serde_json::from_str(&states).unwrap();
        assert!(states.get(state).is_some(), "{name}: {states}");
        let count = place.value(&pod, ".status.containerStatuses[0].restartCount");
        assert_eq!(count, restarts, "{name}");
    }
}

/// What a container of an image says that says, by itself, `entrypoint default arguments`.
fn said(more: &Value) -> Option<String> {
    let place = place()?;
    let mut container = more.clone();
    container["name"] = json!("main");
    container["image"] = json!("speaker:v1");
    let spec = json!({"restartPolicy": "Never", "containers": [container]});
    place.make("Pod", "speaks", &spec);
    place.wait_value(&["pod", "speaks"], ".status.phase", "Succeeded");
    Some(place.ok(&["logs", "speaks"]))
}

/// Must: a container without a command and arguments runs those of its image.
#[test]
fn containers_should_use_the_image_defaults_if_command_and_args_are_blank() {
    let said = said(&json!({}));
    assert!(said.is_none_or(|said| said == "entrypoint default arguments\n"));
}

/// Must: a container without a command runs that of its image.
/// Must: its arguments take the place of the image's.
#[test]
fn containers_should_be_able_to_override_the_image_s_default_arguments_container_cmd() {
    let said = said(&json!({"args": ["override", "arguments"]}));
    assert!(said.is_none_or(|said| said == "entrypoint override arguments\n"));
}

/// Must: the image's command is not used where the container has one, nor are its arguments.
/// Must: the container's is run.
#[test]
fn containers_should_be_able_to_override_the_image_s_default_command_container_entrypoint() {
    let said = said(&json!({"command": ["echo", "override"]}));
    assert!(said.is_none_or(|said| said == "override\n"));
}

/// Must: neither the image's command nor its arguments are used where the container has both.
/// Must: the container's are.
#[test]
fn containers_should_be_able_to_override_the_image_s_default_command_and_arguments() {
    let said = said(&json!({"command": ["echo", "override"], "args": ["more"]}));
    assert!(said.is_none_or(|said| said == "override more\n"));
}

/// Must: where an init container fails again and again, those after it and the container of the Pod
/// are never started, and the Pod is pending.
#[test]
fn initcontainer_should_not_start_app_containers_if_init_containers_fail_on_a_restartalways_pod() {
    let Some(place) = place() else { return };
    let mut spec = pod("exit 0");
    let container = |name: &str, script: &str| json!({"name": name, "image": "busybox:v1", "command": ["sh", "-c", script]});
    spec["initContainers"] = json!([container("init1", "exit 1"), container("init2", "exit 0")]);
    place.make("Pod", "initialized", &spec);
    let initialized = ["pod", "initialized"];
    let restarts = ".status.initContainerStatuses[0].restartCount";
    place.wait_value(&initialized, restarts, "2");
    let status = place.value(&initialized, ".status");
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["phase"], "Pending");
    for later in [
        &status["initContainerStatuses"][1],
        &status["containerStatuses"][0],
    ] {
        assert_eq!(
            later["state"]["waiting"]["reason"], "PodInitializing",
            "{later}"
        );
        assert_eq!(later["restartCount"], 0, "{later}");
    }
    let condition = r#".status.conditions[?(@.type=="Initialized")]"#;
    let condition: Value = serde_json::from_str(&place.value(&initialized, condition)).unwrap();
    assert_eq!(condition["status"], "False");
    assert_eq!(condition["reason"], "ContainersNotInitialized");
    let message = "containers with incomplete status: [init1 init2]";
    assert_eq!(condition["message"], message);
}

/// Must: a container whose root is to be read alone cannot write to it.
#[test]
fn kubelet_when_scheduling_a_read_only_busybox_container_should_not_write_to_root_filesystem() {
    let Some(place) = place() else { return };
    let mut pod = pod("echo test > /file; sleep 240");
    pod["containers"][0]["securityContext"] = json!({"readOnlyRootFilesystem": true});
    place.make("Pod", "writes", &pod);
    place.wait_value(&["pod", "writes"], ".status.phase", "Running");
    eventually("the complaint", || {
        let said = place.ok(&["logs", "writes"]);
        let refused = said.contains("can't create /file: Read-only file system");
        refused.then_some(()).ok_or(said)
    });
}

/// Must: what a Pod has of hostAliases is in its containers' /etc/hosts.
#[test]
fn kubelet_when_scheduling_an_agnhost_pod_with_hostaliases_should_write_entries_to_etc_hosts() {
    let Some(place) = place() else { return };
    let mut pod = pod("cat /etc/hosts");
    pod["restartPolicy"] = json!("Never");
    pod["hostAliases"] = json!([{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]);
    place.make("Pod", "aliased", &pod);
    place.wait_value(&["pod", "aliased"], ".status.phase", "Succeeded");
    let hosts = place.ok(&["logs", "aliased"]);
    super::has_lines(&hosts, &["123.45.67.89\tfoo\tbar"]);
}

/// Must: /etc/hosts of a Pod with a network of its own is the kubelet's.
/// Must: in a container of such a Pod that mounts the machine's it is the machine's.
/// Must: that of a Pod on the machine's network is the machine's.
#[test]
fn kubeletmanagedetchosts_should_test_kubelet_managed_etc_hosts_file() {
    let Some(place) = place() else { return };
    let mut own = pod(IDLE);
    let mut mounting = own["containers"][0].clone();
    mounting["name"] = json!("mounting");
    mounting["volumeMounts"] = json!([{"name": "hosts", "mountPath": "/etc/hosts"}]);
    own["containers"].as_array_mut().unwrap().push(mounting);
    own["volumes"] = json!([{"name": "hosts", "hostPath": {"path": "/etc/hosts", "type": "File"}}]);
    place.make("Pod", "own", &own);
    let mut on_machine = pod(IDLE);
    on_machine["hostNetwork"] = json!(true);
    place.make("Pod", "machine", &on_machine);
    place.wait_ready(&["own", "machine"]);
    let machine = std::fs::read_to_string("/etc/hosts").unwrap();
    let hosts = |pod: &str, container: &str| {
        place.ok(&["exec", pod, "-c", container, "--", "cat", "/etc/hosts"])
    };
    const MANAGED: &str = "# Kubernetes-managed hosts file.";
    let managed = hosts("own", "main");
    assert!(managed.starts_with(MANAGED), "{managed}");
    assert!(managed.contains(&place.address("own")), "{managed}");
    assert_eq!(hosts("own", "mounting"), machine);
    let of_machine = hosts("machine", "main");
    assert!(!of_machine.contains(MANAGED), "{of_machine}");
    assert!(of_machine.ends_with(&machine), "{of_machine}");
}

/// Must: the files of an image that is a volume are read in a container, all of them or what is below
/// a path.
/// Must: they are neither written nor run.
#[test]
fn imagevolume_should_succeed_with_pod_and_pull_policy_of_always() {
    let Some(place) = place() else { return };
    let files = place.cluster.folder().join("files");
    std::fs::create_dir_all(files.join("etc")).unwrap();
    std::fs::write(files.join("data.json"), "{\"a\": 1}\n").unwrap();
    std::fs::write(files.join("etc/os-release"), "ID=files\n").unwrap();
    std::os::unix::fs::symlink("/etc/os-release", files.join("release")).unwrap();
    std::fs::copy("/bin/busybox", files.join("run")).unwrap();
    push_image(&place.cluster, &files, "files:v1", &json!({}));
    let mut pod = pod(IDLE);
    let image = json!({"reference": "files:v1", "pullPolicy": "Always"});
    pod["volumes"] = json!([{"name": "files", "image": image}]);
    pod["containers"][0]["volumeMounts"] = json!([
        {"name": "files", "mountPath": "/volume"},
        {"name": "files", "mountPath": "/below", "subPath": "etc"},
        {"name": "files", "mountPath": "/one", "subPath": "release"},
    ]);
    place.make("Pod", "mounting", &pod);
    place.wait_ready(&["mounting"]);
    for (path, holds) in [
        ("/volume/data.json", "{\"a\": 1}\n"),
        ("/volume/etc/os-release", "ID=files\n"),
        ("/below/os-release", "ID=files\n"),
        ("/one", "ID=files\n"),
    ] {
        assert_eq!(
            place.shell("mounting", &format!("cat {path}")),
            holds,
            "{path}"
        );
    }
    for (act, why) in [
        ("echo > /volume/new", "Read-only file system"),
        ("echo > /below/os-release", "Read-only file system"),
        ("/volume/run true", "Permission denied"),
    ] {
        let refused = place.try_shell("mounting", act).unwrap_err();
        assert!(refused.contains(why), "{act}: {refused}");
    }
}
