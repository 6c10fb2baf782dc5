//! The environment of a container, and what of the Pod its variables and files may show.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, FileKeySelector, ObjectFieldSelector, ResourceFieldSelector,
};

use crate::validation::resources::parse_quantity;
use crate::validation::volume::Volumes;
use crate::validation::volume::path::validate_no_backsteps;
use crate::validation::{faults, text};

/// Fields of the Pod that a variable may show.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of the Pod that Kubernetes knows here, and shows nowhere.
const UNSHOWN_FIELDS: &[&str] = &["spec.restartPolicy", "spec.schedulerName", "status.phase"];

/// Fields of the Pod that a file may show.
const FILE_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Resources of a container that a variable or a file may show.
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

const BYTE_DIVISORS: &[&str] = &[
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// Where a field of the Pod is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// In a variable of the environment.
    Variable,
    /// In a file of a volume.
    File,
}

/// The variables of a container of a Pod with these volumes.
pub(crate) fn validate_env(
    variables: &[EnvVar],
    volumes: &Volumes<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    for (i, variable) in variables.iter().enumerate() {
        let at = at.index(i);
        if variable.name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else {
            faults(
                &variable.name,
                names::env_var_name(&variable.name),
                &at.child("name"),
                errors,
            );
        }
        validate_source(variable, volumes, &at.child("valueFrom"), errors);
    }
}

