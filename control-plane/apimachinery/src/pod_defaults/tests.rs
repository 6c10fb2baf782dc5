//! Tables for the defaults of Pods.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;

#[test]
fn a_small_pod_reads_back_in_full() {
    let mut pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "a"},
        "spec": {
            "serviceAccount": "sa",
            "containers": [{
                "name": "c", "image": "app:v1",
                "ports": [{"containerPort": 8080}],
                "env": [
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                    {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                ],
                "resources": {"limits": {"cpu": 1, "memory": "1024Mi"}, "requests": {"cpu": "100m"}},
                "readinessProbe": {"httpGet": {"port": 8080}},
            }],
            "volumes": [{"name": "tmp"}, {"name": "m", "configMap": {"name": "m"}}],
        },
    }))
    .unwrap();
    set_pod_defaults(&mut pod);
    let once = pod.clone();
    set_pod_defaults(&mut pod);
    assert_eq!(pod, once, "setting defaults again changes nothing");
    assert_eq!(
        serde_json::to_value(&pod).unwrap(),
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a"},
            "spec": {
                "serviceAccount": "sa", "serviceAccountName": "sa",
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
                "containers": [{
                    "name": "c", "image": "app:v1", "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    "env": [
                        {"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
                        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"divisor": "0", "resource": "limits.cpu"}}},
                    ],
                    "resources": {
                        "limits": {"cpu": "1", "memory": "1Gi"},
                        "requests": {"cpu": "100m", "memory": "1Gi"},
                    },
                    "readinessProbe": {
                        "httpGet": {"port": 8080, "path": "/", "scheme": "HTTP"},
                        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
                    },
                }],
                "volumes": [
                    {"name": "tmp", "emptyDir": {}},
                    {"name": "m", "configMap": {"name": "m", "defaultMode": 420}},
                ],
            },
            "status": {"phase": "Pending"},
        })
    );
}

#[test]
fn a_whole_pod_asks_for_what_its_containers_do() {
    let container = json!({
        "name": "c", "image": "app:v1",
        "resources": {"requests": {"cpu": "1"}, "limits": {"hugepages-2Mi": "4Mi"}},
    });
    let table = [
        (
            json!({"limits": {"cpu": "8", "memory": "1Gi"}}),
            json!({
                "limits": {"cpu": "8", "memory": "1Gi", "hugepages-2Mi": "4Mi"},
                "requests": {"cpu": "1", "memory": "1Gi", "hugepages-2Mi": "4Mi"},
            }),
        ),
        (
            json!({"requests": {"cpu": "2", "hugepages-2Mi": "8Mi"}}),
            json!({
                "requests": {"cpu": "2", "hugepages-2Mi": "8Mi"},
            }),
        ),
        (json!({}), json!({})),
    ];
    for (resources, want) in table {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {},
            "spec": {"containers": [container], "resources": resources},
        }))
        .unwrap();
        set_pod_defaults(&mut pod);
        let got = serde_json::to_value(pod.spec.unwrap().resources).unwrap();
        assert_eq!(got, want);
    }
}

#[test]
fn addresses_agree_and_no_grace_is_negative() {
    let table = [
        (json!({"podIP": "10.0.0.1"}), json!([{"ip": "10.0.0.1"}])),
        (
            json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
            json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]),
        ),
        (
            json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}]}),
            json!([{"ip": "10.0.0.1"}]),
        ),
    ];
    for (status, want) in table {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {},
            "spec": {"containers": [], "terminationGracePeriodSeconds": -1},
            "status": status,
        }))
        .unwrap();
        set_pod_defaults(&mut pod);
        let status = pod.status.unwrap();
        assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
        assert_eq!(serde_json::to_value(status.pod_ips).unwrap(), want);
        assert_eq!(pod.spec.unwrap().termination_grace_period_seconds, Some(1));
    }
}

#[test]
fn pull_policies() {
    let table = [
        ("app", "Always"),
        ("app:latest", "Always"),
        ("App", "IfNotPresent"),
        ("localhost:5000/app", "Always"),
        ("localhost:5000/app:v1", "IfNotPresent"),
        ("app@sha256:00", "IfNotPresent"),
        ("app:latest@sha256:00", "Always"),
        ("", "IfNotPresent"),
    ];
    for (image, want) in table {
        assert_eq!(pull_policy(image), want, "{image}");
    }
}
