//! ServiceAccount: every Pod runs as one, takes its image pull secrets, and finds its token where
//! clients look for it, with the certificates of the API server and the namespace beside it.
//!
//! A namespace's `default` account may not exist yet, as its controller makes it: it is waited for a
//! little, as in Kubernetes, and then the Pod is refused. The request keeps its seats of flow control
//! while it waits, for 1.35 seconds at most.
//!
//! Deliberately absent: what the deprecated annotation `kubernetes.io/enforce-mountable-secrets`
//! refuses.

use std::time::Duration;

use async_trait::async_trait;
use coracle_apimachinery::names;
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, PodSpec, ProjectedVolumeSource, ServiceAccount as Account,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use super::{Admission, Review, mirror_pod, pod};
use crate::auth::tokens::PROJECTED_SECONDS;
use crate::registry::Registry;
use crate::registry::erased::Object;
use crate::validation::items;
use crate::validation::pod::resize::is_mirror;

const DEFAULT: &str = "default";
/// How often the default account is looked for before it is missing.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(150);
/// Where clients in a Pod look for its token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the name of the volume begins with.
const VOLUME: &str = "kube-api-access-";

pub(super) struct ServiceAccount;

#[async_trait]
impl Admission for ServiceAccount {
    async fn admit(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        if !review.creates_pod() {
            return Ok(());
        }
        let Some(pod) = pod(object) else {
            return Ok(());
        };
        let pod_name = pod.metadata.name.clone().unwrap_or_default();
        // What a node runs from a file is what the node says.
        if is_mirror(pod) {
            return mirror_pod::refers_to_nothing(review, pod);
        }
        let Some(spec) = pod.spec.as_mut() else {
            return Ok(());
        };
        let given = spec
            .service_account_name
            .take()
            .or_else(|| spec.service_account.take());
        let name = given
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| DEFAULT.to_owned());
        spec.service_account_name = Some(name.clone());
        spec.service_account = Some(name.clone());
        let account = match find(registry, review.namespace, &name).await? {
            Some(account) => account,
            None => {
                let cause = format!(
                    "error looking up service account {}/{name}: serviceaccount {name:?} not found",
                    review.namespace
                );
                return Err(review.forbidden(&pod_name, cause));
            }
        };
        let automount = spec
            .automount_service_account_token
            .or(account.automount_service_account_token);
        if automount != Some(false) {
            mount_token(spec, || names::generate_name(VOLUME, &mut rand::rng()));
        }
        if items(&spec.image_pull_secrets).is_empty() {
            spec.image_pull_secrets = account
                .image_pull_secrets
                .filter(|secrets| !secrets.is_empty());
        }
        Ok(())
    }
}

/// The account of this name, once it is there.
async fn find(registry: &Registry, namespace: &str, name: &str) -> Result<Option<Account>, Status> {
    let looks = if name == DEFAULT { LOOKS } else { 1 };
    for look in 0..looks {
        if look > 0 {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        if let Some(account) = registry.find::<Account>(namespace, name).await? {
            return Ok(Some(account));
        }
    }
    Ok(None)
}

/// Gives every container the token's volume that has nothing at its path.
fn mount_token(spec: &mut PodSpec, new_name: impl FnOnce() -> String) {
    let there = items(&spec.volumes)
        .iter()
        .map(|volume| volume.name.clone())
        .find(|name| name.starts_with(VOLUME));
    let is_new = there.is_none();
    let mount = VolumeMount {
        name: there.unwrap_or_else(new_name),
        mount_path: MOUNT_PATH.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let inits = spec.init_containers.iter_mut().flatten();
    let mut needed = false;
    for container in inits.chain(&mut spec.containers) {
        if !is_taken(container) {
            container
                .volume_mounts
                .get_or_insert_default()
                .push(mount.clone());
            needed = true;
        }
    }
    if is_new && needed {
        spec.volumes
            .get_or_insert_default()
            .push(token_volume(mount.name));
    }
}

fn is_taken(container: &Container) -> bool {
    items(&container.volume_mounts)
        .iter()
        .any(|mount| mount.mount_path == MOUNT_PATH)
}

fn token_volume(name: String) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".to_owned(),
            expiration_seconds: Some(PROJECTED_SECONDS),
            ..ServiceAccountTokenProjection::default()
        }),
        ..VolumeProjection::default()
    };
    let certificates = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".to_owned(),
            items: Some(vec![KeyToPath {
                key: "ca.crt".to_owned(),
                path: "ca.crt".to_owned(),
                ..KeyToPath::default()
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.namespace".to_owned(),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name,
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(vec![token, certificates, namespace]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn mounted(spec: Value) -> Value {
        let mut spec: PodSpec = serde_json::from_value(spec).unwrap();
        mount_token(&mut spec, || format!("{VOLUME}new"));
        serde_json::to_value(spec).unwrap()
    }

    #[test]
    fn every_container_gets_the_token_once() {
        let spec = json!({
            "initContainers": [{"name": "i"}],
            "containers": [
                {"name": "a"},
                {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]},
            ],
        });
        let spec = mounted(spec);
        let mount =
            json!([{"name": "kube-api-access-new", "mountPath": MOUNT_PATH, "readOnly": true}]);
        assert_eq!(spec["initContainers"][0]["volumeMounts"], mount);
        assert_eq!(spec["containers"][0]["volumeMounts"], mount);
        assert_eq!(spec["containers"][1]["volumeMounts"][0]["name"], "own");
        let volume = &spec["volumes"][0];
        assert_eq!(volume["name"], "kube-api-access-new");
        let token = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}});
        assert_eq!(volume["projected"]["sources"][0], token);
        // What is admitted once more, as a copy of a Pod is, stays what it is.
        assert_eq!(mounted(spec.clone()), spec);
    }

    #[test]
    fn a_volume_that_nobody_needs_is_not_made() {
        let own = json!([{"name": "own", "mountPath": MOUNT_PATH}]);
        let spec = mounted(json!({"containers": [{"name": "a", "volumeMounts": own}]}));
        assert_eq!(spec.get("volumes"), None);
    }
}
