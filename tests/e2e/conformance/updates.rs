//! test/e2e/common/storage: what is changed while a container runs, as it finds it in its volumes.

use serde_json::{Value, json};

use super::outputs::{NAME, container, wait_for_phase};
use super::shared::{IDLE, Place, place};
use super::volumes::{KEY, config_map, made, projected, secret};
use crate::cluster::eventually;

/// A container of that name, which goes on, with a volume of that name at `/volume`.
fn reader(name: &str) -> Value {
    let mut container = container(IDLE);
    container["name"] = json!(name);
    container["volumeMounts"] = json!([{"name": name, "mountPath": "/volume", "readOnly": true}]);
    container
}

/// Makes a Pod with a container for each volume, and waits until it runs.
#[track_caller]
fn running(place: &Place, metadata: Value, volumes: &[(&str, Value)]) {
    let mut metadata = metadata;
    metadata["name"] = json!(NAME);
    let containers: Value = volumes.iter().map(|(name, _)| reader(name)).collect();
    let named = volumes.iter().map(|(name, volume)| {
        let mut volume = volume.clone();
        volume["name"] = json!(name);
        volume
    });
    let spec = json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": containers, "volumes": named.collect::<Value>(),
    });
    let pod = json!({"kind": "Pod", "metadata": metadata, "spec": spec});
    super::create(place, &pod);
    wait_for_phase(place, "Running");
}

