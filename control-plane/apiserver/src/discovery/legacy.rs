//! The legacy documents.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIGroup, APIGroupList, APIResource, APIResourceList, APIVersions, GroupVersionForDiscovery,
    ServerAddressByClientCIDR,
};
use serde_json::{Value, json};

use super::shown;
use crate::auth::tokens::discovery as issuer;
use crate::registry::lookup::{Kinds, by_priority};

/// `/`: the paths that there are.
pub(super) fn paths(kinds: &Kinds) -> Value {
    let first = [issuer::CONFIGURATION, "/api", "/api/v1", "/apis"];
    let mut paths: Vec<String> = first.map(str::to_owned).to_vec();
    for (group, versions) in kinds
        .groups()
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
    {
        paths.push(format!("/apis/{group}"));
        paths.extend(
            versions
                .keys()
                .map(|version| format!("/apis/{group}/{version}")),
        );
    }
    let others = [
        "/healthz",
        "/livez",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        issuer::KEYS,
        "/readyz",
        "/version",
    ];
    paths.extend(others.map(str::to_owned));
    json!({ "paths": paths })
}

/// `/api`.
pub(super) fn versions(server_address: &str) -> APIVersions {
    APIVersions {
        versions: vec!["v1".to_owned()],
        server_address_by_client_cidrs: vec![ServerAddressByClientCIDR {
            client_cidr: "0.0.0.0/0".to_owned(),
            server_address: server_address.to_owned(),
        }],
    }
}

/// `/apis`.
pub(super) fn groups(kinds: &Kinds) -> APIGroupList {
    let names = kinds.groups().into_keys().filter(|group| !group.is_empty());
    APIGroupList {
        groups: names.filter_map(|name| group(kinds, name)).collect(),
    }
}

/// `/apis/GROUP`.
pub(super) fn group(kinds: &Kinds, name: &str) -> Option<APIGroup> {
    let groups = kinds.groups();
    let versions = groups.get(name).filter(|_| !name.is_empty())?;
    let versions: Vec<GroupVersionForDiscovery> = by_priority(versions)
        .into_iter()
        .map(|(version, _)| GroupVersionForDiscovery {
            group_version: format!("{name}/{version}"),
            version: version.to_owned(),
        })
        .collect();
    Some(APIGroup {
        name: name.to_owned(),
        preferred_version: versions.first().cloned(),
        versions,
        ..APIGroup::default()
    })
}

/// `/api/v1`, `/apis/GROUP/VERSION`.
pub(super) fn resources(kinds: &Kinds, group: &str, version: &str) -> Option<APIResourceList> {
    let groups = kinds.groups();
    let kinds = groups.get(group)?.get(version)?;
    let mut resources = Vec::new();
    for kind in kinds {
        let d = kind.descriptor();
        let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        resources.push(APIResource {
            name: d.plural.clone(),
            singular_name: d.singular.clone(),
            namespaced: d.is_namespaced(),
            kind: d.kind.clone(),
            verbs: d.verbs.clone(),
            short_names: some(&d.short_names),
            categories: some(&d.categories),
            ..APIResource::default()
        });
        for subresource in &d.subresources {
            let shown = shown(d, *subresource);
            resources.push(APIResource {
                name: format!("{}/{}", d.plural, shown.name),
                namespaced: d.is_namespaced(),
                group: shown
                    .foreign
                    .then_some(shown.group)
                    .filter(|group| !group.is_empty()),
                version: shown.foreign.then_some(shown.version),
                kind: shown.kind,
                verbs: shown.verbs.iter().map(|verb| (*verb).to_owned()).collect(),
                ..APIResource::default()
            });
        }
    }
    resources.sort_by(|a, b| a.name.cmp(&b.name));
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(APIResourceList {
        group_version,
        resources,
    })
}
