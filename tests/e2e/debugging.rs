//! `kubectl debug`: ephemeral containers in Pods of containers and of guests.

use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{Cluster, sample};

const BOX: &str = "
apiVersion: v1
kind: Pod
metadata: {name: box}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:v1
    command: [sh, -c, 'echo secret > /found; sleep 1234567 & while true; do sleep 0.1; done']
";

/// The jsonpath of something of an ephemeral container.
fn of(name: &str, what: &str) -> String {
    format!(".status.ephemeralContainerStatuses[?(@.name==\"{name}\")]{what}")
}

/// `kubectl debug` of the Pod `box` with a container of that name.
fn debug<'a>(name: &'a str, more: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["debug", "box", "--image=busybox:v1", "-c", name];
    [&fixed[..], more, &["--"], command].concat()
}

#[test]
fn kubectl_debug_looks_into_a_pod_of_containers() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    kubectl.apply(BOX);
    let pod = ["pod", "box"];
    let ready = ".status.conditions[?(@.type==\"Ready\")].status";
    kubectl.wait_value(&pod, ready, "True");

    // Beside its target it sees what that runs, and its files.
    let look = ["sh", "-c", "ps; cat /proc/1/root/found; exit 3"];
    kubectl.ok(&debug("look", &["--target=main"], &look));
    kubectl.wait_value(&pod, &of("look", ".state.terminated.exitCode"), "3");
    let logs = kubectl.ok(&["logs", "box", "-c", "look"]);
    assert!(logs.contains("sleep 1234567"), "{logs}");
    assert!(logs.contains("secret"), "{logs}");
    // Without a target it sees nothing of them, but is at the same addresses.
    kubectl.ok(&debug("apart", &[], &["sh", "-c", "ps; echo done"]));
    kubectl.wait_value(&pod, &of("apart", ".state.terminated.exitCode"), "0");
    let logs = kubectl.ok(&["logs", "box", "-c", "apart"]);
    assert!(logs.contains("done") && !logs.contains("1234567"), "{logs}");

    // Who attaches is heard, on a terminal too.
    let fed = kubectl.feed(&debug("fed", &["-i"], &["head", "-n", "1"]), b"hello\n");
    let printed = String::from_utf8_lossy(&fed.stdout);
    assert!(fed.status.success() && printed.contains("hello"), "{fed:?}");
    let script = "n=0; until test \"$(stty size)\" = \"31 97\" || test $n = 300; \
                  do n=$((n+1)); sleep 0.1; done; stty size; echo typed";
    let line = format!("debug -it box --image=busybox:v1 -c typed -- sh -c '{script}'");
    let line = line.as_str();
    let shown = kubectl.on_terminal(31, 97, line);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("31 97") && shown.contains("typed"),
        "{shown}"
    );

    // Of its end the Pod takes no notice, and it never begins again.
    assert_eq!(kubectl.value(&pod, ready), "True");
    assert_eq!(kubectl.value(&pod, ".status.phase"), "Running");
    assert_eq!(kubectl.value(&pod, &of("look", ".restartCount")), "0");
    let restarts = ".status.containerStatuses[0].restartCount";
    assert_eq!(kubectl.value(&pod, restarts), "0");

    // One that runs is found again by the next agent, with those that have ended.
    kubectl.ok(&debug("stays", &[], &["sleep", "1000"]));
    let running = of("stays", ".state.running.startedAt");
    crate::cluster::eventually("it runs", || match kubectl.value(&pod, &running) {
        since if since.is_empty() => Err(since),
        since => Ok(since),
    });
    let ids = ".status.ephemeralContainerStatuses[*].containerID";
    let before = kubectl.value(&pod, ids);
    let address = kubectl.value(&pod, ".status.podIP");
    let range = format!("{}.0.0/16", address.rsplitn(3, '.').last().unwrap());
    let folder = cluster.kill();
    let cluster = Cluster::up_in(folder, &["--cluster-cidr", &range]);
    let kubectl = cluster.kubectl();
    let said = kubectl.ok(&["exec", "box", "-c", "stays", "--", "echo", "found"]);
    assert_eq!(said, "found\n");
    assert_eq!(kubectl.value(&pod, ids), before);

    // It ends with its Pod.
    kubectl.ok(&["delete", "pod", "box", "--timeout=60s"]);
}

#[test]
fn kubectl_debug_runs_guests_beside_guests_and_containers() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    let push = |folder: &str, name: &str| {
        let guest = sample(folder).join(format!("{folder}.wasm"));
        cluster.coracle(&["push", guest.to_str().unwrap(), name]);
    };
    push("hello-http", "hello:v1");
    push("inspect", "inspect:v1");
    kubectl.apply(BOX);
    kubectl.ok(&["run", "guest", "--image=hello:v1", "--port=8080"]);
    let ready = ".status.conditions[?(@.type==\"Ready\")].status";
    for name in ["box", "guest"] {
        let pod = ["pod", name];
        kubectl.wait_value(&pod, ready, "True");
        let of_pod = format!("POD={name}");
        kubectl.ok(&[
            "debug",
            name,
            "--image=inspect:v1",
            "-c",
            "look",
            "--env",
            &of_pod,
        ]);
        kubectl.wait_value(&pod, &of("look", ".state.terminated.exitCode"), "0");
        let logs = kubectl.ok(&["logs", name, "-c", "look"]);
        assert!(logs.contains(&of_pod), "{logs}");
        assert_eq!(kubectl.value(&pod, ready), "True");
    }

    // What would see more than its own Pod is refused, with what can be done.
    let refused = |container: &str, more: &[&str], why: &str| {
        let fixed = ["debug", "guest", "-c", container];
        kubectl.ok(&[&fixed[..], more].concat());
        let pod = ["pod", "guest"];
        let reason = of(container, ".state.waiting.reason");
        kubectl.wait_value(&pod, &reason, "CreateContainerConfigError");
        let message = kubectl.value(&pod, &of(container, ".state.waiting.message"));
        assert!(message.contains(why), "{message}");
    };
    refused("alone", &["--image=busybox:v1"], "kubectl debug --copy-to");
    let target = ["--image=inspect:v1", "--target=guest"];
    refused("aimed", &target, "targetContainerName is not supported");
    assert_eq!(kubectl.value(&["pod", "guest"], ready), "True");
    kubectl.ok(&["delete", "pod", "--all", "--timeout=60s"]);
}
