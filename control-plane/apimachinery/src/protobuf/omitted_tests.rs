use serde_json::Value;

use super::*;

/// What is made of the JSON of an object of a kind.
fn without<'a>(api_version: &str, kind: &str, json: &'a str) -> Cow<'a, [u8]> {
    let known = Kind::find(api_version, kind).unwrap();
    known.without_omitted(json.as_bytes())
}

/// By kind: what is said, and what is left of it. Lines are put together without their ends.
const TABLE_OF_KINDS: &[(&str, &str, &str, &str)] = &[
    (
        "scheduling.k8s.io/v1",
        "PriorityClass",
        // A value is always written, and what a map has stays.
        r#"{"metadata":{"annotations":{},"labels":{"a":""}},"value":0,"globalDefault":false,"description":""}"#,
        r#"{"metadata":{"annotations":null,"labels":{"a":""}},"value":0,"globalDefault":null,"description":null}"#,
    ),
    (
        "networking.k8s.io/v1",
        "NetworkPolicy",
        r#"{"spec": {"podSelector": {"matchLabels": { }}, "ingress": [ ], "egress": [{"ports": []}]}}"#,
        r#"{"spec": {"podSelector": {"matchLabels": null}, "ingress": null, "egress": [{"ports": null}]}}"#,
    ),
    (
        // A pointer tells zero from nothing, and a struct is never empty.
        "apps/v1",
        "Deployment",
        r#"{"spec":{"replicas":0,"paused":false,"minReadySeconds":0,"strategy":{}},"status":{}}"#,
        r#"{"spec":{"replicas":0,"paused":null,"minReadySeconds":null,"strategy":{}},"status":{}}"#,
    ),
    (
        "v1",
        "Service",
        r#"{"spec":{"clusterIP":"","ports":[{"port":80,"targetPort":0,"name":"","nodePort":0}],"publishNotReadyAddresses":false}}"#,
        r#"{"spec":{"clusterIP":null,"ports":[{"port":80,"targetPort":0,"name":null,"nodePort":null}],"publishNotReadyAddresses":null}}"#,
    ),
    (
        "v1",
        "Pod",
        concat!(
            r#"{"spec":{"hostNetwork":false,"hostPID":false,"nodeName":"","hostUsers":false,"automountServiceAccountToken":false,"#,
            r#""priority":0,"tolerations":[{"operator":"Exists","key":"","tolerationSeconds":0}],"containers":[{"name":"c","tty":false,"workingDir":"","#,
            r#""ports":[{"containerPort":80,"hostPort":0,"name":""}],"env":[{"name":"A","value":""}],"envFrom":[{"prefix":"","secretRef":{"name":"s","optional":false}}],"#,
            r#""volumeMounts":[{"name":"v","mountPath":"/v","readOnly":false,"subPath":""}],"livenessProbe":{"initialDelaySeconds":0,"tcpSocket":{"port":80,"host":""}},"#,
            r#""securityContext":{"privileged":false,"runAsUser":0},"args":[],"resources":{"limits":{}}}],"#,
            r#""volumes":[{"name":"v","emptyDir":{"medium":""}},{"name":"h","hostPath":{"path":"/h","type":""}},{"name":"p","persistentVolumeClaim":{"claimName":"p","readOnly":false}}]},"#,
            r#""status":{"containerStatuses":[{"name":"c","ready":false,"restartCount":0,"image":"","imageID":"","containerID":""}],"conditions":[]}}"#,
        ),
        concat!(
            r#"{"spec":{"hostNetwork":null,"hostPID":null,"nodeName":null,"hostUsers":false,"automountServiceAccountToken":false,"#,
            r#""priority":0,"tolerations":[{"operator":"Exists","key":null,"tolerationSeconds":0}],"containers":[{"name":"c","tty":null,"workingDir":null,"#,
            r#""ports":[{"containerPort":80,"hostPort":null,"name":null}],"env":[{"name":"A","value":null}],"envFrom":[{"prefix":null,"secretRef":{"name":"s","optional":false}}],"#,
            r#""volumeMounts":[{"name":"v","mountPath":"/v","readOnly":null,"subPath":null}],"livenessProbe":{"initialDelaySeconds":null,"tcpSocket":{"port":80,"host":null}},"#,
            r#""securityContext":{"privileged":false,"runAsUser":0},"args":null,"resources":{"limits":null}}],"#,
            r#""volumes":[{"name":"v","emptyDir":{"medium":null}},{"name":"h","hostPath":{"path":"/h","type":""}},{"name":"p","persistentVolumeClaim":{"claimName":"p","readOnly":null}}]},"#,
            r#""status":{"containerStatuses":[{"name":"c","ready":false,"restartCount":0,"image":"","imageID":"","containerID":null}],"conditions":null}}"#,
        ),
    ),
    (
        "v1",
        "PersistentVolume",
        r#"{"spec":{"nfs":{"server":"s","path":"/p","readOnly":false},"azureDisk":{"diskName":"d","diskURI":"u","readOnly":false},"storageClassName":""}}"#,
        r#"{"spec":{"nfs":{"server":"s","path":"/p","readOnly":null},"azureDisk":{"diskName":"d","diskURI":"u","readOnly":false},"storageClassName":null}}"#,
    ),
    (
        "v1",
        "PersistentVolumeClaim",
        r#"{"spec":{"storageClassName":"","volumeName":"","accessModes":[]}}"#,
        r#"{"spec":{"storageClassName":"","volumeName":null,"accessModes":null}}"#,
    ),
    (
        "rbac.authorization.k8s.io/v1",
        "Role",
        r#"{"rules":[]}"#,
        r#"{"rules":[]}"#,
    ),
    (
        // What is JSON of its own is nobody's to change.
        "apps/v1",
        "ControllerRevision",
        r#"{"data":{"spec":{"hostNetwork":false,"a":[]}},"revision":0}"#,
        r#"{"data":{"spec":{"hostNetwork":false,"a":[]}},"revision":0}"#,
    ),
    (
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        r#"{"metadata":{"managedFields":[],"finalizers":[]},"spec":{"metrics":[],"behavior":{"scaleUp":{"policies":[]}}}}"#,
        r#"{"metadata":{"managedFields":[],"finalizers":null},"spec":{"metrics":null,"behavior":{"scaleUp":{"policies":[]}}}}"#,
    ),
    (
        "v1",
        "Secret",
        r#"{"data":{"a":""},"stringData":{},"immutable":false,"type":""}"#,
        r#"{"data":{"a":""},"stringData":null,"immutable":false,"type":null}"#,
    ),
];

