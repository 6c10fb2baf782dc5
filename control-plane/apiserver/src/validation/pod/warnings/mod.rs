//! What is valid in a Pod or a template, and most likely not meant.

mod container;
mod volume;

use std::collections::BTreeSet;

use coracle_apimachinery::field::Path;
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, PodSpec, WeightedPodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::container::{Ports, warnings_of_bytes, warnings_of_variables};
use self::volume::{warnings_of_files, warnings_of_volume};
use super::profiles::APP_ARMOR;
use crate::validation::items;
use crate::validation::scheduling::deprecated::{deprecated_label, term_warnings};

pub(crate) use volume::claim_warnings;

/// Resources that are counted in bytes.
const BYTES: &[&str] = &["memory", "ephemeral-storage"];

/// Annotations that once meant something.
const ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
pub(super) const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub(super) const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR_SINCE: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";

/// With how many others each file, and each port, is compared: Pods that are meant have fewer.
const COMPARED: usize = 512;
/// Bytes of warnings beyond which no client hears of more (`handlers/encode`).
const ENOUGH: usize = 16 * 1024;

/// Whether there are as many warnings as a client can be told. What compares each with each asks, as
/// its warnings could be far more than what was sent.
fn is_enough(warnings: &[String]) -> bool {
    let mut left = ENOUGH;
    warnings.iter().any(|warning| {
        left = left.saturating_sub(warning.len());
        left == 0
    })
}

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

