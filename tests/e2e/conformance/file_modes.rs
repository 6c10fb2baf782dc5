//! test/e2e/common/storage: the modes that files of ConfigMaps, Secrets and of what a Pod is told
//! have for the processes of a container, and the users that may read them.

use serde_json::{Value, json};

use super::outputs::{NAME, output_with};
use super::shared::place;
use super::volumes::{KEY, config_map, made, mapped, projected, secret, source};

/// Where a volume maps its key.
const MAPPED: &str = "path/to/data-2";

fn with_default_mode(mut volume: Value, mode: u32) -> Value {
    let plugin = volume.as_object_mut().unwrap().values_mut().next();
    plugin.unwrap()["defaultMode"] = json!(mode);
    volume
}

/// The volume with its key at another path, and in a mode of its own.
fn mapped_with_mode(volume: Value, mode: u32) -> Value {
    let mut volume = mapped(volume, MAPPED);
    source(&mut volume)["items"][0]["mode"] = json!(mode);
    volume
}

/// A file is read in a Pod of that `securityContext`, and has the mode.
#[track_caller]
fn consumable(kind: &str, volume: Value, file: &str, user: Value, wanted: &str) {
    let Some(place) = place() else {
        return;
    };
    made(&place, kind);
    let (uid, group) = (user["runAsUser"].clone(), user["fsGroup"].clone());
    let script = format!("cd /volume; cat {file}; echo; stat -L -c '%A %u %g' {file}; id -u");
    let said = output_with(&place, &script, volume, user);
    let (uid, group) = (uid.as_u64().unwrap_or(0), group.as_u64().unwrap_or(0));
    assert_eq!(said, format!("value-1\n{wanted} 0 {group}\n{uid}\n"));
}

fn root() -> Value {
    json!({})
}

fn non_root() -> Value {
    json!({"runAsUser": 1000})
}

/// A user whom only the volumes' group lets in, whichever policy says when they are given to it.
fn of_group(policy: &str) -> Value {
    json!({"runAsUser": 1000, "fsGroup": 1001, "fsGroupChangePolicy": policy})
}

/// Must: a ConfigMap is read in the volume.
/// Must: the content of the file is the value.
/// Must: its mode is the volume's, 0400.
#[test]
fn configmap_should_be_consumable_from_pods_in_volume_with_defaultmode_set() {
    let volume = with_default_mode(config_map(), 0o400);
    consumable("ConfigMap", volume, KEY, root(), "-r--------");
}

/// Must: a ConfigMap is read in the volume by a user who is not root.
/// Must: the mode of the file is 0644.
#[test]
fn configmap_should_be_consumable_from_pods_in_volume_as_non_root() {
    consumable("ConfigMap", config_map(), KEY, non_root(), "-rw-r--r--");
}

/// Must: a ConfigMap is read where the volume maps it.
/// Must: the content of the file is the value.
/// Must: its mode is the item's, 0400.
#[test]
fn configmap_should_be_consumable_from_pods_in_volume_with_mappings_and_item_mode_set() {
    let volume = mapped_with_mode(config_map(), 0o400);
    consumable("ConfigMap", volume, MAPPED, root(), "-r--------");
}

/// Must: a ConfigMap is read where the volume maps it, by a user who is not root.
/// Must: the mode of the file is 0644.
#[test]
fn configmap_should_be_consumable_from_pods_in_volume_with_mappings_as_non_root() {
    let volume = mapped(config_map(), MAPPED);
    consumable("ConfigMap", volume, MAPPED, non_root(), "-rw-r--r--");
}

/// Must: a ConfigMap is read in a projected volume.
/// Must: the mode of the file is the volume's, 0400.
#[test]
fn projected_configmap_should_be_consumable_from_pods_in_volume_with_defaultmode_set() {
    let volume = with_default_mode(projected("configMap"), 0o400);
    consumable("ConfigMap", volume, KEY, root(), "-r--------");
}

/// Must: a ConfigMap is read in a projected volume by a user who is not root.
/// Must: the mode of the file is 0644.
#[test]
fn projected_configmap_should_be_consumable_from_pods_in_volume_as_non_root() {
    let volume = projected("configMap");
    consumable("ConfigMap", volume, KEY, non_root(), "-rw-r--r--");
}

/// Must: a ConfigMap is read where a projected volume maps it.
/// Must: the mode of the file is the item's, 0400.
#[test]
fn projected_configmap_should_be_consumable_from_pods_in_volume_with_mappings_and_item_mode_set() {
    let volume = mapped_with_mode(projected("configMap"), 0o400);
    consumable("ConfigMap", volume, MAPPED, root(), "-r--------");
}

