//! test/e2e/common/storage: what of ConfigMaps, Secrets and the Pod itself a container finds as
//! files. Who made a file may do what with it, the test reads on the node.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::{create, has_lines, shown, whole};
use crate::cluster::{Cluster, Kubectl};

fn cluster() -> Option<(Cluster, Kubectl)> {
    super::cluster_with(&["inspect"])
}

pub(super) const KEY: &str = "data-1";

/// A ConfigMap, or a Secret, of one key.
pub(super) fn made(kubectl: &Kubectl, kind: &str) {
    let data = json!({KEY: "value-1"});
    let field = if kind == "Secret" {
        "stringData"
    } else {
        "data"
    };
    create(
        kubectl,
        &json!({"kind": kind, "metadata": {"name": "source"}, field: data}),
    );
}

/// What a container says that has these volumes at `/etc/NAME`, of the files that it reads.
fn read(kubectl: &Kubectl, volumes: &[(&str, Value)], files: &[&str], more: Value) -> String {
    let mut container = more;
    container["args"] = json!(files);
    let mounts = volumes.iter().map(
        |(name, _)| json!({"name": name, "mountPath": format!("/etc/{name}"), "readOnly": true}),
    );
    container["volumeMounts"] = mounts.collect();
    let all = volumes.iter().map(|(name, source)| {
        let mut volume = source.clone();
        volume["name"] = json!(name);
        volume
    });
    let volumes: Value = all.collect();
    shown(kubectl, container, json!({ "volumes": volumes }))
}

/// The rights to a file of a volume of the Pod that `shown` made.
fn mode(cluster: &Cluster, kubectl: &Kubectl, file: &str) -> u32 {
    let uid = kubectl.value(&["pod", "inspect"], ".metadata.uid");
    let volumes = cluster
        .data()
        .join("agent/pods/pods")
        .join(uid)
        .join("volumes");
    let mut plugins = std::fs::read_dir(&volumes).unwrap();
    let found = plugins.find_map(|plugin| {
        let path = plugin.unwrap().path().join(file);
        std::fs::metadata(path).ok()
    });
    found.expect(file).permissions().mode() & 0o777
}

pub(super) fn config_map() -> Value {
    json!({"configMap": {"name": "source"}})
}

pub(super) fn secret() -> Value {
    json!({"secret": {"secretName": "source"}})
}

/// The same within a projected volume.
pub(super) fn projected(source: &str) -> Value {
    json!({"projected": {"sources": [{source: {"name": "source"}}]}})
}

/// The only source of a volume, which may be a projected one.
pub(super) fn source(volume: &mut Value) -> &mut Value {
    let around = if volume.get("projected").is_some() {
        &mut volume["projected"]["sources"][0]
    } else {
        volume
    };
    around.as_object_mut().unwrap().values_mut().next().unwrap()
}

/// The volume with its key at another path.
pub(super) fn mapped(mut volume: Value, at: &str) -> Value {
    source(&mut volume)["items"] = json!([{"key": KEY, "path": at}]);
    volume
}

/// A volume of one source is read, and its file has the mode.
fn consumable(kind: &str, volume: Value, file: &str, wanted: u32) {
    let Some((cluster, kubectl)) = cluster() else {
        return;
    };
    made(&kubectl, kind);
    let path = format!("/etc/volume/{file}");
    let said = read(&kubectl, &[("volume", volume)], &[&path], json!({}));
    has_lines(&said, &[&format!("{path}: value-1")]);
    let found = mode(&cluster, &kubectl, &format!("volume/{file}"));
    assert_eq!(found, wanted, "{found:o}");
}

/// The same source in two volumes is read in both.
fn consumable_twice(kind: &str, volume: &Value) {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    made(&kubectl, kind);
    let volumes = [("one", volume.clone()), ("two", volume.clone())];
    let said = read(
        &kubectl,
        &volumes,
        &["/etc/one/data-1", "/etc/two/data-1"],
        json!({}),
    );
    has_lines(
        &said,
        &["/etc/one/data-1: value-1", "/etc/two/data-1: value-1"],
    );
}