/// Warnings about a Pod or a template. `at` is that of what has the spec and the metadata.
pub(crate) fn pod_warnings(spec: &PodSpec, meta: Option<&ObjectMeta>, at: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    let of_spec = at.child("spec");
    scheduling_warnings(spec, &of_spec, &mut warnings);
    let annotated = |key: &str| {
        let annotations = meta.and_then(|meta| meta.annotations.as_ref());
        annotations.is_some_and(|annotations| annotations.contains_key(key))
    };
    let annotations_at = at.child("metadata").child("annotations");
    let annotation = |key: &str, message: &str, warnings: &mut Vec<String>| {
        if annotated(key) {
            warnings.push(format!("{}: {message}", annotations_at.key(key)));
        }
    };
    for (key, message) in ANNOTATIONS {
        annotation(key, message, &mut warnings);
    }
    for (i, volume) in items(&spec.volumes).iter().enumerate() {
        let at = of_spec.child("volumes").index(i);
        warnings_of_volume(volume, &at, &mut warnings);
    }
    for volume in items(&spec.volumes) {
        warnings_of_files(volume, &mut warnings);
    }
    repetitions(spec, &of_spec, &mut warnings);
    let overhead_at = of_spec.child("overhead");
    warnings_of_bytes(spec.overhead.as_ref(), BYTES, &overhead_at, &mut warnings);
    let context = spec.security_context.as_ref();
    if context.is_none_or(|context| context.seccomp_profile.is_none()) {
        annotation(SECCOMP_OF_POD, SECCOMP, &mut warnings);
    }
    let lists = [
        ("initContainers", items(&spec.init_containers)),
        ("containers", &spec.containers[..]),
    ];
    let containers = || {
        lists.into_iter().flat_map(|(field, containers)| {
            let at = of_spec.child(field);
            let each = containers.iter().enumerate();
            each.map(move |(i, container)| (container, at.index(i)))
        })
    };
    let of_template = !at.as_str().is_empty();
    for (container, at) in containers() {
        let context = container.security_context.as_ref();
        // Of a Pod the annotation has become the field by now.
        if of_template && context.is_none_or(|context| context.app_armor_profile.is_none()) {
            let key = format!("{APP_ARMOR}{}", container.name);
            annotation(&key, APP_ARMOR_SINCE, &mut warnings);
        }
        if context.is_none_or(|context| context.seccomp_profile.is_none()) {
            let key = format!("{SECCOMP_OF_CONTAINER}{}", container.name);
            annotation(&key, SECCOMP, &mut warnings);
        }
        if let Some(resources) = &container.resources {
            let at = at.child("resources");
            for (field, list) in [
                ("limits", resources.limits.as_ref()),
                ("requests", resources.requests.as_ref()),
            ] {
                warnings_of_bytes(list, BYTES, &at.child(field), &mut warnings);
            }
        }
        warnings_of_variables(items(&container.env), &at.child("env"), &mut warnings);
    }
    let mut ports = Ports::default();
    for (container, at) in containers() {
        ports.add(container, &at, &mut warnings);
    }
    warnings.append(&mut ports.about_names);
    let grace = spec.termination_grace_period_seconds;
    if grace.is_some_and(|seconds| seconds < 0) {
        let at = of_spec.child("terminationGracePeriodSeconds");
        warnings.push(format!(
            "{at}: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    if let Some(affinity) = &spec.affinity {
        affinity_warnings(affinity, &of_spec.child("affinity"), &mut warnings);
    }
    warnings
}

/// About labels of nodes, and constraints that count nothing.
fn scheduling_warnings(spec: &PodSpec, at: &Path, warnings: &mut Vec<String>) {
    for (key, _) in spec.node_selector.iter().flatten() {
        if let Some(message) = deprecated_label(key) {
            warnings.push(format!("{}: {message}", at.child("nodeSelector").key(key)));
        }
    }
    let affinity = spec.affinity.as_ref();
    if let Some(nodes) = affinity.and_then(|affinity| affinity.node_affinity.as_ref()) {
        let at = at.child("affinity").child("nodeAffinity");
        let required = &nodes.required_during_scheduling_ignored_during_execution;
        let terms = required
            .as_ref()
            .map(|required| &required.node_selector_terms[..]);
        let terms_at = at
            .child("requiredDuringSchedulingIgnoredDuringExecution")
            .child("nodeSelectorTerms");
        for (i, term) in terms.unwrap_or_default().iter().enumerate() {
            term_warnings(term, false, &terms_at.index(i), warnings);
        }
        let preferred_at = at.child("preferredDuringSchedulingIgnoredDuringExecution");
        let preferred = items(&nodes.preferred_during_scheduling_ignored_during_execution);
        for (i, term) in preferred.iter().enumerate() {
            let at = preferred_at.index(i).child("preference");
            term_warnings(&term.preference, true, &at, warnings);
        }
    }
    let constraints = items(&spec.topology_spread_constraints);
    for (i, constraint) in constraints.iter().enumerate() {
        let at = at.child("topologySpreadConstraints").index(i);
        let key = constraint.topology_key.as_str();
        if let Some(message) = deprecated_label(key) {
            warnings.push(format!("{}: {key} is {message}", at.child("topologyKey")));
        }
        if constraint.label_selector.is_none() {
            no_selector(&at, warnings);
        }
    }
}

fn affinity_warnings(affinity: &Affinity, at: &Path, warnings: &mut Vec<String>) {
    let towards = affinity.pod_affinity.as_ref().map(|affinity| {
        (
            "podAffinity",
            &affinity.required_during_scheduling_ignored_during_execution,
            &affinity.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let away = affinity.pod_anti_affinity.as_ref().map(|affinity| {
        (
            "podAntiAffinity",
            &affinity.required_during_scheduling_ignored_during_execution,
            &affinity.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let is_null = |term: &PodAffinityTerm| term.label_selector.is_none();
    for (field, required, preferred) in towards.into_iter().chain(away) {
        let at = at.child(field);
        let required_at = at.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (i, _) in items(required)
            .iter()
            .enumerate()
            .filter(|(_, t)| is_null(t))
        {
            no_selector(&required_at.index(i), warnings);
        }
        let preferred_at = at.child("preferredDuringSchedulingIgnoredDuringExecution");
        let weighted = |term: &WeightedPodAffinityTerm| is_null(&term.pod_affinity_term);
        for (i, _) in items(preferred)
            .iter()
            .enumerate()
            .filter(|(_, t)| weighted(t))
        {
            no_selector(&preferred_at.index(i).child("podAffinityTerm"), warnings);
        }
    }
}

fn no_selector(at: &Path, warnings: &mut Vec<String>) {
    warnings.push(format!(
        "{}: a null labelSelector results in matching no pod",
        at.child("labelSelector")
    ));
}

/// About what comes twice, of which `kubectl apply` would lose one.
fn repetitions(spec: &PodSpec, at: &Path, warnings: &mut Vec<String>) {
    let aliases = items(&spec.host_aliases);
    let mut seen = BTreeSet::new();
    for (i, alias) in aliases.iter().enumerate() {
        if !seen.insert(alias.ip.as_str()) {
            let at = at.child("hostAliases").index(i).child("ip");
            warnings.push(format!("{at}: duplicate ip {:?}", alias.ip));
        }
    }
    let secrets = items(&spec.image_pull_secrets);
    let path = |i: usize| at.child("imagePullSecrets").index(i).child("name");
    seen.clear();
    for (i, secret) in secrets.iter().enumerate() {
        if !seen.insert(secret.name.as_str()) {
            warnings.push(format!("{}: duplicate name {:?}", path(i), secret.name));
        }
    }
    for (i, _) in secrets
        .iter()
        .enumerate()
        .filter(|(_, s)| s.name.is_empty())
    {
        warnings.push(format!("{}: invalid empty name \"\"", path(i)));
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
                    "env": [
                        {"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"},
                        {"name": "A", "value": "3"}, {"name": "A", "value": "$(A)"},
                    ],
                    "ports": [{"containerPort": 80, "name": "x", "protocol": "TCP"}],
                    "resources": {"limits": {"memory": "1500m"}},
                },
                {"name": "b", "ports": [
                    {"containerPort": 80, "protocol": "TCP"},
                    {"containerPort": 80, "protocol": "TCP", "hostPort": 8080},
                    {"containerPort": 81, "protocol": "TCP", "hostIP": "10.0.0.1", "name": "x"},
                ]},
            ],
        }))
        .unwrap();
        assert_eq!(
            pod_warnings(&spec, None, &Path::root()),
            [
                r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
                r#"spec.containers[0].resources.limits[memory]: fractional byte value "1500m" is invalid, must be an integer"#,
                r#"spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply"#,
                r#"spec.containers[0].env[3]: hides previous definition of "A", which may be dropped when using apply"#,
                "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[1]: overlapping port definition with spec.containers[1].ports[0]",
                "spec.containers[1].ports[2]: hostIP set without hostPort: {Name:x HostPort:0 ContainerPort:81 Protocol:TCP HostIP:10.0.0.1}",
                r#"spec.containers[1].ports[2]: duplicate port name "x" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]"#,
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ]
        );
    }

    #[test]
    fn of_a_template() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{"name": "a"}],
            "affinity": {
                "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "preference": {"matchExpressions": [
                        {"key": "node-role.kubernetes.io/master", "operator": "In", "values": ["-"]},
                    ]}},
                ]},
                "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "z"}]},
            },
            "topologySpreadConstraints": [
                {"topologyKey": "failure-domain.beta.kubernetes.io/zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"},
            ],
            "hostAliases": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}],
            "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}],
            "volumes": [
                {"name": "m", "configMap": {"name": "c", "items": [{"key": "a", "path": "p"}, {"key": "b", "path": "p/q"}]}},
                {"name": "p", "projected": {"sources": [
                    {"secret": {"name": "s", "items": [{"key": "a", "path": "t"}]}},
                    {"serviceAccountToken": {"path": "t"}},
                ]}},
                {"name": "r", "rbd": {"monitors": ["m"], "image": "i"}},
            ],
        }))
        .unwrap();
        let meta: ObjectMeta = serde_json::from_value(json!({"annotations": {
            "security.alpha.kubernetes.io/sysctls": "a=b",
            "seccomp.security.alpha.kubernetes.io/pod": "runtime/default",
            "container.seccomp.security.alpha.kubernetes.io/a": "runtime/default",
        }}))
        .unwrap();
        let warnings = pod_warnings(&spec, Some(&meta), &Path::new("template"));
        let want = [
            "template.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: node-role.kubernetes.io/master is use",
            "template.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].values[0]: - is invalid, a valid label",
            "template.spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17",
            "template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector",
            "template.metadata.annotations[security.alpha.kubernetes.io/sysctls]: non-functional in v1.11+",
            "template.spec.volumes[2].rbd: deprecated in v1.28, non-functional in v1.31+",
            r#"volume "m" (ConfigMap "c"): overlapping paths: "p/q" with "p""#,
            r#"volume "p" (Projected): overlapping paths: "t" (ServiceAccountToken) with "t" (Secret "s")"#,
            r#"template.spec.hostAliases[1].ip: duplicate ip "10.0.0.1""#,
            r#"template.spec.imagePullSecrets[1].name: duplicate name "s""#,
            r#"template.spec.imagePullSecrets[2].name: invalid empty name """#,
            "template.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+",
            "template.metadata.annotations[container.seccomp.security.alpha.kubernetes.io/a]: non-functional",
            "template.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null",
        ];
        assert_eq!(warnings.len(), want.len(), "{warnings:#?}");
        for (warning, want) in warnings.iter().zip(want) {
            assert!(warning.starts_with(want), "{warning}, not {want}");
        }
    }

    #[test]
    fn no_more_than_a_client_can_be_told() {
        let files = vec![json!({"key": "k", "path": "p"}); 600];
        let volume = json!({"name": "v", "configMap": {"name": "c", "items": files}});
        let container = json!({"name": "a", "ports": vec![json!({"containerPort": 80}); 600]});
        for spec in [
            json!({"containers": [], "volumes": [volume]}),
            json!({"containers": [container]}),
        ] {
            let spec: PodSpec = serde_json::from_value(spec).unwrap();
            let warnings = pod_warnings(&spec, None, &Path::root());
            let bytes: usize = warnings.iter().map(String::len).sum();
            assert!((ENOUGH..2 * ENOUGH).contains(&bytes), "{bytes}");
        }
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
