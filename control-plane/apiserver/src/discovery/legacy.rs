//! The legacy documents.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIGroup, APIGroupList, APIResource, APIResourceList, APIVersions, GroupVersionForDiscovery,
    ServerAddressByClientCIDR,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::subresources;
use crate::auth::tokens::discovery as issuer;
use crate::registry::kinds::api_service::by_preference;
use crate::registry::lookup::{Kinds, by_priority};
use crate::registry::strategy::Descriptor;

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
    let names = by_preference(kinds).into_iter().map(|(name, _)| name);
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
    let mut resources = Vec::new();
    for kind in groups.get(group)?.get(version)? {
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
            storage_version_hash: storage_version_hash(kinds, d),
            ..APIResource::default()
        });
        for shown in subresources(d) {
            let other = shown.other_version(d);
            let (group, version) = other.unzip();
            resources.push(APIResource {
                name: format!("{}/{}", d.plural, shown.name),
                namespaced: d.is_namespaced(),
                group: group.filter(|group| !group.is_empty()).map(str::to_owned),
                version: version.map(str::to_owned),
                verbs: shown.verbs.iter().map(|verb| (*verb).to_owned()).collect(),
                kind: shown.kind,
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

/// What changes when objects are stored in another version, which is when somebody may want them
/// written anew: the hash that Kubernetes shows.
fn storage_version_hash(kinds: &Kinds, d: &Descriptor) -> Option<String> {
    let stored = kinds.stored(&d.storage).filter(|_| !d.computed)?;
    let Descriptor {
        group,
        version,
        kind,
        ..
    } = stored.descriptor();
    let hash = Sha256::digest(format!("{group}/{version}/{kind}"));
    Some(STANDARD.encode(&hash[..8]))
}