/// Must: the key of a ConfigMap is a file in the volume.
/// Must: its content is the value.
/// Must: its mode is 0644.
#[test]
fn configmap_should_be_consumable_from_pods_in_volume() {
    consumable("ConfigMap", config_map(), KEY, 0o644);
}

/// Must: the key of a ConfigMap is a file where the volume maps it.
/// Must: its content is the value.
/// Must: its mode is 0644.
#[test]
fn configmap_should_be_consumable_from_pods_in_volume_with_mappings() {
    consumable(
        "ConfigMap",
        mapped(config_map(), "path/to/data-2"),
        "path/to/data-2",
        0o644,
    );
}

/// Must: a ConfigMap is read in one volume of a Pod.
/// Must: it is read in another one of the same Pod.
#[test]
fn configmap_should_be_consumable_in_multiple_volumes_in_the_same_pod() {
    consumable_twice("ConfigMap", &config_map());
}

/// Must: text of a ConfigMap is read in the volume.
/// Must: binary data of it is read as it is.
#[test]
fn configmap_binary_data_should_be_reflected_in_volume() {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    let (text, binary) = (json!({KEY: "value-1"}), json!({"dump.bin": "3q3K/gA="}));
    let metadata = json!({"name": "source"});
    create(
        &kubectl,
        &json!({"kind": "ConfigMap", "metadata": metadata, "data": text, "binaryData": binary}),
    );
    let files = ["/etc/volume/data-1", "/etc/volume/dump.bin"];
    let said = read(&kubectl, &[("volume", config_map())], &files, json!({}));
    let binary = r"/etc/volume/dump.bin: \xde\xad\xca\xfe\x00";
    has_lines(&said, &["/etc/volume/data-1: value-1", binary]);
}

/// Must: the key of a Secret is a file in the volume, whose content is the value.
/// Must: its mode is 0644.
#[test]
fn secrets_should_be_consumable_from_pods_in_volume() {
    consumable("Secret", secret(), KEY, 0o644);
}

/// Must: the key of a Secret is a file where the volume maps it.
/// Must: its mode is 0644.
#[test]
fn secrets_should_be_consumable_from_pods_in_volume_with_mappings() {
    consumable(
        "Secret",
        mapped(secret(), "new-path-data-1"),
        "new-path-data-1",
        0o644,
    );
}

/// Must: a Secret is read in two volumes of a Pod.
#[test]
fn secrets_should_be_consumable_in_multiple_volumes_in_a_pod() {
    consumable_twice("Secret", &secret());
}

/// Must: a Pod reads the Secret of its own namespace, where another one has one of the same name.
/// Must: the mode of the file is 0644.
#[test]
fn secrets_should_be_able_to_mount_in_a_volume_regardless_of_a_different_secret_existing_with_same_name_in_different_namespace()
 {
    let Some((cluster, kubectl)) = cluster() else {
        return;
    };
    kubectl.ok(&["create", "namespace", "other"]);
    let metadata = json!({"name": "source", "namespace": "other"});
    let data = json!({KEY: "value-2"});
    create(
        &kubectl,
        &json!({"kind": "Secret", "metadata": metadata, "stringData": data}),
    );
    made(&kubectl, "Secret");
    let said = read(
        &kubectl,
        &[("volume", secret())],
        &["/etc/volume/data-1"],
        json!({}),
    );
    has_lines(&said, &["/etc/volume/data-1: value-1"]);
    assert_eq!(mode(&cluster, &kubectl, "volume/data-1"), 0o644);
}

/// Must: a ConfigMap is read in a projected volume.
/// Must: the mode of the file is 0644.
#[test]
fn projected_configmap_should_be_consumable_from_pods_in_volume() {
    consumable("ConfigMap", projected("configMap"), KEY, 0o644);
}

