//! A static Pod, made from its manifest; pure.
//!
//! Source of the rules: the kubelet's file source. The Pod is named after its node too, its UID is a
//! hash of what the file says, so that another manifest is another Pod, and it may not refer to
//! objects of the API, without which it must run. What the API server would check besides it checks
//! when it is asked for the mirror.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use coracle_apimachinery::pod_defaults::set_pod_defaults;
use coracle_apimachinery::pod_references::api_reference;
use coracle_apimachinery::protobuf::Kind;
use coracle_apimachinery::taints::NO_EXECUTE;
use coracle_apimachinery::{names, resources, yaml};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::pod::{self, CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE};

/// Priorities of the classes that every cluster has; of others only the API knows.
const SYSTEM_CLASSES: [(&str, i32); 2] = [
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

/// Reads a manifest that lies in that file.
pub(super) fn read(text: &str, file: &Path, node: &str, now: Timestamp) -> Result<Pod, String> {
    let value = yaml::read_one(&file.to_string_lossy(), text).map_err(|error| error.to_string())?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    match (field("apiVersion"), field("kind")) {
        ("v1", "Pod") => {}
        (version, kind) => return Err(format!("it is no Pod of v1, but {kind:?} of {version:?}")),
    }
    let pod = decode(&value)?;
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: pod.metadata.name,
            namespace: pod.metadata.namespace,
            labels: pod.metadata.labels,
            annotations: pod.metadata.annotations,
            ..ObjectMeta::default()
        },
        spec: pod.spec,
        status: None,
    };
    if pod::name(&pod).is_empty() {
        return Err("name is needed for the pod".to_owned());
    }
    set_pod_defaults(&mut pod);
    let uid = uid(&pod, file, node)?;
    settle(&mut pod, &uid, node, now);
    check(&pod)?;
    match api_reference(&pod) {
        Some(resource) => Err(format!("static pods may not reference {resource}")),
        None => Ok(pod),
    }
}

