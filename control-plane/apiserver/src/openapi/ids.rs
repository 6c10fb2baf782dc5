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
    let version = capital(&d.version);
    let group = capital(&group(d));
    let scope = if d.is_namespaced() { "Namespaced" } else { "" };
    let (kind, part) = (&d.kind, capital(subresource));
    format!("{verb}{group}{version}{collection}{scope}{kind}{part}")
}

/// The id of the list of all namespaces.
pub(super) fn list_all_id(d: &Descriptor) -> String {
    let (group, version) = (capital(&group(d)), capital(&d.version));
    format!("list{group}{version}{}ForAllNamespaces", d.kind)
}

/// The tag of the operations of a group-version: `core_v1`, `rbacAuthorization_v1`.
pub(super) fn tag(d: &Descriptor) -> String {
    format!("{}_{}", group(d), d.version)
}

fn group(d: &Descriptor) -> String {
    if d.group.is_empty() {
        return "core".to_owned();
    }
    let name = d.group.strip_suffix(".k8s.io").unwrap_or(&d.group);
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
    use k8s_openapi::api::core::v1::{Namespace, Pod};
    use k8s_openapi::api::rbac::v1::Role;

    use super::*;

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
            (tag(&pod), "core_v1"),
            (tag(&role), "rbacAuthorization_v1"),
        ] {
            assert_eq!(got, want);
        }
    }
}