/// Must: a ConfigMap is read where a projected volume maps it.
/// Must: the mode of the file is 0644.
#[test]
fn projected_configmap_should_be_consumable_from_pods_in_volume_with_mappings() {
    let volume = mapped(projected("configMap"), "path/to/data-2");
    consumable("ConfigMap", volume, "path/to/data-2", 0o644);
}

/// Must: a ConfigMap is read in two projected volumes of a Pod.
#[test]
fn projected_configmap_should_be_consumable_in_multiple_volumes_in_the_same_pod() {
    consumable_twice("ConfigMap", &projected("configMap"));
}

/// Must: a Secret is read in a projected volume.
/// Must: the mode of the file is 0644.
#[test]
fn projected_secret_should_be_consumable_from_pods_in_volume() {
    consumable("Secret", projected("secret"), KEY, 0o644);
}

/// Must: a Secret is read where a projected volume maps it.
/// Must: the mode of the file is 0644.
#[test]
fn projected_secret_should_be_consumable_from_pods_in_volume_with_mappings() {
    let volume = mapped(projected("secret"), "new-path-data-1");
    consumable("Secret", volume, "new-path-data-1", 0o644);
}

/// Must: a Secret is read in one projected volume of a Pod.
/// Must: it is read in another one of the same Pod.
#[test]
fn projected_secret_should_be_consumable_in_multiple_volumes_in_a_pod() {
    consumable_twice("Secret", &projected("secret"));
}

/// A volume with a file of each of what a Pod is told of itself.
fn podinfo() -> Value {
    let resource = |path: &str, of: &str| {
        let of = json!({"containerName": "test", "resource": of});
        json!({"path": path, "resourceFieldRef": of})
    };
    json!({"items": [
        {"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}},
        resource("cpu_limit", "limits.cpu"),
        resource("cpu_request", "requests.cpu"),
        resource("memory_limit", "limits.memory"),
        resource("memory_request", "requests.memory"),
    ]})
}

fn resources() -> Value {
    json!({"resources": {
        "requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"},
    }})
}

fn downward_volume() -> Value {
    json!({"downwardAPI": podinfo()})
}

fn projected_downward() -> Value {
    json!({"projected": {"sources": [{"downwardAPI": podinfo()}]}})
}

/// A file of what a Pod is told has this text.
fn tells(volume: Value, file: &str, wanted: &str) {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    let path = format!("/etc/podinfo/{file}");
    let said = read(&kubectl, &[("podinfo", volume)], &[&path], resources());
    has_lines(&said, &[&format!("{path}: {wanted}")]);
}

/// A file of a limit that a container has not tells what its node can give.
fn tells_allocatable(volume: Value, file: &str, resource: &str) {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    let path = format!("/etc/podinfo/{file}");
    let said = read(&kubectl, &[("podinfo", volume)], &[&path], json!({}));
    let allocatable = format!(".items[0].status.allocatable.{resource}");
    let wanted = whole(&kubectl.value(&["nodes"], &allocatable));
    has_lines(&said, &[&format!("{path}: {wanted}")]);
}

/// Must: a file has the Pod's name.
#[test]
fn downward_api_volume_should_provide_podname_only() {
    tells(downward_volume(), "podname", "inspect");
}

/// Must: a file has the container's limit of processors.
#[test]
fn downward_api_volume_should_provide_container_s_cpu_limit() {
    tells(downward_volume(), "cpu_limit", "2");
}

/// Must: a file has the processors that the container requests.
#[test]
fn downward_api_volume_should_provide_container_s_cpu_request() {
    tells(downward_volume(), "cpu_request", "1");
}

/// Must: a file has the container's limit of memory.
#[test]
fn downward_api_volume_should_provide_container_s_memory_limit() {
    tells(downward_volume(), "memory_limit", "67108864");
}

/// Must: a file has the memory that the container requests.
#[test]
fn downward_api_volume_should_provide_container_s_memory_request() {
    tells(downward_volume(), "memory_request", "33554432");
}

