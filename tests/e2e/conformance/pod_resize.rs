//! test/e2e/common/node/pod_resize.go: CPU and memory of containers that run are changed.
//!
//! Each resize is done and, where upstream does so, taken back: spec, status and control groups are
//! looked at before and after each, and that nothing was restarted.

use serde_json::{Value, json};

use super::create;
use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::{Cluster, Kubectl, eventually};

const POD: [&str; 2] = ["pod", "resized"];

/// A container's CPU request and limit in thousandths of a core, and its memory's in MiB; none is 0.
type Amounts = (u64, u64, u64, u64);

/// The same for both.
fn guaranteed(cpu: u64, memory: u64) -> Amounts {
    (cpu, cpu, memory, memory)
}

/// As a container's resources.
fn resources((cpu_request, cpu_limit, memory_request, memory_limit): Amounts) -> Value {
    let mut of = json!({});
    for (list, cpu, memory) in [
        ("requests", cpu_request, memory_request),
        ("limits", cpu_limit, memory_limit),
    ] {
        if cpu > 0 {
            of[list]["cpu"] = json!(format!("{cpu}m"));
        }
        if memory > 0 {
            of[list]["memory"] = json!(format!("{memory}Mi"));
        }
    }
    of
}

/// Containers `c1` and so on.
fn named(amounts: &[Amounts]) -> impl Iterator<Item = (String, &Amounts)> {
    let numbered = amounts.iter().enumerate();
    numbered.map(|(index, of)| (format!("c{}", index + 1), of))
}

/// A running Pod of containers with these.
fn pod_with(kubectl: &Kubectl, amounts: &[Amounts]) {
    let containers = named(amounts).map(|(name, of)| {
        json!({
            "name": name, "image": "busybox:v1", "resources": resources(*of),
            "command": ["sh", "-c", "while true; do sleep 1; done"],
        })
    });
    let containers: Vec<Value> = containers.collect();
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": containers});
    let metadata = json!({"name": POD[1]});
    create(
        kubectl,
        &json!({"kind": "Pod", "metadata": metadata, "spec": spec}),
    );
    kubectl.wait_value(&POD, ".status.phase", "Running");
    is_resized(kubectl, amounts);
}

fn get(kubectl: &Kubectl, subresource: &str) -> Value {
    let path = format!("/api/v1/namespaces/default/pods/{}{subresource}", POD[1]);
    serde_json::from_str(&kubectl.ok(&["get", "--raw", &path])).unwrap()
}

/// The spec has these.
fn is_wanted(pod: &Value, amounts: &[Amounts]) {
    for (index, (_, of)) in named(amounts).enumerate() {
        assert_eq!(
            pod["spec"]["containers"][index]["resources"],
            resources(*of)
        );
    }
}

/// Memory limit in bytes, the CPU's in microseconds of 100 milliseconds, both 0 if there is none, and
/// its shares or weight: what the control group of a container says.
fn cgroup(kubectl: &Kubectl, container: &str) -> (u64, u64, u64) {
    let script = "cd /sys/fs/cgroup
        if test -e memory.max; then cat memory.max cpu.weight cpu.max
        else cat memory/memory.limit_in_bytes cpu*/cpu.shares cpu*/cpu.cfs_quota_us; fi";
    let said = kubectl.ok(&["exec", POD[1], "-c", container, "--", "sh", "-c", script]);
    let values: Vec<&str> = said.split_whitespace().collect();
    let number = |text: &str| text.parse::<u64>().ok().filter(|value| *value < 1 << 60);
    let number = |text: &str| number(text).unwrap_or(0);
    (number(values[0]), number(values[2]), number(values[1]))
}

/// What a control group is to say.
fn expected((request, limit, _, memory): Amounts) -> (u64, u64, u64) {
    let request = if request > 0 { request } else { limit };
    let shares = (request * 1024 / 1000).max(2);
    let quota = if limit > 0 {
        (limit * 100).max(1000)
    } else {
        0
    };
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let weight = if unified {
        // As runtimes weigh containers since runc 1.3.2.
        let log = (shares as f64).log2();
        let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
        (10f64.powf(exponent).ceil() as u64).max(1)
    } else {
        shares
    };
    (memory << 20, quota, weight)
}

/// The containers have these, and nothing was restarted for it.
fn is_resized(kubectl: &Kubectl, amounts: &[Amounts]) {
    eventually("the resize is done", || {
        let pod = get(kubectl, "");
        let status = &pod["status"];
        let conditions = status["conditions"].as_array().unwrap();
        let on_the_way = |of: &Value| of["type"].as_str().unwrap().starts_with("PodResize");
        let mut done = !conditions.iter().any(on_the_way);
        done &= status["observedGeneration"] == pod["metadata"]["generation"];
        for (index, (name, of)) in named(amounts).enumerate() {
            let (status, wanted) = (&status["containerStatuses"][index], resources(*of));
            done &= status["name"] == *name && status["resources"] == wanted;
            done &= status["allocatedResources"] == wanted["requests"];
        }
        done.then_some(()).ok_or(status.to_string())
    });
    for (index, (name, of)) in named(amounts).enumerate() {
        let pod = get(kubectl, "");
        assert_eq!(pod["status"]["containerStatuses"][index]["restartCount"], 0);
        assert_eq!(cgroup(kubectl, &name), expected(*of), "{name}");
    }
}

