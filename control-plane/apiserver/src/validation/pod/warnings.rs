//! What is valid in a Pod or a template, and most likely not meant.

use coracle_apimachinery::field::Path;
use coracle_apimachinery::names;
use coracle_apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};

use crate::validation::{items, text};

/// Labels of nodes that have newer names, and since when.
const RENAMED_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "kubernetes.io/arch", "v1.14"),
    ("beta.kubernetes.io/os", "kubernetes.io/os", "v1.14"),
    (
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "v1.17",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
        "v1.17",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
        "v1.17",
    ),
];

/// Where a name is used in the hostnames of Pods, it had better be a label; `uses` says where.
pub(crate) fn name_warning(name: &str, uses: &str) -> Option<String> {
    let faults = names::dns_label(name);
    (!name.is_empty() && !faults.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {uses}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            faults.join(" ")
        )
    })
}

/// Warnings about a spec.
pub(crate) fn spec_warnings(spec: &PodSpec, at: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
        if let Some((_, new, since)) = RENAMED_LABELS.iter().find(|(old, ..)| old == key) {
            let at = at.child("nodeSelector").key(key);
            warnings.push(format!(
                "{at}: deprecated since {since}; use {new:?} instead"
            ));
        }
    }
    for (i, volume) in items(&spec.volumes).iter().enumerate() {
        if volume.git_repo.is_some() {
            let at = at.child("volumes").index(i).child("gitRepo");
            warnings.push(format!(
                "{at}: deprecated in v1.11, and disabled by default in v1.33+"
            ));
        }
    }
    for (i, secret) in items(&spec.image_pull_secrets).iter().enumerate() {
        if secret.name.is_empty() {
            let at = at.child("imagePullSecrets").index(i).child("name");
            warnings.push(format!("{at}: invalid empty name \"\""));
        }
    }
    let mut ports = Vec::new();
    let lists = [
        ("initContainers", items(&spec.init_containers)),
        ("containers", &spec.containers[..]),
    ];
    for (field, containers) in lists {
        for (i, container) in containers.iter().enumerate() {
            container_warnings(
                container,
                &at.child(field).index(i),
                &mut ports,
                &mut warnings,
            );
        }
    }
    if spec
        .termination_grace_period_seconds
        .is_some_and(|seconds| seconds < 0)
    {
        let at = at.child("terminationGracePeriodSeconds");
        warnings.push(format!(
            "{at}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    warnings
}

fn container_warnings<'a>(
    container: &'a Container,
    at: &Path,
    ports: &mut Vec<(&'a ContainerPort, Path)>,
    warnings: &mut Vec<String>,
) {
    let variables = items(&container.env);
    for (i, variable) in variables.iter().enumerate() {
        // A variable may be built up from its own former value.
        let own = text(&variable.value).contains(&format!("$({})", variable.name));
        if !own
            && variables[..i]
                .iter()
                .any(|other| other.name == variable.name)
        {
            let at = at.child("env").index(i);
            warnings.push(format!(
                "{at}: hides previous definition of {:?}, which may be dropped when using apply",
                variable.name
            ));
        }
    }
    for (i, port) in items(&container.ports).iter().enumerate() {
        let at = at.child("ports").index(i);
        let unnamed = |port: &ContainerPort| ContainerPort {
            name: None,
            ..port.clone()
        };
        match ports
            .iter()
            .find(|(other, _)| unnamed(other) == unnamed(port))
        {
            Some((_, first)) => {
                warnings.push(format!("{at}: duplicate port definition with {first}"))
            }
            None => ports.push((port, at)),
        }
    }
    let Some(resources) = &container.resources else {
        return;
    };
    for (field, list) in [
        ("limits", &resources.limits),
        ("requests", &resources.requests),
    ] {
        for (name, quantity) in list.iter().flatten() {
            let bytes = matches!(name.as_str(), "memory" | "ephemeral-storage");
            let fractional =
                Quantity::try_from(quantity).is_ok_and(|q| q.milli_value() % 1000 != 0);
            if bytes && fractional {
                let at = at.child("resources").child(field).key(name);
                let value = &quantity.0;
                warnings.push(format!(
                    "{at}: fractional byte value {value:?} is invalid, must be an integer"
                ));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_spec() {
        let spec: PodSpec = serde_json::from_value(json!({
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "terminationGracePeriodSeconds": -1,
            "containers": [
                {
                    "name": "a",
                    "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}],
                    "ports": [{"containerPort": 80, "name": "x"}],
                    "resources": {"limits": {"memory": "1500m"}},
                },
                {"name": "b", "ports": [{"containerPort": 80}]},
            ],
        }))
        .unwrap();
        assert_eq!(
            spec_warnings(&spec, &Path::new("spec")),
            [
                r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
                r#"spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply"#,
                r#"spec.containers[0].resources.limits[memory]: fractional byte value "1500m" is invalid, must be an integer"#,
                "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
    }

    #[test]
    fn of_a_name() {
        assert_eq!(name_warning("web", "the Pod's hostname"), None);
        let warning = name_warning("web.example", "the Pod's hostname").unwrap();
        assert!(
            warning.starts_with("metadata.name: this is used in the Pod's hostname, which can"),
            "{warning}"
        );
    }
}
