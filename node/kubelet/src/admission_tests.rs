//! Tables for which Pods the node takes.
#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

fn pod(uid: &str, cpu: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": uid, "uid": uid},
        "spec": {"containers": [
            {"name": "main", "resources": {"requests": {"cpu": cpu}}},
        ]},
    }))
    .unwrap()
}

#[test]
fn under_pressure_only_some_are_taken() {
    use Condition::{DiskPressure, MemoryPressure};
    let tolerant = |key: &str| {
        let mut pod = pod("t", "0");
        let toleration = json!([{"key": key, "operator": "Exists"}]);
        pod.spec.as_mut().unwrap().containers[0].resources = None;
        pod.spec.as_mut().unwrap().tolerations = serde_json::from_value(toleration).unwrap();
        pod
    };
    let mut critical = tolerant("none");
    critical.spec.as_mut().unwrap().priority = Some(2_000_000_000);
    let [none, memory] = ["none", MEMORY_PRESSURE].map(tolerant);
    let burstable = pod("b", "1");
    for (pod, conditions, taken) in [
        (&none, &[][..], true),
        (&none, &[MemoryPressure], false),
        (&memory, &[MemoryPressure], true),
        (&burstable, &[MemoryPressure], true),
        (&burstable, &[DiskPressure], false),
        (&memory, &[DiskPressure, MemoryPressure], false),
        (&critical, &[DiskPressure, MemoryPressure], true),
    ] {
        let conditions: Conditions = conditions.iter().copied().collect();
        let admitted = pressed(pod, false, &conditions);
        assert_eq!(admitted.is_ok(), taken, "{conditions:?}");
        assert!(pressed(pod, true, &conditions).is_ok());
    }
    let both = [DiskPressure, MemoryPressure].into();
    let refused = pressed(&none, false, &both).unwrap_err();
    let text = "The node had condition: [DiskPressure MemoryPressure]. ";
    assert!(refused.message.ends_with(text), "{}", refused.message);
}

#[test]
fn a_pod_that_does_not_fit_is_refused() {
    let allocatable = ResourceList::from([("cpu".to_owned(), "2".parse().unwrap())]);
    let admission = Admission::new(allocatable, 3);
    admission.admit(&pod("a", "1500m"), false).unwrap();
    let refused = admission.admit(&pod("b", "600m"), false).unwrap_err();
    assert_eq!(refused.reason, "OutOfcpu");
    assert!(
        refused
            .message
            .ends_with("requested: 600, used: 1500, capacity: 2000"),
        "{}",
        refused.message
    );
    admission.admit(&pod("b", "600m"), true).unwrap();
    admission.release("a");
    admission.admit(&pod("c", "1"), false).unwrap();
    admission.admit(&pod("d", "0"), false).unwrap();
    let refused = admission.admit(&pod("e", "0"), false).unwrap_err();
    assert_eq!(refused.reason, "OutOfpods");
}

#[test]
fn what_a_node_does_not_know_is_not_counted() {
    let asking = |name: &str| -> Pod {
        let resources = json!({"requests": {name: "2"}, "limits": {name: "2"}});
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "p"},
            "spec": {"containers": [{"name": "main", "resources": resources}]},
        }))
        .unwrap()
    };
    let allocatable = ResourceList::from([("example.com/known".into(), "1".parse().unwrap())]);
    for (name, refused) in [
        ("example.com/other", None),
        ("example.com/known", Some("OutOfexample.com/known")),
        ("memory", Some("OutOfmemory")),
        ("hugepages-2Mi", Some("OutOfhugepages-2Mi")),
    ] {
        let admission = Admission::new(allocatable.clone(), 9);
        let reason = admission.admit(&asking(name), false).err();
        let reason = reason.map(|verdict| verdict.reason);
        assert_eq!(reason.as_deref(), refused, "{name}");
    }
}

