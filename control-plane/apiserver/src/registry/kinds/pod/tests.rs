//! Tables for Pods: what is refused, what may change, how long they linger.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::validation::testing::assert_causes;

/// A Pod with this spec, on top of one that is well-formed.
fn pod(spec: Value) -> Pod {
    let mut whole = json!({"containers": [{"name": "c", "image": "app:v1"}]});
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    let mut pod =
        serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "b"}, "spec": whole}))
            .unwrap();
    PodStrategy.set_defaults(&mut pod);
    PodStrategy.prepare_for_create(&mut pod);
    pod
}

#[test]
fn a_gated_pod_says_so_from_the_beginning() {
    let reason = |pod: Pod| {
        let condition = pod.status?.conditions?.pop()?;
        assert_eq!(condition.type_, "PodScheduled");
        condition.reason
    };
    let gated = pod(json!({"schedulingGates": [{"name": "example.com/wait"}]}));
    assert_eq!(reason(gated).as_deref(), Some("SchedulingGated"));
    assert_eq!(reason(pod(json!({}))), None);
}

#[test]
fn create() {
    let table: Vec<(Value, Vec<&str>)> = vec![
        (json!({}), vec![]),
        (
            json!({"containers": []}),
            vec!["spec.containers FieldValueRequired"],
        ),
        (
            json!({"containers": [{"name": "", "image": ""}]}),
            vec![
                "spec.containers[0].name FieldValueRequired",
                "spec.containers[0].image FieldValueRequired",
            ],
        ),
        (
            json!({"containers": [{"name": "c", "image": " app"}, {"name": "c", "image": "b"}]}),
            vec![
                "spec.containers[1].name FieldValueDuplicate",
                "spec.containers[0].image FieldValueInvalid must not have leading or trailing whitespace",
            ],
        ),
        (
            json!({"initContainers": [{"name": "c", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]}),
            vec![
                "spec.initContainers[0].name FieldValueDuplicate",
                "spec.initContainers[0].readinessProbe FieldValueForbidden may not be set for init containers",
            ],
        ),
        (
            json!({"initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always", "readinessProbe": {"tcpSocket": {"port": 1}}}]}),
            vec![],
        ),
        (
            json!({"containers": [{"name": "c", "image": "a", "restartPolicy": "Maybe", "imagePullPolicy": "Sometimes"}]}),
            vec![
                "spec.containers[0].imagePullPolicy FieldValueNotSupported",
                "spec.containers[0].restartPolicy FieldValueNotSupported",
            ],
        ),
        (
            json!({"containers": [{"name": "c", "image": "a", "ports": [
                {"containerPort": 80, "name": "http"}, {"containerPort": 70000, "name": "http"}, {"name": "UP", "protocol": "ICMP"},
            ]}]}),
            vec![
                "spec.containers[0].ports[1].name FieldValueDuplicate",
                "spec.containers[0].ports[1].containerPort FieldValueInvalid",
                "spec.containers[0].ports[2].name FieldValueInvalid must contain only",
                "spec.containers[0].ports[2].name FieldValueInvalid must contain at least one letter",
                "spec.containers[0].ports[2].containerPort FieldValueRequired",
                "spec.containers[0].ports[2].protocol FieldValueNotSupported",
            ],
        ),
        (
            json!({"containers": [
                {"name": "c", "image": "a", "ports": [{"containerPort": 80, "hostPort": 80}]},
                {"name": "d", "image": "a", "ports": [{"containerPort": 81, "hostPort": 80}]},
            ]}),
            vec!["spec.containers[1].ports[0].hostPort FieldValueDuplicate"],
        ),
        (
            json!({"restartPolicy": "Sometimes", "activeDeadlineSeconds": 0, "hostname": "A"}),
            vec![
                "spec.restartPolicy FieldValueNotSupported",
                "spec.activeDeadlineSeconds FieldValueInvalid must be between 1 and",
                "spec.hostname FieldValueInvalid",
            ],
        ),
        (
            json!({"nodeName": "n", "schedulingGates": [{"name": "a/b"}, {"name": "a/b"}]}),
            vec![
                "spec.schedulingGates[1] FieldValueDuplicate",
                "spec.nodeName FieldValueForbidden cannot be set until all schedulingGates",
            ],
        ),
        (
            json!({"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            vec!["spec.volumes[0].projected.sources[0].serviceAccountToken FieldValueForbidden"],
        ),
        (
            json!({"ephemeralContainers": [{"name": "c", "image": "x", "targetContainerName": "no", "ports": [{"containerPort": 1}]}]}),
            vec![
                "spec.ephemeralContainers[0].name FieldValueDuplicate",
                "spec.ephemeralContainers[0].targetContainerName FieldValueNotFound",
                "spec.ephemeralContainers[0].ports FieldValueForbidden cannot be set for an Ephemeral Container",
                "spec.ephemeralContainers FieldValueForbidden cannot be set on create",
            ],
        ),
        (
            json!({"hostNetwork": true, "containers": [{"name": "c", "image": "a", "ports": [{"containerPort": 80, "hostPort": 81}]}]}),
            vec![
                "spec.containers[0].ports[0].hostPort FieldValueInvalid must match `containerPort`",
            ],
        ),
        (
            json!({"resources": {"requests": {"cpu": "1"}}, "containers": [{"name": "c", "image": "a", "resources": {"requests": {"cpu": "2"}}}]}),
            vec![
                "spec.resources.requests[cpu] FieldValueInvalid must be greater than or equal to aggregate",
            ],
        ),
        (
            json!({"os": {"name": "windows"}, "resources": {"requests": {"pods": "1"}}}),
            vec!["spec.resources FieldValueForbidden may not be set for a windows pod"],
        ),
        (
            json!({"resources": {"claims": [{"name": "no"}]}}),
            vec![
                "spec.resources.claims FieldValueForbidden claims may not be set",
                "spec.resources.claims[0] FieldValueNotFound must be one of the names",
            ],
        ),
        (
            json!({
                "volumes": [{"name": "v", "nfs": {"server": "", "path": "/p"}}],
                "containers": [{"name": "c", "image": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            }),
            vec![
                "spec.volumes[0].nfs.server FieldValueRequired",
                "spec.containers[0].volumeMounts[0].name FieldValueNotFound",
            ],
        ),
        (
            json!({"initContainers": [{"name": "i", "image": "a", "restartPolicyRules": [{"action": "x"}]}]}),
            vec![
                "spec.initContainers[0].restartPolicy FieldValueRequired must specify restartPolicy",
            ],
        ),
        (
            json!({"os": {"name": "windows"}, "hostPID": true, "securityContext": {"runAsUser": 1}}),
            vec![
                "spec.hostPID FieldValueForbidden cannot be set for a windows pod",
                "spec.securityContext.runAsUser FieldValueForbidden",
            ],
        ),
        (
            json!({"hostUsers": false, "hostNetwork": true}),
            vec!["spec.hostNetwork FieldValueForbidden"],
        ),
        (
            json!({
                "hostUsers": false,
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
                "containers": [{
                    "name": "c", "image": "a",
                    "volumeDevices": [{"name": "v", "devicePath": "/dev/x"}],
                }],
            }),
            vec!["spec.containers[0].volumeDevices FieldValueForbidden"],
        ),
        (
            json!({"preemptionPolicy": "Always", "overhead": {"cpu": "-1"}, "readinessGates": [{"conditionType": ""}]}),
            vec![
                "spec.readinessGates[0].conditionType FieldValueInvalid name part must be non-empty",
                "spec.readinessGates[0].conditionType FieldValueInvalid",
                "spec.preemptionPolicy FieldValueNotSupported",
                "spec.overhead.limits[cpu] FieldValueInvalid",
            ],
        ),
    ];
    for (spec, want) in table {
        assert_causes(&PodStrategy.validate(&pod(spec)), &want);
    }
}

#[test]
fn created_as_pending_with_its_class() {
    let pod = pod(
        json!({"containers": [{"name": "c", "image": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]}),
    );
    let status = pod.status.unwrap();
    assert_eq!(
        (text(&status.phase), text(&status.qos_class)),
        ("Pending", "Guaranteed")
    );
}

#[test]
fn update() {
    let toleration = json!({"key": "a", "operator": "Exists", "effect": "NoExecute"});
    let old = json!({"tolerations": [toleration], "activeDeadlineSeconds": 100});
    let with = |field: &str, value: Value| {
        let mut spec = old.clone();
        spec[field] = value;
        spec
    };
    let table: Vec<(Value, Vec<&str>)> = vec![
        (old.clone(), vec![]),
        (
            with(
                "containers",
                json!([{"name": "c", "image": "app:v2", "imagePullPolicy": "IfNotPresent"}]),
            ),
            vec![],
        ),
        (with("activeDeadlineSeconds", json!(10)), vec![]),
        (
            with("activeDeadlineSeconds", json!(1000)),
            vec![
                "spec.activeDeadlineSeconds FieldValueInvalid must be less than or equal to previous value",
            ],
        ),
        (
            with("activeDeadlineSeconds", Value::Null),
            vec!["spec.activeDeadlineSeconds FieldValueInvalid must not update"],
        ),
        (
            with(
                "tolerations",
                json!([toleration, {"key": "b", "operator": "Exists"}]),
            ),
            vec![],
        ),
        (
            with(
                "tolerations",
                json!([{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}]),
            ),
            vec![],
        ),
        (
            with("tolerations", json!([])),
            vec!["spec.tolerations FieldValueForbidden existing toleration"],
        ),
        (
            with(
                "containers",
                json!([{"name": "c", "image": "a"}, {"name": "d", "image": "a"}]),
            ),
            vec![
                "spec.containers FieldValueForbidden pod updates may not add or remove containers",
            ],
        ),
        (
            with(
                "containers",
                json!([{"name": "c", "image": "app:v1", "args": ["x"]}]),
            ),
            vec![
                "spec FieldValueForbidden pod updates may not change fields other than `spec.containers[*].image`",
            ],
        ),
        (with("nodeSelector", json!({})), vec![]),
        (
            with("nodeSelector", json!({"a": "b"})),
            vec!["spec FieldValueForbidden pod updates may not change"],
        ),
        (
            with("terminationGracePeriodSeconds", json!(1)),
            vec!["spec FieldValueForbidden"],
        ),
    ];
    let old = pod(old.clone());
    for (spec, want) in table {
        assert_causes(&PodStrategy.validate_update(&pod(spec), &old), &want);
    }
}

#[test]
fn update_of_a_gated_pod() {
    let gates = json!([{"name": "a"}, {"name": "b"}]);
    let old = pod(json!({"schedulingGates": gates, "nodeSelector": {"a": "b"}}));
    let table: Vec<(Value, Vec<&str>)> = vec![
        (
            json!({"nodeSelector": {"a": "b", "c": "d"}, "schedulingGates": gates}),
            vec![],
        ),
        (
            json!({"nodeSelector": {"a": "b"}, "schedulingGates": []}),
            vec![],
        ),
        (
            json!({"schedulingGates": gates}),
            vec!["spec.nodeSelector FieldValueInvalid only additions"],
        ),
        (
            json!({"nodeSelector": {"a": "b"}, "schedulingGates": [{"name": "c"}]}),
            vec!["spec.schedulingGates[0].name FieldValueForbidden only deletion is allowed"],
        ),
        (
            json!({"nodeSelector": {"a": "b"}, "schedulingGates": gates, "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "x", "operator": "Exists"}]}]}}}}),
            vec![],
        ),
    ];
    for (spec, want) in table {
        assert_causes(&PodStrategy.validate_update(&pod(spec), &old), &want);
    }
}

#[test]
fn status_update() {
    let ended = json!({"name": "c", "state": {"terminated": {"exitCode": 0}}, "image": "", "imageID": "", "ready": false, "restartCount": 0});
    let running = json!({"name": "c", "state": {"running": {}}, "image": "", "imageID": "", "ready": true, "restartCount": 0});
    let with = |spec: Value, status: Value| {
        let mut pod = pod(spec);
        pod.status = serde_json::from_value(status).unwrap();
        pod
    };
    let never = json!({"restartPolicy": "Never"});
    let old = with(
        never.clone(),
        json!({"qosClass": "BestEffort", "containerStatuses": [ended]}),
    );
    let mut new = with(
        never,
        json!({"podIP": "10.0.0.1", "containerStatuses": [running], "hostIPs": [{"ip": "1.2.3.4"}]}),
    );
    PodStrategy.prepare_for_status_update(&mut new, &old);
    let status = new.status.clone().unwrap();
    assert_eq!(text(&status.qos_class), "BestEffort");
    assert_causes(
        &PodStrategy.validate_status_update(&new, &old),
        &[
            "status.containerStatuses[0].state FieldValueForbidden may not be transitioned",
            "status.hostIPs[0].ip FieldValueInvalid must be equal to `hostIP`",
        ],
    );
    let always = with(
        json!({}),
        json!({"qosClass": "BestEffort", "containerStatuses": [ended]}),
    );
    let again = with(
        json!({}),
        json!({"qosClass": "BestEffort", "containerStatuses": [running]}),
    );
    assert!(
        PodStrategy
            .validate_status_update(&again, &always)
            .is_empty()
    );
}

#[test]
fn generations() {
    let old = pod(json!({}));
    let image = json!({"containers": [{"name": "c", "image": "app:v2"}]});
    assert!(PodStrategy.spec_changed(&pod(image), &old));
    assert!(!PodStrategy.spec_changed(&pod(json!({"nodeName": "n"})), &old));
}

#[test]
fn grace_periods() {
    let bound = json!({"nodeName": "n", "terminationGracePeriodSeconds": 20});
    let table = [
        (json!({}), None, "Pending", 0),
        (json!({}), Some(5), "Pending", 0),
        (bound.clone(), None, "Running", 20),
        (bound.clone(), Some(5), "Running", 5),
        (bound.clone(), Some(0), "Running", 0),
        (bound.clone(), Some(-1), "Running", 1),
        (bound, None, "Succeeded", 0),
    ];
    for (spec, requested, phase, want) in table {
        let mut pod = pod(spec);
        pod.status.as_mut().unwrap().phase = Some(phase.to_owned());
        assert_eq!(
            PodStrategy.grace_period(&pod, requested),
            Some(want),
            "{phase} {requested:?}"
        );
    }
}
