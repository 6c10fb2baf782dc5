#![allow(clippy::unwrap_used)]

use std::time::UNIX_EPOCH;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::*;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn container(name: &str, at_seconds: u64, cpu_millis: u64, memory_bytes: u64) -> ContainerUse {
    ContainerUse {
        name: name.to_owned(),
        started: Some(at(50)),
        used: Use {
            at: at(at_seconds),
            cpu: Duration::from_millis(cpu_millis),
            memory_bytes,
        },
    }
}

fn pod(name: &str, containers: Vec<ContainerUse>) -> PodUse {
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("ns".to_owned()),
            uid: Some(format!("uid-{name}")),
            ..ObjectMeta::default()
        },
        ..Pod::default()
    };
    PodUse {
        pod: Arc::new(pod),
        containers,
    }
}

fn measured() -> Measured {
    Measured {
        node: NodeUse {
            name: "n1".to_owned(),
            booted: Some(at(10)),
            used: Some(Use {
                at: at(101),
                cpu: Duration::from_secs(9),
                memory_bytes: 500,
            }),
            memory_in_use: 700,
            memory_available: 300,
            disk: Some(DiskUse {
                at: at(101),
                capacity: 1000,
                used: 400,
                available: 550,
                inodes: 10,
                inodes_free: 4,
            }),
        },
        pods: vec![
            pod(
                "web",
                vec![container("a", 100, 1500, 10), container("b", 99, 250, 32)],
            ),
            pod("waits", Vec::new()),
        ],
        whole: true,
    }
}

#[test]
fn a_summary_has_the_node_and_its_pods_with_their_containers() {
    let summary = summary::summary(&measured());
    let node = &summary["node"];
    assert_eq!(node["nodeName"], "n1");
    assert_eq!(
        node["cpu"]["usageCoreNanoSeconds"],
        json!(9_000_000_000_u64)
    );
    assert_eq!(node["memory"]["workingSetBytes"], 500);
    assert_eq!(node["memory"]["usageBytes"], 700);
    assert_eq!(node["memory"]["availableBytes"], 300);
    assert_eq!(node["fs"]["inodesUsed"], 6);
    assert_eq!(node["runtime"]["imageFs"]["availableBytes"], 550);
    let web = &summary["pods"][0];
    assert_eq!(web["podRef"]["uid"], "uid-web");
    assert_eq!(web["containers"][1]["name"], "b");
    assert_eq!(web["containers"][0]["startTime"], "1970-01-01T00:00:50Z");
    // A sum is as old as its oldest part.
    assert_eq!(web["cpu"]["time"], "1970-01-01T00:01:39Z");
    assert_eq!(web["cpu"]["usageCoreNanoSeconds"], 1_750_000_000);
    assert_eq!(web["memory"]["workingSetBytes"], 42);
    assert_eq!(summary["pods"][1].get("cpu"), None);
}

#[test]
fn metrics_have_the_names_and_labels_that_are_asked_for() {
    let text = exposition::resource(&measured());
    for line in [
        "# TYPE container_cpu_usage_seconds_total counter",
        "container_cpu_usage_seconds_total{container=\"a\",namespace=\"ns\",pod=\"web\"} 1.5 100000",
        "container_memory_working_set_bytes{container=\"b\",namespace=\"ns\",pod=\"web\"} 32 99000",
        "container_start_time_seconds{container=\"a\",namespace=\"ns\",pod=\"web\"} 50 100000",
        "node_cpu_usage_seconds_total 9 101000",
        "node_memory_working_set_bytes 500 101000",
        "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"web\"} 1.75 99000",
        "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"web\"} 42 99000",
        "resource_scrape_error 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(!text.contains("waits"));
    let partly = Measured {
        whole: false,
        ..measured()
    };
    assert!(exposition::resource(&partly).ends_with("resource_scrape_error 1\n"));

    let text = exposition::cadvisor(&measured(), 2, 4096);
    for line in [
        "container_cpu_usage_seconds_total{cpu=\"total\",container=\"a\",namespace=\"ns\",pod=\"web\"} 1.5 100000",
        "machine_cpu_cores 2",
        "machine_memory_bytes 4096",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}