/// Must: a file has a limit of processors where the container has none.
/// Must: it is what the node can give.
#[test]
fn downward_api_volume_should_provide_node_allocatable_cpu_as_default_cpu_limit_if_the_limit_is_not_set()
 {
    tells_allocatable(downward_volume(), "cpu_limit", "cpu");
}

/// Must: a file has a limit of memory where the container has none.
/// Must: it is what the node can give.
#[test]
fn downward_api_volume_should_provide_node_allocatable_memory_as_default_memory_limit_if_the_limit_is_not_set()
 {
    tells_allocatable(downward_volume(), "memory_limit", "memory");
}

/// Must: a file of a projected volume has the Pod's name.
#[test]
fn projected_downwardapi_should_provide_podname_only() {
    tells(projected_downward(), "podname", "inspect");
}

/// Must: a file of a projected volume has the container's limit of processors.
#[test]
fn projected_downwardapi_should_provide_container_s_cpu_limit() {
    tells(projected_downward(), "cpu_limit", "2");
}

/// Must: a file of a projected volume has the processors that the container requests.
#[test]
fn projected_downwardapi_should_provide_container_s_cpu_request() {
    tells(projected_downward(), "cpu_request", "1");
}

/// Must: a file of a projected volume has the container's limit of memory.
#[test]
fn projected_downwardapi_should_provide_container_s_memory_limit() {
    tells(projected_downward(), "memory_limit", "67108864");
}

/// Must: a file of a projected volume has the memory that the container requests.
#[test]
fn projected_downwardapi_should_provide_container_s_memory_request() {
    tells(projected_downward(), "memory_request", "33554432");
}

/// Must: a file of a projected volume has, as a limit of processors, what the node can give.
#[test]
fn projected_downwardapi_should_provide_node_allocatable_cpu_as_default_cpu_limit_if_the_limit_is_not_set()
 {
    tells_allocatable(projected_downward(), "cpu_limit", "cpu");
}

/// Must: a file of a projected volume has, as a limit of memory, what the node can give.
#[test]
fn projected_downwardapi_should_provide_node_allocatable_memory_as_default_memory_limit_if_the_limit_is_not_set()
 {
    tells_allocatable(projected_downward(), "memory_limit", "memory");
}

/// Must: a Secret, a ConfigMap and what the Pod is told are read in one projected volume.
#[test]
fn projected_combined_should_project_all_components_that_make_up_the_projection_api() {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    made(&kubectl, "ConfigMap");
    made(&kubectl, "Secret");
    let at = |path: &str| json!({"name": "source", "items": [{"key": KEY, "path": path}]});
    let volume = json!({"projected": {"sources": [
        {"secret": at("secret-data")}, {"configMap": at("config-data")}, {"downwardAPI": podinfo()},
    ]}});
    let names = [
        "secret-data",
        "config-data",
        "podname",
        "cpu_limit",
        "cpu_request",
        "memory_limit",
        "memory_request",
    ];
    let files = names.map(|name| format!("/etc/all/{name}"));
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let said = read(&kubectl, &[("all", volume)], &files, resources());
    let own = ["2", "1", "67108864", "33554432"];
    let texts = ["value-1", "value-1", "inspect"].into_iter().chain(own);
    for (file, text) in files.iter().zip(texts) {
        has_lines(&said, &[&format!("{file}: {text}")]);
    }
}

/// Must: a Pod starts with a Secret and a ConfigMap mounted, and reads both.
#[test]
fn emptydir_wrapper_volumes_should_not_conflict() {
    let Some((_cluster, kubectl)) = cluster() else {
        return;
    };
    made(&kubectl, "ConfigMap");
    made(&kubectl, "Secret");
    let volumes = [
        ("secret-volume", secret()),
        ("configmap-volume", config_map()),
    ];
    let files = ["/etc/secret-volume/data-1", "/etc/configmap-volume/data-1"];
    let said = read(&kubectl, &volumes, &files, json!({}));
    for file in files {
        has_lines(&said, &[&format!("{file}: value-1")]);
    }
}