/// The sources that give a container variables wholesale.
pub(crate) fn validate_env_from(sources: &[EnvFromSource], at: &Path, errors: &mut ErrorList) {
    for (i, source) in sources.iter().enumerate() {
        let idx = at.index(i);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            faults(
                prefix,
                names::env_var_name(prefix),
                &idx.child("prefix"),
                errors,
            );
        }
        let refs = [
            (
                "configMapRef",
                source.config_map_ref.as_ref().map(|r| r.name.as_str()),
            ),
            (
                "secretRef",
                source.secret_ref.as_ref().map(|r| r.name.as_str()),
            ),
        ];
        for (field, name) in refs {
            let at = idx.child(field).child("name");
            match name {
                None => {}
                Some("") => errors.push(Error::required(&at, "")),
                Some(name) => faults(name, names::prefix(name, names::dns_subdomain), &at, errors),
            }
        }
        match refs.iter().filter(|(_, name)| name.is_some()).count() {
            0 => errors.push(Error::invalid(
                at,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            1 => {}
            _ => errors.push(Error::invalid(
                at,
                "",
                "may not have more than one field specified at a time",
            )),
        }
    }
}

fn validate_source(variable: &EnvVar, volumes: &Volumes<'_>, at: &Path, errors: &mut ErrorList) {
    let Some(source) = &variable.value_from else {
        return;
    };
    let mut sources = 0;
    if let Some(selector) = &source.field_ref {
        sources += 1;
        validate_field_selector(selector, Shown::Variable, &at.child("fieldRef"), errors);
    }
    if let Some(selector) = &source.resource_field_ref {
        sources += 1;
        validate_resource_selector(
            selector,
            Shown::Variable,
            &at.child("resourceFieldRef"),
            errors,
        );
    }
    let keys = [
        (
            "configMapKeyRef",
            source
                .config_map_key_ref
                .as_ref()
                .map(|r| (&r.name, &r.key)),
        ),
        (
            "secretKeyRef",
            source.secret_key_ref.as_ref().map(|r| (&r.name, &r.key)),
        ),
    ];
    for (field, selector) in keys {
        if let Some((name, key)) = selector {
            sources += 1;
            validate_key(name, key, &at.child(field), errors);
        }
    }
    if let Some(selector) = &source.file_key_ref {
        sources += 1;
        validate_file_key(selector, volumes, &at.child("fileKeyRef"), errors);
    }
    let detail = match sources {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if !text(&variable.value).is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(Error::invalid(at, "", detail));
}

fn validate_key(name: &str, key: &str, at: &Path, errors: &mut ErrorList) {
    faults(name, names::dns_subdomain(name), &at.child("name"), errors);
    if key.is_empty() {
        errors.push(Error::required(&at.child("key"), ""));
    } else {
        faults(key, names::config_map_key(key), &at.child("key"), errors);
    }
}

fn validate_file_key(
    selector: &FileKeySelector,
    volumes: &Volumes<'_>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if selector.key.is_empty() {
        errors.push(Error::required(&at.child("key"), ""));
    } else {
        faults(
            &selector.key,
            names::env_var_name(&selector.key),
            &at.child("key"),
            errors,
        );
    }
    let name_at = at.child("volumeName");
    let name = selector.volume_name.as_str();
    if name.is_empty() {
        errors.push(Error::required(&name_at, ""));
    } else {
        faults(name, names::dns_label(name), &name_at, errors);
    }
    match volumes.get(name) {
        None => errors.push(Error::not_found(&name_at, name)),
        Some(volume) if volume.empty_dir.is_none() => {
            let detail = "referenced volume must be of type emptyDir";
            errors.push(Error::invalid(&name_at, name, detail));
        }
        Some(_) => {}
    }
    if selector.path.is_empty() {
        errors.push(Error::required(&at.child("path"), ""));
    } else {
        validate_no_backsteps(&selector.path, &at.child("path"), errors);
    }
}

/// A field of the Pod, as it is shown in a variable or a file.
pub(crate) fn validate_field_selector(
    selector: &ObjectFieldSelector,
    shown: Shown,
    at: &Path,
    errors: &mut ErrorList,
) {
    let path_at = at.child("fieldPath");
    let (version, path) = (text(&selector.api_version), selector.field_path.as_str());
    if version.is_empty() {
        errors.push(Error::required(&at.child("apiVersion"), ""));
        return;
    }
    if path.is_empty() {
        errors.push(Error::required(&path_at, ""));
        return;
    }
    if version != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {version}");
        errors.push(Error::invalid(&path_at, path, detail));
        return;
    }
    if let Some((map, key)) = path
        .strip_suffix("']")
        .and_then(|path| path.split_once("['"))
    {
        match map {
            "metadata.annotations" => {
                faults(key, names::qualified_name(&key.to_lowercase()), at, errors)
            }
            "metadata.labels" => faults(key, names::qualified_name(key), at, errors),
            "metadata.name"
            | "metadata.namespace"
            | "metadata.uid"
            | "spec.nodeName"
            | "spec.serviceAccountName"
            | "status.hostIP"
            | "status.hostIPs"
            | "status.podIP"
            | "status.podIPs" => {
                errors.push(Error::invalid(at, map, "does not support subscript"));
            }
            _ => unknown_label(path, &path_at, errors),
        }
        return;
    }
    let (known, other) = match shown {
        Shown::Variable => (ENV_FIELDS, FILE_FIELDS),
        Shown::File => (FILE_FIELDS, ENV_FIELDS),
    };
    if known.contains(&path) {
        return;
    }
    if other.contains(&path) || UNSHOWN_FIELDS.contains(&path) {
        errors.push(Error::not_supported(&path_at, path, known));
    } else {
        unknown_label(path, &path_at, errors);
    }
}

fn unknown_label(path: &str, at: &Path, errors: &mut ErrorList) {
    let detail = format!("error converting fieldPath: field label not supported: {path}");
    errors.push(Error::invalid(at, path, detail));
}

