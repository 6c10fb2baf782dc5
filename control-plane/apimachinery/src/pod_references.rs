//! Which objects of the API a Pod refers to.
//!
//! A node runs static Pods without the API, and could by their mirrors read what is not its own.
//! So the kubelet refuses manifests with references, and the API server mirrors that have them.
//! Source of the rules: the page "Create static Pods" of Kubernetes, and its NodeRestriction.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Pod, PodSpec, Volume, VolumeProjection};

/// Resource of the first object that a Pod refers to, in the words of Kubernetes; none if it does
/// without the API.
pub fn api_reference(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let account = [&spec.service_account_name, &spec.service_account];
    if account.into_iter().flatten().any(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    if spec.image_pull_secrets.iter().flatten().next().is_some() {
        return Some("secrets");
    }
    if let Some(resource) = of_environment(spec) {
        return Some(resource);
    }
    if spec.resource_claims.iter().flatten().next().is_some() {
        return Some("resourceclaims");
    }
    spec.volumes.iter().flatten().find_map(of_volume)
}

fn of_environment(spec: &PodSpec) -> Option<&'static str> {
    let own = spec.containers.iter();
    let own = own.chain(spec.init_containers.iter().flatten());
    let own = own.map(|container| (&container.env, &container.env_from));
    let added = spec.ephemeral_containers.iter().flatten();
    let added = added.map(|container| (&container.env, &container.env_from));
    own.chain(added).find_map(|(env, from)| {
        let of_variable = env.iter().flatten().find_map(of_variable);
        of_variable.or_else(|| from.iter().flatten().find_map(of_source))
    })
}

fn of_variable(variable: &EnvVar) -> Option<&'static str> {
    let from = variable.value_from.as_ref()?;
    if from.secret_key_ref.is_some() {
        return Some("secrets");
    }
    from.config_map_key_ref.as_ref().map(|_| "configmaps")
}

fn of_source(source: &EnvFromSource) -> Option<&'static str> {
    if source.secret_ref.is_some() {
        return Some("secrets");
    }
    source.config_map_ref.as_ref().map(|_| "configmaps")
}

fn of_volume(volume: &Volume) -> Option<&'static str> {
    if volume.config_map.is_some() {
        Some("configmaps")
    } else if volume.secret.is_some() || has_credentials(volume) {
        Some("secrets")
    } else if volume.csi.is_some() {
        Some("csidrivers (via CSI volumes)")
    } else if volume.glusterfs.is_some() {
        Some("endpoints (via glusterFS volumes)")
    } else if volume.persistent_volume_claim.is_some() {
        Some("persistentvolumeclaims")
    } else if volume.ephemeral.is_some() {
        Some("persistentvolumeclaims (via ephemeral volumes)")
    } else {
        let projected = volume.projected.as_ref()?;
        projected.sources.iter().flatten().find_map(of_projection)
    }
}

/// Whether a source of the volume has a Secret to log in with.
fn has_credentials(volume: &Volume) -> bool {
    let of = |secret: Option<bool>| secret == Some(true);
    volume.azure_file.is_some()
        || volume.scale_io.is_some()
        || of(volume.cephfs.as_ref().map(|of| of.secret_ref.is_some()))
        || of(volume.cinder.as_ref().map(|of| of.secret_ref.is_some()))
        || of(volume
            .flex_volume
            .as_ref()
            .map(|of| of.secret_ref.is_some()))
        || of(volume.iscsi.as_ref().map(|of| of.secret_ref.is_some()))
        || of(volume.rbd.as_ref().map(|of| of.secret_ref.is_some()))
        || of(volume.storageos.as_ref().map(|of| of.secret_ref.is_some()))
}

fn of_projection(source: &VolumeProjection) -> Option<&'static str> {
    if source.config_map.is_some() {
        Some("configmaps")
    } else if source.secret.is_some() {
        Some("secrets")
    } else if source.service_account_token.is_some() {
        Some("serviceaccounts (via projected volumes)")
    } else if source.cluster_trust_bundle.is_some() {
        Some("clustertrustbundles")
    } else {
        source.pod_certificate.as_ref().map(|_| "podcertificates")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_reference_is_named() {
        let env = |from: Value| json!({"containers": [{"name": "c", "env": [{"name": "A", "valueFrom": from}]}]});
        let volume = |source: Value| {
            let mut volume = source;
            volume["name"] = json!("v");
            json!({"volumes": [volume]})
        };
        let projected = |source: Value| volume(json!({"projected": {"sources": [source]}}));
        let key = json!({"name": "o", "key": "k"});
        for (spec, found) in [
            (json!({}), None),
            (json!({"serviceAccountName": ""}), None),
            (json!({"serviceAccountName": "a"}), Some("serviceaccounts")),
            (json!({"serviceAccount": "a"}), Some("serviceaccounts")),
            (
                json!({"imagePullSecrets": [{"name": "s"}]}),
                Some("secrets"),
            ),
            (
                json!({"resourceClaims": [{"name": "r"}]}),
                Some("resourceclaims"),
            ),
            (
                env(json!({"fieldRef": {"fieldPath": "metadata.name"}})),
                None,
            ),
            (env(json!({"secretKeyRef": key})), Some("secrets")),
            (env(json!({"configMapKeyRef": key})), Some("configmaps")),
            (
                json!({"containers": [], "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "m"}}]}]}),
                Some("configmaps"),
            ),
            (volume(json!({"hostPath": {"path": "/"}})), None),
            (volume(json!({"downwardAPI": {}})), None),
            (volume(json!({"secret": {}})), Some("secrets")),
            (
                volume(json!({"rbd": {"image": "i", "monitors": [], "secretRef": {}}})),
                Some("secrets"),
            ),
            (
                volume(json!({"ephemeral": {}})),
                Some("persistentvolumeclaims (via ephemeral volumes)"),
            ),
            (projected(json!({"downwardAPI": {}})), None),
            (
                projected(json!({"serviceAccountToken": {"path": "t"}})),
                Some("serviceaccounts (via projected volumes)"),
            ),
            (
                projected(json!({"clusterTrustBundle": {"path": "t"}})),
                Some("clustertrustbundles"),
            ),
        ] {
            let mut spec = spec;
            let containers = spec["containers"].take();
            spec["containers"] = if containers.is_null() {
                json!([])
            } else {
                containers
            };
            let pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(api_reference(&pod), found, "{spec}");
        }
    }
}