#[test]
fn room_to_grow_is_given_in_order() {
    let allocatable = ResourceList::from([("cpu".to_owned(), "4".parse().unwrap())]);
    let admission = Admission::new(allocatable, 9);
    let with = |uid: &str, cpu: &str, priority: i32| {
        let mut pod = pod(uid, cpu);
        pod.spec.as_mut().unwrap().priority = Some(priority);
        pod
    };
    for uid in ["low", "high", "huge", "goes"] {
        admission.admit(&pod(uid, "1"), false).unwrap();
    }
    let reason = |pod: &Pod| admission.resize(pod).err().map(|no_room| no_room.reason);
    let deferred = Some("Deferred");
    assert_eq!(reason(&with("low", "2", 0)), deferred);
    assert_eq!(reason(&with("high", "2", 5)), deferred);
    // It holds nobody up for whom there is room.
    assert_eq!(reason(&with("huge", "4", 9)), deferred);
    admission.release("goes");
    assert_eq!(reason(&with("low", "2", 0)), deferred, "another goes first");
    assert_eq!(reason(&with("huge", "4", 9)), deferred);
    assert_eq!(reason(&with("high", "2", 5)), None);
    assert_eq!(reason(&with("low", "2", 0)), deferred);
    // Who gives something back never waits.
    assert_eq!(reason(&with("huge", "500m", 9)), None);
    assert_eq!(reason(&with("low", "1500m", 0)), None);
    let mut freed = admission.freed();
    assert_eq!(reason(&with("huge", "2", 9)), deferred);
    freed.mark_unchanged();
    admission.withdraw("huge");
    assert!(freed.has_changed().unwrap());
    // Nor does anybody wait for what another wanted before.
    for (wanted, told) in [
        ("2", false),
        ("2", false),
        ("3", true),
        ("3", false),
        ("9", true),
    ] {
        freed.mark_unchanged();
        assert!(reason(&with("huge", wanted, 9)).is_some());
        assert_eq!(freed.has_changed().unwrap(), told, "{wanted}");
    }
}

#[test]
fn a_port_of_the_node_is_one_pods() {
    let asking = |uid: &str, ip: &str| -> Pod {
        let ports = json!([{"containerPort": 80, "hostPort": 80, "hostIP": ip}]);
        serde_json::from_value(json!({
            "metadata": {"name": uid, "uid": uid},
            "spec": {"containers": [{"name": "main", "ports": ports}]},
        }))
        .unwrap()
    };
    let admission = Admission::new(ResourceList::new(), 9);
    admission.admit(&asking("a", "127.0.0.1"), false).unwrap();
    admission.admit(&asking("b", "192.0.2.1"), false).unwrap();
    let refused = admission.admit(&asking("c", ""), false).unwrap_err();
    assert_eq!(refused.reason, "NodePorts");
    assert!(refused.message.ends_with(TAKEN), "{}", refused.message);
    admission.release("a");
    admission.release("b");
    admission.admit(&asking("c", ""), false).unwrap();
}

#[test]
fn nobody_goes_for_what_others_leave_already() {
    type Row = (
        &'static str,
        &'static [&'static str],
        Option<&'static [&'static str]>,
    );

    let allocatable = ResourceList::from([("cpu".to_owned(), "3".parse().unwrap())]);
    let admission = Admission::new(allocatable, 9);
    for (uid, cpu) in [("large", "2"), ("small", "1")] {
        admission.admit(&pod(uid, cpu), false).unwrap();
    }
    // What it asks for, who ends already, who else goes.
    let table: &[Row] = &[
        ("1", &[], Some(&["small"])),
        ("1", &["large"], Some(&[])),
        ("1", &["small"], Some(&[])),
        ("2", &["small"], Some(&["large"])),
        ("3", &["large", "small"], Some(&[])),
        ("4", &["small"], None),
    ];
    for (cpu, ending, expected) in table {
        let mut vital = pod("vital", cpu);
        vital.spec.as_mut().unwrap().priority = Some(2_000_000_000);
        assert!(admission.admit(&vital, false).is_err(), "{cpu}");
        let of = ending.iter().map(|uid| (*uid).to_owned()).collect();
        let found = admission.victims(&vital, &of);
        let expected = expected.map(|uids| uids.iter().map(|uid| (*uid).to_owned()).collect());
        assert_eq!(found, expected, "{cpu} {ending:?}");
    }
    // There is room by now.
    admission.release("large");
    let mut vital = pod("vital", "1");
    vital.spec.as_mut().unwrap().priority = Some(2_000_000_000);
    let found = admission.victims(&vital, &HashSet::new());
    assert_eq!(found, Some(Vec::new()));
}