#[test]
fn empty_values_are_left_out_where_go_does() {
    for (api_version, kind, said, left) in TABLE_OF_KINDS {
        let got = without(api_version, kind, said);
        assert_eq!(std::str::from_utf8(&got).unwrap(), *left, "{kind}");
        assert_eq!(matches!(got, Cow::Borrowed(_)), said == left, "{kind}");
        // And once it is enough.
        let again = without(api_version, kind, left);
        assert!(matches!(again, Cow::Borrowed(_)), "{kind}");
    }
}

#[test]
fn what_is_no_object_of_the_kind_passes() {
    let deep = format!(r#"{}"paused":false"#, r#"{"spec":"#.repeat(300));
    for json in [
        "",
        "{",
        "[]",
        "null",
        r#"{"spec":}"#,
        r#"{"spec":{"paused":false}"#,
        r#"{"spec":{"paused":false]}"#,
        r#"{"spec":{"paused":false,}}"#,
        r#"{"spec":{"paused":"false"}}"#,
        r#"{"spec":{"paused":0}}"#,
        r#"{"spec":{"minReadySeconds":""}}"#,
        r#"{"spec":{"minReadySeconds":0.5}}"#,
        r#"{"spec":[{"paused":false}]}"#,
        r#"{"metadata":{"labels":[],"finalizers":{}}}"#,
        r#"{"metadata":{"name":"a\"#,
        r#"{"unknown":{"paused":false,"labels":{}}}"#,
        deep.as_str(),
    ] {
        let got = without("apps/v1", "Deployment", json);
        assert!(matches!(got, Cow::Borrowed(_)), "{json}");
    }
}

#[test]
fn strings_end_where_they_do() {
    let json = r#"{"metadata":{"annotations":{"a\"":"\\","b":"{\"paused\":false}"}},"spec":{"paused":false}}"#;
    let got = without("apps/v1", "Deployment", json);
    let got: Value = serde_json::from_slice(&got).unwrap();
    let mut want: Value = serde_json::from_str(json).unwrap();
    want["spec"]["paused"] = Value::Null;
    assert_eq!(got, want);
}

#[test]
fn of_two_the_last_counts() {
    let json = r#"{"spec":{"paused":true,"paused":false}}"#;
    let got = without("apps/v1", "Deployment", json);
    assert_eq!(&*got, br#"{"spec":{"paused":true,"paused":null}}"#);
}

#[test]
fn what_is_told_is_one_field_by_its_name() {
    for told in TOLD {
        let lines = include_str!("kubernetes.txt").lines();
        let named = lines.filter(|line| line.split(' ').nth(1) == Some(told));
        assert_eq!(named.count(), 1, "{told}");
    }
}
