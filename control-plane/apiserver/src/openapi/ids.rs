//! What operations are called, as Kubernetes calls them (`listCoreV1NamespacedPod`): who generates
//! clients names their methods by it.

use crate::registry::strategy::Descriptor;

/// The id of an operation on a kind: by its action, and the subresource if there is one.
pub(super) fn operation_id(d: &Descriptor, action: &str, subresource: &str) -> String {
    let (verb, collection) = match action {
        "post" => ("create", ""),
        "get" => ("read", ""),
        "put" => ("replace", ""),
        "deletecollection" => ("delete", "Collection"),
        other => (other, ""),
    };
    id(verb, d, collection, subresource)
}

/// The id of an operation on a subresource that leads to somebody else: by its method.
pub(super) fn connect_id(d: &Descriptor, method: &str, subresource: &str) -> String {
    id("connect", d, &capital(method), subresource)
}

fn id(verb: &str, d: &Descriptor, what: &str, subresource: &str) -> String {
    let of = group_version(&d.group, &d.version);
    let scope = if d.is_namespaced() { "Namespaced" } else { "" };
    let (kind, part) = (&d.kind, capital(subresource));
    format!("{verb}{of}{what}{scope}{kind}{part}")
}

/// What an operation is said to do.
pub(super) fn description(d: &Descriptor, action: &str, subresource: &str) -> String {
    let kind = &d.kind;
    let article = match kind.chars().next() {
        _ if kind.ends_with('s') && !kind.ends_with("ss") => "",
        Some('A' | 'E' | 'I' | 'O' | 'U') => "an ",
        _ => "a ",
    };
    let of = match subresource {
        "" => String::new(),
        part => format!("{part} of "),
    };
    match action {
        "list" if d.verbs.iter().any(|verb| verb == "watch") => {
            format!("list or watch objects of kind {kind}")
        }
        "list" => format!("list objects of kind {kind}"),
        "post" => format!("create {of}{article}{kind}"),
        "get" => format!("read {of}the specified {kind}"),
        "put" => format!("replace {of}the specified {kind}"),
        "patch" => format!("partially update {of}the specified {kind}"),
        "deletecollection" => format!("delete collection of {kind}"),
        _ => format!("delete {article}{kind}"),
    }
}

/// The id of the list of all namespaces.
pub(super) fn list_all_id(d: &Descriptor) -> String {
    let of = group_version(&d.group, &d.version);
    format!("list{of}{}ForAllNamespaces", d.kind)
}

/// The id of what tells the versions of a group.
pub(super) fn group_id(group: &str) -> String {
    format!("get{}APIGroup", capital(&group_tag(group)))
}

/// The id of what lists the resources of a group-version.
pub(super) fn resources_id(group: &str, version: &str) -> String {
    format!("get{}APIResources", group_version(group, version))
}

/// The tag of the operations of a group-version: `core_v1`, `rbacAuthorization_v1`.
pub(super) fn tag(d: &Descriptor) -> String {
    format!("{}_{}", group_tag(&d.group), d.version)
}

fn group_version(group: &str, version: &str) -> String {
    capital(&group_tag(group)) + &capital(version)
}

/// The tag of what is about a group: `core`, `rbacAuthorization`.
pub(super) fn group_tag(group: &str) -> String {
    if group.is_empty() {
        return "core".to_owned();
    }
    let name = group.strip_suffix(".k8s.io").unwrap_or(group);
    let mut parts = name.split('.');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |name, part| name + &capital(part))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Endpoints, Namespace, Pod};
    use k8s_openapi::api::networking::v1::Ingress;
    use k8s_openapi::api::rbac::v1::Role;

    use super::*;

    #[test]
    fn descriptions_are_those_of_kubernetes() {
        let (pod, ingress) = (Descriptor::of::<Pod>(), Descriptor::of::<Ingress>());
        let endpoints = Descriptor::of::<Endpoints>();
        for (got, want) in [
            (
                description(&pod, "list", ""),
                "list or watch objects of kind Pod",
            ),
            (
                description(&pod.clone().without("watch"), "list", ""),
                "list objects of kind Pod",
            ),
            (description(&pod, "post", ""), "create a Pod"),
            (
                description(&pod, "post", "eviction"),
                "create eviction of a Pod",
            ),
            (description(&ingress, "delete", ""), "delete an Ingress"),
            (description(&endpoints, "post", ""), "create Endpoints"),
            (
                description(&pod, "deletecollection", ""),
                "delete collection of Pod",
            ),
            (
                description(&pod, "patch", "status"),
                "partially update status of the specified Pod",
            ),
        ] {
            assert_eq!(got, want);
        }
    }

    #[test]
    fn ids_are_those_of_kubernetes() {
        let (pod, role) = (Descriptor::of::<Pod>(), Descriptor::of::<Role>());
        let namespace = Descriptor::of::<Namespace>();
        for (got, want) in [
            (operation_id(&pod, "list", ""), "listCoreV1NamespacedPod"),
            (
                operation_id(&pod, "get", "log"),
                "readCoreV1NamespacedPodLog",
            ),
            (
                operation_id(&pod, "patch", "ephemeralcontainers"),
                "patchCoreV1NamespacedPodEphemeralcontainers",
            ),
            (
                operation_id(&namespace, "put", "finalize"),
                "replaceCoreV1NamespaceFinalize",
            ),
            (
                operation_id(&role, "deletecollection", ""),
                "deleteRbacAuthorizationV1CollectionNamespacedRole",
            ),
            (
                operation_id(&role, "post", ""),
                "createRbacAuthorizationV1NamespacedRole",
            ),
            (
                list_all_id(&role),
                "listRbacAuthorizationV1RoleForAllNamespaces",
            ),
            (
                connect_id(&pod, "get", "exec"),
                "connectCoreV1GetNamespacedPodExec",
            ),
            (resources_id("apps", "v1"), "getAppsV1APIResources"),
            (
                group_id("rbac.authorization.k8s.io"),
                "getRbacAuthorizationAPIGroup",
            ),
            (tag(&pod), "core_v1"),
            (tag(&role), "rbacAuthorization_v1"),
        ] {
            assert_eq!(got, want);
        }
    }
}