/// Must: a ConfigMap is read where a projected volume maps it, by a user who is not root.
/// Must: the mode of the file is 0644.
#[test]
fn projected_configmap_should_be_consumable_from_pods_in_volume_with_mappings_as_non_root() {
    let volume = mapped(projected("configMap"), MAPPED);
    consumable("ConfigMap", volume, MAPPED, non_root(), "-rw-r--r--");
}

/// Must: a Secret is read in the volume.
/// Must: the mode of the file is the volume's, 0400.
#[test]
fn secrets_should_be_consumable_from_pods_in_volume_with_defaultmode_set() {
    let volume = with_default_mode(secret(), 0o400);
    consumable("Secret", volume, KEY, root(), "-r--------");
}

/// Must: a Secret is read in the volume by a user who is not root, by the volumes' group.
/// Must: the mode of the file is the volume's, 0440.
#[test]
fn secrets_should_be_consumable_from_pods_in_volume_as_non_root_with_defaultmode_and_fsgroup_set() {
    let volume = with_default_mode(secret(), 0o440);
    let user = of_group("Always");
    consumable("Secret", volume, KEY, user, "-r--r-----");
}

/// Must: a Secret is read where the volume maps it.
/// Must: the mode of the file is the item's, 0400.
#[test]
fn secrets_should_be_consumable_from_pods_in_volume_with_mappings_and_item_mode_set() {
    let volume = mapped_with_mode(secret(), 0o400);
    consumable("Secret", volume, MAPPED, root(), "-r--------");
}

/// Must: a Secret is read in a projected volume.
/// Must: the mode of the file is the volume's, 0400.
#[test]
fn projected_secret_should_be_consumable_from_pods_in_volume_with_defaultmode_set() {
    let volume = with_default_mode(projected("secret"), 0o400);
    consumable("Secret", volume, KEY, root(), "-r--------");
}

/// Must: a Secret is read in a projected volume by a user who is not root, by the volumes' group.
/// Must: the mode of the file is the volume's, 0440.
#[test]
fn projected_secret_should_be_consumable_from_pods_in_volume_as_non_root_with_defaultmode_and_fsgroup_set()
 {
    let volume = with_default_mode(projected("secret"), 0o440);
    let user = of_group("OnRootMismatch");
    consumable("Secret", volume, KEY, user, "-r--r-----");
}

/// Must: a Secret is read where a projected volume maps it.
/// Must: the mode of the file is the item's, 0400.
#[test]
fn projected_secret_should_be_consumable_from_pods_in_volume_with_mappings_and_item_mode_set() {
    let volume = mapped_with_mode(projected("secret"), 0o400);
    consumable("Secret", volume, MAPPED, root(), "-r--------");
}

fn downward() -> Value {
    let item = json!({"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}});
    json!({"items": [item]})
}

/// A file of what the Pod is told is read, and only its owner may.
#[track_caller]
fn tells_its_owner(volume: Value) {
    let Some(place) = place() else {
        return;
    };
    let script = "cd /volume; cat podname; echo; stat -L -c %A podname";
    let said = output_with(&place, script, volume, root());
    assert_eq!(said, format!("{NAME}\n-r--------\n"));
}

fn projected_downward() -> Value {
    json!({"projected": {"sources": [{"downwardAPI": downward()}]}})
}

fn with_item_mode(mut volume: Value) -> Value {
    source(&mut volume)["items"][0]["mode"] = json!(0o400);
    volume
}

/// Must: a file with the Pod's name is read, and has the volume's mode, 0400.
#[test]
fn downward_api_volume_should_set_defaultmode_on_files() {
    let volume = json!({"downwardAPI": downward()});
    tells_its_owner(with_default_mode(volume, 0o400));
}

/// Must: a file with the Pod's name is read, and has the item's mode, 0400.
#[test]
fn downward_api_volume_should_set_mode_on_item_file() {
    tells_its_owner(with_item_mode(json!({"downwardAPI": downward()})));
}

/// Must: a file of a projected volume with the Pod's name is read, and has the volume's mode, 0400.
#[test]
fn projected_downwardapi_should_set_defaultmode_on_files() {
    tells_its_owner(with_default_mode(projected_downward(), 0o400));
}

/// Must: a file of a projected volume with the Pod's name is read, and has the item's mode, 0400.
#[test]
fn projected_downwardapi_should_set_mode_on_item_file() {
    tells_its_owner(with_item_mode(projected_downward()));
}
