//! How a container uses the volumes of its Pod.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::Volumes;
use super::path::validate_local_descending;
use crate::validation::{items, text};

/// The mounts of a container.
pub(crate) fn validate_mounts(
    container: &Container,
    volumes: &Volumes<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let mounts = items(&container.volume_mounts);
    let devices = items(&container.volume_devices);
    let device_names: BTreeSet<&str> = devices.iter().map(|device| &*device.name).collect();
    let device_paths: BTreeSet<&str> = devices.iter().map(|device| &*device.device_path).collect();
    let mut paths = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let idx = at.index(i);
        let (name, path) = (mount.name.as_str(), mount.mount_path.as_str());
        let (name_at, path_at) = (idx.child("name"), idx.child("mountPath"));
        let volume = volumes.get(name);
        if name.is_empty() {
            errors.push(Error::required(&name_at, ""));
        }
        if volume.is_none() {
            errors.push(Error::not_found(&name_at, name));
        }
        if path.is_empty() {
            errors.push(Error::required(&path_at, ""));
        }
        if !paths.insert(path) {
            errors.push(Error::invalid(&path_at, path, "must be unique"));
        }
        if device_names.contains(name) {
            errors.push(Error::invalid(
                &name_at,
                name,
                "must not already exist in volumeDevices",
            ));
        }
        if device_paths.contains(path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(Error::invalid(&path_at, path, detail));
        }
        validate_sub_path(mount, at, &idx, errors);
        validate_propagation(mount, container, &at.child("mountPropagation"), errors);
        validate_recursive_read_only(mount, &at.child("recursiveReadOnly"), errors);
    }
}

fn validate_sub_path(mount: &VolumeMount, at: &Path, idx: &Path, errors: &mut ErrorList) {
    let (path, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if !path.is_empty() {
        validate_local_descending(path, &at.child("subPath"), errors);
    }
    if expression.is_empty() {
        return;
    }
    if !path.is_empty() {
        let detail = "subPathExpr and subPath are mutually exclusive";
        errors.push(Error::invalid(
            &idx.child("subPathExpr"),
            expression,
            detail,
        ));
    }
    validate_local_descending(expression, &at.child("subPathExpr"), errors);
}

fn validate_propagation(
    mount: &VolumeMount,
    container: &Container,
    at: &Path,
    errors: &mut ErrorList,
) {
    let Some(propagation) = mount.mount_propagation.as_deref() else {
        return;
    };
    let supported = ["Bidirectional", "HostToContainer", "None"];
    if !supported.contains(&propagation) {
        errors.push(Error::not_supported(at, propagation, &supported));
    }
    let privileged = container
        .security_context
        .as_ref()
        .and_then(|context| context.privileged);
    if propagation == "Bidirectional" && privileged != Some(true) {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(Error::forbidden(at, detail));
    }
}

fn validate_recursive_read_only(mount: &VolumeMount, at: &Path, errors: &mut ErrorList) {
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.push(Error::forbidden(
                    at,
                    "may only be specified when readOnly is true",
                ));
            }
            if !matches!(text(&mount.mount_propagation), "" | "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(Error::forbidden(at, detail));
            }
        }
        Some(other) => {
            errors.push(Error::not_supported(
                at,
                other,
                &["Disabled", "Enabled", "IfPossible"],
            ));
        }
    }
}

/// The block devices of a container.
pub(crate) fn validate_devices(
    container: &Container,
    volumes: &Volumes<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    let mounts = items(&container.volume_mounts);
    let devices = items(&container.volume_devices);
    let mount_names: BTreeSet<&str> = mounts.iter().map(|mount| &*mount.name).collect();
    let mount_paths: BTreeSet<&str> = mounts.iter().map(|mount| &*mount.mount_path).collect();
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in devices.iter().enumerate() {
        let at = at.index(i);
        let (name, path) = (device.name.as_str(), device.device_path.as_str());
        let (name_at, path_at) = (at.child("name"), at.child("devicePath"));
        if name.is_empty() {
            errors.push(Error::required(&name_at, ""));
        } else if !names.insert(name) {
            errors.push(Error::invalid(&name_at, name, "must be unique"));
        }
        match volumes.get(name) {
            None => errors.push(Error::not_found(&name_at, name)),
            Some(volume)
                if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() =>
            {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(Error::invalid(&name_at, name, detail));
            }
            Some(_) => {}
        }
        if path.is_empty() {
            errors.push(Error::required(&path_at, ""));
        } else if path.split('/').any(|element| element == "..") {
            errors.push(Error::invalid(
                &path_at,
                path,
                "can not contain backsteps ('..')",
            ));
        }
        if !paths.insert(path) {
            errors.push(Error::invalid(&path_at, path, "must be unique"));
        }
        if mount_names.contains(name) {
            errors.push(Error::invalid(
                &name_at,
                name,
                "must not already exist in volumeMounts",
            ));
        }
        if mount_paths.contains(path) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.push(Error::invalid(&path_at, path, detail));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use k8s_openapi::api::core::v1::Volume;
    use serde_json::json;

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn mounts_and_devices() {
        let volumes: Vec<Volume> = serde_json::from_value(json!([
            {"name": "a", "emptyDir": {}},
            {"name": "b", "persistentVolumeClaim": {"claimName": "x"}},
        ]))
        .unwrap();
        let container: Container = serde_json::from_value(json!({
            "name": "c",
            "volumeMounts": [
                {"name": "a", "mountPath": "/a", "subPath": "../x"},
                {"name": "no", "mountPath": "/a"},
                {"name": "a", "mountPath": "/b", "mountPropagation": "Bidirectional"},
                {"name": "a", "mountPath": "/c", "recursiveReadOnly": "Enabled", "subPath": "x", "subPathExpr": "$(X)"},
            ],
            "volumeDevices": [{"name": "b", "devicePath": "/dev/x"}, {"name": "a", "devicePath": "/dev/../x"}],
        }))
        .unwrap();
        let mut errors = ErrorList::default();
        let named = volumes.iter().map(|volume| (&*volume.name, volume));
        let volumes: Volumes<'_> = named.collect();
        validate_mounts(&container, &volumes, &Path::new("m"), &mut errors);
        assert_causes(
            &errors,
            &[
                "m[0].name FieldValueInvalid must not already exist in volumeDevices",
                "m.subPath FieldValueInvalid must not contain '..'",
                "m[1].name FieldValueNotFound",
                "m[1].mountPath FieldValueInvalid must be unique",
                "m[2].name FieldValueInvalid must not already exist in volumeDevices",
                "m.mountPropagation FieldValueForbidden Bidirectional mount propagation",
                "m[3].name FieldValueInvalid must not already exist in volumeDevices",
                "m[3].subPathExpr FieldValueInvalid subPathExpr and subPath are mutually exclusive",
                "m.recursiveReadOnly FieldValueForbidden may only be specified when readOnly is true",
            ],
        );
        let mut errors = ErrorList::default();
        validate_devices(&container, &volumes, &Path::new("d"), &mut errors);
        assert_causes(
            &errors,
            &[
                "d[1].name FieldValueInvalid can only use volume source type",
                "d[1].devicePath FieldValueInvalid can not contain backsteps",
                "d[1].name FieldValueInvalid must not already exist in volumeMounts",
            ],
        );
    }
}