/// Has the containers resized by a patch.
fn patch(kubectl: &Kubectl, amounts: &[Amounts]) {
    let containers = named(amounts).map(|(name, of)| {
        let resources = resources(*of);
        json!({"name": name, "resources": resources})
    });
    let containers: Vec<Value> = containers.collect();
    let patch = json!({"spec": {"containers": containers}}).to_string();
    kubectl.ok(&["patch", "pod", POD[1], "--subresource=resize", "-p", &patch]);
    is_wanted(&get(kubectl, ""), amounts);
    is_resized(kubectl, amounts);
}

fn patched_and_rolled_back(before: &[Amounts], after: &[Amounts]) {
    let Some((_cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    pod_with(&kubectl, before);
    patch(&kubectl, after);
    patch(&kubectl, before);
}

/// Three containers, as upstream offsets them.
const THREE: [Amounts; 3] = [(20, 20, 35, 35), (22, 22, 37, 37), (24, 24, 39, 39)];

/// Must: the containers of a running Pod have what its spec says, also by their control groups.
/// Must: a patch of the subresource that raises CPU and memory of two and lowers them of the third is
/// taken, and the spec says so.
/// Must: spec, status and control groups say so then, without a restart.
/// Must: the same holds of a patch that takes it back.
#[test]
fn pod_inplace_resize_container_guaranteed_pods_with_multiple_containers_3_containers_increase_cpu_mem_on_c1_c2_decrease_cpu_mem_on_c3_net_increase()
 {
    let after = [guaranteed(25, 40), guaranteed(27, 42), guaranteed(19, 34)];
    patched_and_rolled_back(&THREE, &after);
}

/// Must: the containers of a running Pod have what its spec says, also by their control groups.
/// Must: a patch of the subresource that raises CPU and memory of one and lowers them of two others is
/// taken, and the spec says so.
/// Must: spec, status and control groups say so then, without a restart.
/// Must: the same holds of a patch that takes it back.
#[test]
fn pod_inplace_resize_container_guaranteed_pods_with_multiple_containers_3_containers_increase_cpu_mem_on_c1_decrease_cpu_mem_on_c2_c3_net_decrease()
 {
    let after = [guaranteed(25, 40), guaranteed(17, 32), guaranteed(19, 34)];
    patched_and_rolled_back(&THREE, &after);
}

/// Must: the containers of a running Pod have what its spec says, also by their control groups.
/// Must: a patch of the subresource that raises CPU of two and memory of two, and lowers CPU of one, is
/// taken, and the spec says so.
/// Must: spec, status and control groups say so then, without a restart.
/// Must: the same holds of a patch that takes it back.
#[test]
fn pod_inplace_resize_container_guaranteed_pods_with_multiple_containers_3_containers_increase_cpu_c1_c3_memory_c2_c3_decrease_cpu_c2()
 {
    let after = [guaranteed(25, 35), guaranteed(17, 42), guaranteed(29, 44)];
    patched_and_rolled_back(&THREE, &after);
}

/// Must: a patch of the subresource that changes requests of five containers, and adds requests and
/// limits, is done as it says: spec, status and control groups say so, without a restart.
#[test]
fn pod_inplace_resize_container_burstable_pods_extended_6_containers_various_operations_performed_including_adding_limits_and_requests()
 {
    let Some((_cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    let before = [
        (20, 0, 0, 0),
        (0, 0, 35, 0),
        (20, 0, 35, 0),
        (20, 0, 0, 0),
        (0, 0, 35, 0),
    ];
    let after = [
        (25, 35, 0, 0),
        (0, 0, 30, 50),
        (20, 0, 30, 0),
        (15, 0, 35, 0),
        (20, 0, 40, 0),
    ];
    pod_with(&kubectl, &before);
    patch(&kubectl, &after);
}

/// Must: CPU that is resized to what is the same to the kernel is shown by the status as it was asked
/// for.
/// Must: so it is when that is taken back.
#[test]
fn pod_inplace_resize_container_burstable_pods_extended_resize_with_equivalents() {
    patched_and_rolled_back(&[(2, 10, 0, 0)], &[(1, 5, 0, 0)]);
}

/// Must: an update of the subresource changes the Pod's spec, whose generation is then 2, and is done.
/// Must: the Pod that is read from the subresource then equals the Pod.
#[test]
fn pod_inplace_resize_container_resize_pod_via_the_replace_endpoint() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        return;
    };
    replaced(&cluster, &kubectl);
}

fn replaced(cluster: &Cluster, kubectl: &Kubectl) {
    let after = [(25, 0, 40, 0)];
    pod_with(kubectl, &[(20, 0, 35, 0)]);
    let mut pod = get(kubectl, "");
    assert_eq!(pod["metadata"]["generation"], 1);
    pod["spec"]["containers"][0]["resources"] = resources(after[0]);
    // The kubelet reports the Pod meanwhile: an update of an older state is no matter here.
    pod["metadata"]["resourceVersion"].take();
    let file = cluster.folder().join("update.json");
    std::fs::write(&file, pod.to_string()).unwrap();
    let path = format!("/api/v1/namespaces/default/pods/{}/resize", POD[1]);
    kubectl.ok(&["replace", "--raw", &path, "-f", file.to_str().unwrap()]);
    let pod = get(kubectl, "");
    is_wanted(&pod, &after);
    assert_eq!(pod["metadata"]["generation"], 2);
    is_resized(kubectl, &after);
    eventually("the same Pod by both ways", || {
        let (pod, resized) = (get(kubectl, ""), get(kubectl, "/resize"));
        (pod == resized)
            .then_some(())
            .ok_or(format!("{pod}\n{resized}"))
    });
}