/// Decodes a manifest as the API server would, so that the mirror says the same as the Pod.
fn decode(value: &Value) -> Result<Pod, String> {
    let json = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    let json = match Kind::find("v1", "Pod") {
        Some(fields) => fields.without_omitted(&json),
        None => Cow::Borrowed(&*json),
    };
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

/// A hash of the manifest's meaning, the file's name and the node's: the same manifest is another
/// Pod elsewhere.
fn uid(pod: &Pod, file: &Path, node: &str) -> Result<String, String> {
    // Maps are sorted, so that equal Pods have one spelling.
    let text = serde_json::to_string(pod).map_err(|error| error.to_string())?;
    let mut hash = Sha256::new();
    for part in [
        text.as_bytes(),
        node.as_bytes(),
        file.as_os_str().as_encoded_bytes(),
    ] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    Ok(hash
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// What the node adds.
fn settle(pod: &mut Pod, uid: &str, node: &str, now: Timestamp) {
    let metadata = &mut pod.metadata;
    let name = metadata.name.take().unwrap_or_default();
    metadata.name = Some(format!("{name}-{}", node.to_lowercase()));
    let namespace = metadata.namespace.take().filter(|given| !given.is_empty());
    metadata.namespace = namespace.or_else(|| Some("default".to_owned()));
    metadata.uid = Some(uid.to_owned());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.remove(CONFIG_MIRROR);
    for (key, value) in [
        (CONFIG_SOURCE, "file".to_owned()),
        (CONFIG_HASH, uid.to_owned()),
        (CONFIG_SEEN, now.to_string()),
    ] {
        annotations.insert(key.to_owned(), value);
    }
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    set_priority(spec);
    // Trouble of the node is no reason to end what its administrator has put there.
    let tolerant = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some(NO_EXECUTE.to_owned()),
        ..Toleration::default()
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&tolerant) {
        tolerations.push(tolerant);
    }
    pod.status = Some(PodStatus {
        phase: Some("Pending".to_owned()),
        qos_class: Some(resources::qos(pod::spec(pod)).as_str().to_owned()),
        ..PodStatus::default()
    });
}

fn set_priority(spec: &mut PodSpec) {
    let class = spec.priority_class_name.as_deref().unwrap_or_default();
    let known = SYSTEM_CLASSES.iter().find(|(name, _)| *name == class);
    if let Some((_, priority)) = known {
        spec.priority.get_or_insert(*priority);
    }
}

/// What the node itself relies on: names become those of folders, and of hosts.
fn check(pod: &Pod) -> Result<(), String> {
    let fault = |what: &str, value: &str, faults: Vec<String>| match faults.is_empty() {
        true => Ok(()),
        false => Err(format!("{what} {value:?}: {}", faults.join("; "))),
    };
    fault("name", pod::name(pod), names::dns_subdomain(pod::name(pod)))?;
    let namespace = pod::namespace(pod);
    fault("namespace", namespace, names::dns_label(namespace))?;
    let spec = pod::spec(pod);
    if spec.containers.is_empty() {
        return Err("it has no containers".to_owned());
    }
    if spec.ephemeral_containers.iter().flatten().next().is_some() {
        return Err("ephemeral containers cannot be set in a manifest".to_owned());
    }
    let mut seen = HashSet::new();
    for (container, _) in pod::containers(pod) {
        let name = &container.name;
        fault("container", name, names::dns_label(name))?;
        if !seen.insert(name) {
            return Err(format!("there are two containers {name:?}"));
        }
        if container.image.as_deref().unwrap_or_default().is_empty() {
            return Err(format!("container {name:?} has no image"));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        fault("volume", &volume.name, names::dns_label(&volume.name))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\n\
        spec: {containers: [{name: main, image: 'app:v1'}]}\n";

    fn pod(text: &str) -> Result<Pod, String> {
        read(
            text,
            Path::new("/m/web.yaml"),
            "Node-1",
            Timestamp::UNIX_EPOCH,
        )
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_the_node() {
        let made = serde_json::to_value(pod(WEB).unwrap()).unwrap();
        let metadata = &made["metadata"];
        assert_eq!(
            (&metadata["name"], &metadata["namespace"]),
            (&"web-node-1".into(), &"default".into())
        );
        let uid = metadata["uid"].as_str().unwrap();
        assert!(
            uid.len() == 32 && uid.chars().all(|c| c.is_ascii_hexdigit()),
            "{uid}"
        );
        let annotations = &metadata["annotations"];
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        assert_eq!(annotations["kubernetes.io/config.hash"], uid);
        assert_eq!(
            annotations["kubernetes.io/config.seen"],
            "1970-01-01T00:00:00Z"
        );
        let spec = &made["spec"];
        assert_eq!(spec["nodeName"], "Node-1");
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
        let tolerations = serde_json::json!([{"operator": "Exists", "effect": "NoExecute"}]);
        assert_eq!(spec["tolerations"], tolerations);
        assert_eq!(made["status"]["qosClass"], "BestEffort");
    }

    #[test]
    fn the_uid_is_that_of_what_is_meant() {
        let uid = |text: &str| pod(text).unwrap().metadata.uid.unwrap();
        let json = r#"{"kind": "Pod", "apiVersion": "v1", "spec": {"restartPolicy": "Always",
            "containers": [{"image": "app:v1", "name": "main"}]},
            "metadata": {"labels": {"app": "web"}, "name": "web", "uid": "ignored"}}"#;
        assert_eq!(uid(WEB), uid(json));
        let empty = WEB.replace("spec: {", "spec: {hostNetwork: false, volumes: [], ");
        assert_eq!(uid(WEB), uid(&empty));
        assert_ne!(uid(WEB), uid(&WEB.replace("v1'", "v2'")));
        let at = |file: &str, node: &str| {
            let read = read(WEB, Path::new(file), node, Timestamp::UNIX_EPOCH);
            read.unwrap().metadata.uid.unwrap()
        };
        assert_ne!(at("/a", "n"), at("/b", "n"));
        assert_ne!(at("/a", "n"), at("/a", "m"));
        assert_ne!(at("/a", "bn"), at("/ab", "n"));
    }

    #[test]
    fn system_classes_have_their_priorities() {
        let with = |class: &str| {
            WEB.replace(
                "containers",
                &format!("priorityClassName: {class}, containers"),
            )
        };
        let priority = |class: &str| pod(&with(class)).unwrap().spec.unwrap().priority;
        assert_eq!(priority("system-node-critical"), Some(2_000_001_000));
        assert_eq!(priority("other"), None);
    }

    #[test]
    fn what_cannot_be_a_static_pod_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "no Pod of v1"),
            ("{", "web.yaml:1"),
            (
                &WEB.replace("Pod", "Deployment"),
                "\"Deployment\" of \"v1\"",
            ),
            (&format!("{WEB}---\n{WEB}"), "more than one document"),
            (
                &WEB.replace("name: web, ", ""),
                "name is needed for the pod",
            ),
            (
                &WEB.replace("name: web", "name: ../web"),
                "name \"../web-node-1\"",
            ),
            (
                &WEB.replace("labels", "namespace: a/b, labels"),
                "namespace \"a/b\"",
            ),
            (&WEB.replace("name: main", "name: .."), "container \"..\""),
            (&WEB.replace(", image: 'app:v1'", ""), "has no image"),
            (
                &WEB.replace("[{name: main, image: 'app:v1'}]", "[]"),
                "no containers",
            ),
            (
                &WEB.replace("containers", "serviceAccountName: a, containers"),
                "static pods may not reference serviceaccounts",
            ),
            (
                &WEB.replace(
                    "containers",
                    "volumes: [{name: v, secret: {secretName: s}}], containers",
                ),
                "static pods may not reference secrets",
            ),
            (
                &WEB.replace("containers", "volumes: [{name: a/b}], containers"),
                "volume \"a/b\"",
            ),
        ] {
            let said = pod(text).unwrap_err();
            assert!(said.contains(reason), "{said}");
        }
    }
}