/// A resource of a container, as it is shown in a variable or a file.
pub(crate) fn validate_resource_selector(
    selector: &ResourceFieldSelector,
    shown: Shown,
    at: &Path,
    errors: &mut ErrorList,
) {
    let resource = selector.resource.as_str();
    let huge =
        resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if shown == Shown::File && text(&selector.container_name).is_empty() {
        errors.push(Error::required(&at.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(Error::required(&at.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.push(Error::not_supported(
            &at.child("resource"),
            resource,
            RESOURCES,
        ));
    }
    let divisor_at = at.child("divisor");
    let Some(divisor) = &selector.divisor else {
        return;
    };
    let Some(divisor) =
        parse_quantity(divisor, &divisor_at, errors).filter(|d| *d != Quantity::ZERO)
    else {
        return;
    };
    let (divisors, which) = match resource {
        "limits.cpu" | "requests.cpu" => (&["1m", "1"][..], "cpu"),
        "limits.memory" | "requests.memory" => (BYTE_DIVISORS, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            (BYTE_DIVISORS, "local ephemeral storage")
        }
        _ if huge => (BYTE_DIVISORS, "hugepages"),
        _ => return,
    };
    if !divisors.contains(&divisor.to_string().as_str()) {
        let listed = if which == "cpu" {
            "1m and 1".to_owned()
        } else {
            divisors.join(", ")
        };
        let detail =
            format!("only divisor's values {listed} are supported with the {which} resource");
        errors.push(Error::invalid(&divisor_at, resource, detail));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn variables() {
        let field = |path: &str| json!({"name": "A", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"name": "A", "value": "b"}), vec![]),
            (json!({"name": "a.b-c"}), vec![]),
            (json!({"name": ""}), vec!["env[0].name FieldValueRequired"]),
            (
                json!({"name": "A=B"}),
                vec!["env[0].name FieldValueInvalid"],
            ),
            (field("status.podIP"), vec![]),
            (field("metadata.labels['app']"), vec![]),
            (
                field("metadata.labels"),
                vec!["env[0].valueFrom.fieldRef.fieldPath FieldValueNotSupported"],
            ),
            (
                field("status.phase"),
                vec!["env[0].valueFrom.fieldRef.fieldPath FieldValueNotSupported"],
            ),
            (
                field("spec.volumes"),
                vec![
                    "env[0].valueFrom.fieldRef.fieldPath FieldValueInvalid error converting fieldPath: field label not supported",
                ],
            ),
            (
                field("metadata.name['x']"),
                vec!["env[0].valueFrom.fieldRef FieldValueInvalid does not support subscript"],
            ),
            (
                json!({"name": "A", "valueFrom": {}}),
                vec!["env[0].valueFrom FieldValueInvalid must specify one of"],
            ),
            (
                json!({"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}),
                vec![
                    "env[0].valueFrom FieldValueInvalid may not be specified when `value` is not empty",
                ],
            ),
            (
                json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": ""}, "configMapKeyRef": {"name": "S", "key": "k"}}}),
                vec![
                    "env[0].valueFrom.configMapKeyRef.name FieldValueInvalid",
                    "env[0].valueFrom.secretKeyRef.key FieldValueRequired",
                    "env[0].valueFrom FieldValueInvalid may not have more than one field",
                ],
            ),
            (
                json!({"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}),
                vec![
                    "env[0].valueFrom.resourceFieldRef.divisor FieldValueInvalid only divisor's values 1m and 1",
                ],
            ),
            (
                json!({"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "no", "path": "../x", "key": "K"}}}),
                vec![
                    "env[0].valueFrom.fileKeyRef.volumeName FieldValueNotFound",
                    "env[0].valueFrom.fileKeyRef.path FieldValueInvalid must not contain '..'",
                ],
            ),
        ];
        for (value, want) in table {
            let mut errors = ErrorList::default();
            validate_env(
                &[serde_json::from_value(value).unwrap()],
                &Volumes::new(),
                &Path::new("env"),
                &mut errors,
            );
            assert_causes(&errors, &want);
        }
    }

    #[test]
    fn wholesale() {
        let sources: Vec<EnvFromSource> = serde_json::from_value(json!([
            {"configMapRef": {"name": "a"}, "prefix": "P_"},
            {"secretRef": {"name": ""}},
            {},
        ]))
        .unwrap();
        let mut errors = ErrorList::default();
        validate_env_from(&sources, &Path::new("envFrom"), &mut errors);
        assert_causes(
            &errors,
            &[
                "envFrom[1].secretRef.name FieldValueRequired",
                "envFrom FieldValueInvalid must specify one of",
            ],
        );
    }
}