/// What a container finds in a file of its volume.
fn content(place: &Place, container: &str, file: &str) -> Result<String, String> {
    let path = format!("/volume/{file}");
    let output = place.run(&["exec", NAME, "-c", container, "--", "cat", &path]);
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Waits until a container finds that in a file of its volume.
#[track_caller]
fn finds(place: &Place, container: &str, file: &str, wanted: &str) {
    eventually(
        &format!("{wanted:?} in {file} of {container}"),
        || match content(place, container, file) {
            Ok(text) if text.contains(wanted) => Ok(()),
            Ok(text) | Err(text) => Err(text),
        },
    );
}

/// Waits until a container does not find a file in its volume.
#[track_caller]
fn misses(place: &Place, container: &str, file: &str) {
    eventually(&format!("{container} without {file}"), || {
        match content(place, container, file) {
            Err(error) if error.contains("No such file or directory") => Ok(()),
            Ok(text) | Err(text) => Err(text),
        }
    });
}

/// The value of a ConfigMap is changed.
#[track_caller]
fn follows(volume: Value) {
    let Some(place) = place() else {
        return;
    };
    made(&place, "ConfigMap");
    running(&place, json!({}), &[("reader", volume)]);
    finds(&place, "reader", KEY, "value-1");
    let changed = json!({"data": {KEY: "value-2"}}).to_string();
    place.ok(&["patch", "configmap", "source", "-p", &changed]);
    finds(&place, "reader", KEY, "value-2");
}

/// Must: a ConfigMap is read in the volume.
/// Must: once it is changed, the changed value is.
#[test]
fn configmap_updates_should_be_reflected_in_volume() {
    follows(config_map());
}

/// Must: a ConfigMap is read in a projected volume.
/// Must: once it is changed, the changed value is.
#[test]
fn projected_configmap_updates_should_be_reflected_in_volume() {
    follows(projected("configMap"));
}

/// Of three objects that need not be there one is deleted, one changed and one made.
#[track_caller]
fn follows_optional(kind: &str, volume: fn() -> Value, name: fn(&mut Value) -> &mut Value) {
    let Some(place) = place() else {
        return;
    };
    let make = |name: &str| {
        let data = if kind == "Secret" {
            "stringData"
        } else {
            "data"
        };
        let object = json!({"kind": kind, "metadata": {"name": name}, data: {KEY: "value-1"}});
        super::create(&place, &object);
    };
    make("delete");
    make("update");
    let volumes = ["delete", "update", "create"].map(|of| {
        let mut volume = volume();
        let source = super::volumes::source(&mut volume);
        source["optional"] = json!(true);
        *name(source) = json!(of);
        (of, volume)
    });
    running(&place, json!({}), &volumes);
    misses(&place, "create", KEY);
    misses(&place, "update", "data-3");
    finds(&place, "update", KEY, "value-1");
    finds(&place, "delete", KEY, "value-1");

    place.ok(&["delete", kind, "delete"]);
    // In a Secret values are in base64.
    let value = if kind == "Secret" {
        "dmFsdWUtMw=="
    } else {
        "value-3"
    };
    let changed = json!({"data": {KEY: null, "data-3": value}}).to_string();
    place.ok(&["patch", kind, "update", "-p", &changed]);
    make("create");
    finds(&place, "create", KEY, "value-1");
    finds(&place, "update", "data-3", "value-3");
    misses(&place, "update", KEY);
    misses(&place, "delete", KEY);
}

fn name(source: &mut Value) -> &mut Value {
    &mut source["name"]
}

fn secret_name(source: &mut Value) -> &mut Value {
    &mut source["secretName"]
}

/// Must: ConfigMaps that need not be there are read in volumes.
/// Must: once they are made or changed, that is.
/// Must: of one that is deleted nothing can be read.
#[test]
fn configmap_optional_updates_should_be_reflected_in_volume() {
    follows_optional("ConfigMap", config_map, name);
}

/// Must: a container starts without a ConfigMap that need not be there.
/// Must: others read theirs in projected volumes.
/// Must: once the one is made, it is read.
/// Must: once another is changed, the changed value is.
/// Must: of one that is deleted nothing can be read.
#[test]
fn projected_configmap_optional_updates_should_be_reflected_in_volume() {
    follows_optional("ConfigMap", || projected("configMap"), name);
}

/// Must: a container starts without a Secret that need not be there.
/// Must: others read theirs.
/// Must: once the one is made, it is read.
/// Must: once another is changed, the changed value is.
/// Must: of one that is deleted nothing can be read.
#[test]
fn secrets_optional_updates_should_be_reflected_in_volume() {
    follows_optional("Secret", secret, secret_name);
}

/// Must: a container starts without a Secret that need not be there.
/// Must: others read theirs in projected volumes.
/// Must: once the one is made, it is read.
/// Must: once another is changed, the changed value is.
/// Must: of one that is deleted nothing can be read.
#[test]
fn projected_secret_optional_updates_should_be_reflected_in_volume() {
    follows_optional("Secret", || projected("secret"), name);
}

/// What the Pod is told of its own labels or annotations.
fn own(field: &str) -> Value {
    let path = format!("metadata.{field}");
    json!({"items": [{"path": field, "fieldRef": {"fieldPath": path}}]})
}

fn projected_own(field: &str) -> Value {
    json!({"projected": {"sources": [{"downwardAPI": own(field)}]}})
}

/// A label is added while the Pod runs.
#[track_caller]
fn follows_labels(volume: Value) {
    let Some(place) = place() else {
        return;
    };
    let metadata = json!({"labels": {"key1": "value1", "key2": "value2"}});
    running(&place, metadata, &[("reader", volume)]);
    let first = "key1=\"value1\"\nkey2=\"value2\"";
    finds(&place, "reader", "labels", first);
    place.ok(&["label", "pod", NAME, "key3=value3"]);
    finds(&place, "reader", "labels", "key3=\"value3\"");
}

/// An annotation is changed while the Pod runs.
#[track_caller]
fn follows_annotations(volume: Value) {
    let Some(place) = place() else {
        return;
    };
    let metadata = json!({"annotations": {"builder": "bar"}});
    running(&place, metadata, &[("reader", volume)]);
    finds(&place, "reader", "annotations", "builder=\"bar\"");
    place.ok(&["annotate", "--overwrite", "pod", NAME, "builder=foo"]);
    finds(&place, "reader", "annotations", "builder=\"foo\"");
}

/// Must: a file has the Pod's labels.
/// Must: once a label is added, it has that.
#[test]
fn downward_api_volume_should_update_labels_on_modification() {
    follows_labels(json!({"downwardAPI": own("labels")}));
}

/// Must: a file has the Pod's annotations.
/// Must: once an annotation is changed, it has the changed value.
#[test]
fn downward_api_volume_should_update_annotations_on_modification() {
    follows_annotations(json!({"downwardAPI": own("annotations")}));
}

/// Must: a file of a projected volume has the Pod's labels.
/// Must: once a label is added, it has that.
#[test]
fn projected_downwardapi_should_update_labels_on_modification() {
    follows_labels(projected_own("labels"));
}

/// Must: a file of a projected volume has the Pod's annotations.
/// Must: once an annotation is changed, it has the changed value.
#[test]
fn projected_downwardapi_should_update_annotations_on_modification() {
    follows_annotations(projected_own("annotations"));
}
