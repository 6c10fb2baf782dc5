//! Tables for what is allocated and what follows from it.
#![allow(clippy::unwrap_used)]

use std::time::SystemTime;

use coracle_runtime::{ContainerConfig, ContainerState, SandboxId};
use serde_json::{Value, json};

use super::*;

/// A Pod of containers with these resources, named `c0` and so on.
fn pod(resources: &[Value]) -> Pod {
    let containers: Vec<Value> = resources
        .iter()
        .enumerate()
        .map(|(index, of)| json!({"name": format!("c{index}"), "resources": of}))
        .collect();
    let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": containers}});
    serde_json::from_value(pod).unwrap()
}

fn both(cpu: &str, memory: &str) -> Value {
    let list = json!({"cpu": cpu, "memory": memory});
    json!({"requests": list, "limits": list})
}

/// All containers of a Pod, running.
fn running(pod: &Pod) -> PodRuntime {
    let mut known = PodRuntime::default();
    for (container, _) in pod::containers(pod) {
        let config = ContainerConfig {
            name: container.name.clone(),
            ..ContainerConfig::default()
        };
        let of = coracle_runtime::Container {
            id: ContainerId(container.name.clone()),
            sandbox: SandboxId("s".to_owned()),
            pod: Default::default(),
            config,
            state: ContainerState::Running {
                started_at: SystemTime::UNIX_EPOCH,
            },
            user: None,
            created_at: SystemTime::UNIX_EPOCH,
        };
        known.put_container("oci", of);
    }
    known
}

/// What is allocated to a Pod whose containers have been started.
fn started(pod: &Pod) -> Allocation {
    let mut allocation = Allocation::of(pod);
    for (container, _) in pod::containers(pod) {
        allocation.actuate(&container.name);
    }
    allocation
}

#[test]
fn a_pod_is_run_with_what_is_allocated() {
    let before = pod(&[both("1", "1Mi")]);
    let mut allocation = started(&before);
    let same = pod(&[both("1000m", "1024Ki")]);
    assert!(!allocation.differs(&same), "however it is written");
    assert!(matches!(allocation.apply(&same), Cow::Borrowed(_)));

    let mut wanted = both("2", "1Mi");
    wanted["requests"]["example.com/x"] = json!("1");
    let wanted = pod(&[wanted]);
    assert!(allocation.differs(&wanted));
    let runs = allocation.apply(&wanted).into_owned();
    let resources = runs.spec.unwrap().containers[0].resources.clone().unwrap();
    let requests = resources.requests.unwrap();
    assert_eq!((requests["cpu"].0.as_str(), requests.len()), ("1", 3));

    allocation.take(&wanted);
    assert!(!allocation.differs(&wanted));
    assert!(allocation.in_progress(&running(&wanted)));
    assert_eq!(
        allocation.actual("c0").unwrap().limits.as_ref().unwrap()["cpu"].0,
        "1"
    );
    allocation.actuate("c0");
    assert!(!allocation.in_progress(&running(&wanted)));
}

#[test]
fn what_a_pod_asks_for_as_a_whole_is_allocated_too() {
    let whole = |cpu: &str| {
        let mut pod = pod(&[json!({})]);
        let resources = serde_json::from_value(both(cpu, "1Mi")).unwrap();
        pod.spec.as_mut().unwrap().resources = Some(resources);
        pod
    };
    let (before, after) = (whole("1"), whole("2"));
    let mut allocation = started(&before);
    assert!(allocation.differs(&after) && !allocation.differs(&before));
    assert_eq!(allocation.apply(&after).spec, before.spec);
    allocation.take(&after);
    let runtime = running(&after);
    assert!(allocation.in_progress(&runtime) && !allocation.is_to_change(&runtime));
    // A container without limits has had the Pod's.
    let updates = allocation.updates(&after, &runtime);
    let limits = updates.iter().map(|of| of.resources.cpu_limit_millis);
    assert_eq!(limits.collect::<Vec<_>>(), [Some(2000)]);
    assert_eq!(allocation.pod_now(&after).cpu_request_millis, Some(1000));
    allocation.actuate_pod(cgroups::resources(&after));
    assert!(!allocation.in_progress(&runtime));
    assert!(allocation.updates(&after, &runtime).is_empty());
    assert_eq!(allocation.pod_now(&after).cpu_request_millis, Some(2000));
}

#[test]
fn what_gives_memory_back_comes_first_and_policies_are_kept() {
    let before = pod(&[
        both("1", "1Mi"),
        both("1", "2Mi"),
        both("1", "1Mi"),
        json!({}),
    ]);
    let mut allocation = started(&before);
    let mut wanted = pod(&[
        both("2", "2Mi"),
        both("1", "1Mi"),
        both("1", "2Mi"),
        json!({}),
    ]);
    let policy = json!([
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "RestartContainer"},
    ]);
    let containers = &mut wanted.spec.as_mut().unwrap().containers;
    containers[2].resize_policy = serde_json::from_value(policy).unwrap();
    allocation.take(&wanted);
    let restarts = pod::containers(&wanted).map(|(container, _)| allocation.restarts(container));
    assert_eq!(restarts.collect::<Vec<_>>(), [false, false, true, false]);
    let updates = allocation.updates(&wanted, &running(&wanted));
    let order = updates.iter().map(|of| (of.name.as_str(), of.lowered));
    let order: Vec<_> = order.collect();
    assert_eq!(order, [("c1", Some(1 << 20)), ("c0", None)]);
    assert_eq!(updates[1].resources.cpu_limit_millis, Some(2000));

    // Only CPU of the third changes: its memory's policy does not matter.
    let mut allocation = started(&before);
    let mut wanted = pod(&[
        both("1", "1Mi"),
        both("1", "2Mi"),
        both("2", "1Mi"),
        json!({}),
    ]);
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let containers = &mut wanted.spec.as_mut().unwrap().containers;
    containers[2].resize_policy = serde_json::from_value(policy).unwrap();
    allocation.take(&wanted);
    assert_eq!(allocation.updates(&wanted, &running(&wanted)).len(), 1);
}

#[test]
fn what_the_api_was_told_is_known_again() {
    let mut pod = pod(&[both("2", "1Mi")]);
    let one = json!({"cpu": "1", "memory": "1Mi"});
    let status = json!({"containerStatuses": [{
        "name": "c0", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "state": {"running": {}}, "allocatedResources": one,
        "resources": {"requests": one, "limits": one},
    }]});
    pod.status = serde_json::from_value(status).unwrap();
    let allocation = Allocation::of(&pod);
    assert!(allocation.differs(&pod));
    assert!(!allocation.in_progress(&running(&pod)));
    let text = serde_json::to_string(&allocation).unwrap();
    assert_eq!(
        serde_json::from_str::<Allocation>(&text).unwrap(),
        allocation
    );
}

#[test]
fn a_pod_has_enough_while_it_changes() {
    let of = |request, cpu, memory| Resources {
        cpu_request_millis: request,
        cpu_limit_millis: cpu,
        memory_limit_bytes: memory,
        ..Resources::default()
    };
    let (a, b) = (of(Some(1), Some(5), Some(9)), of(None, Some(7), Some(3)));
    assert_eq!(larger(&a, &b), of(Some(1), Some(7), Some(9)));
    assert_eq!(
        larger(&a, &of(Some(2), None, None)),
        of(Some(2), None, None)
    );
}
