//! Objects that Pods refer to, read from the API when they are needed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use coracle_images::RegistryAuth;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::Api;
use parking_lot::Mutex;

use crate::node_context::NodeContext;
use crate::pod;
use crate::pod::env::{References, Sources};

/// The ConfigMap that nearly every Pod has in a volume, with the certificates of the API server.
pub(crate) const ROOT_CERTIFICATES: &str = "kube-root-ca.crt";
/// How long it is taken for the newest.
const ROOT_CERTIFICATES_FRESH: Duration = Duration::from_secs(60);

/// The ConfigMaps [`ROOT_CERTIFICATES`] by namespace, so that thousands of Pods do not read the
/// same one a minute.
#[derive(Default)]
pub(crate) struct RootCertificates(Mutex<HashMap<String, (Instant, ConfigMap)>>);

impl RootCertificates {
    async fn get(
        &self,
        maps: &Api<ConfigMap>,
        namespace: &str,
    ) -> Result<Option<ConfigMap>, kube::Error> {
        if let Some((_, map)) = self.0.lock().get(namespace).filter(|held| is_fresh(held)) {
            return Ok(Some(map.clone()));
        }
        let found = maps.get_opt(ROOT_CERTIFICATES).await?;
        let mut held = self.0.lock();
        held.retain(|_, held| is_fresh(held));
        if let Some(map) = &found {
            held.insert(namespace.to_owned(), (Instant::now(), map.clone()));
        }
        Ok(found)
    }
}

fn is_fresh((read, _): &(Instant, ConfigMap)) -> bool {
    read.elapsed() < ROOT_CERTIFICATES_FRESH
}

/// Reads them; what does not exist is none.
pub(crate) async fn fetch(
    node: &NodeContext,
    namespace: &str,
    references: &References,
) -> Result<Sources, kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(node.client.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(node.client.clone(), namespace);
    let maps = try_join_all(references.config_maps.iter().map(|name| {
        let maps = &maps;
        async move {
            let map = match name.as_str() {
                ROOT_CERTIFICATES => node.root_certificates.get(maps, namespace).await?,
                name => maps.get_opt(name).await?,
            };
            Ok::<_, kube::Error>((name.clone(), map))
        }
    }));
    let secrets = try_join_all(references.secrets.iter().map(|name| {
        let secrets = &secrets;
        async move { Ok::<_, kube::Error>((name.clone(), secrets.get_opt(name).await?)) }
    }));
    let (maps, secrets) = futures::future::try_join(maps, secrets).await?;
    Ok(Sources {
        config_maps: maps.into_iter().collect(),
        secrets: secrets.into_iter().collect(),
        ..Sources::default()
    })
}

/// The handler of the Pod's RuntimeClass; none if it names no class.
pub(crate) async fn runtime_handler(
    client: &kube::Client,
    pod: &Pod,
) -> Result<Option<String>, String> {
    let Some(class) = pod::spec(pod).runtime_class_name.as_deref() else {
        return Ok(None);
    };
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    match classes.get_opt(class).await {
        Ok(Some(class)) => Ok(Some(class.handler)),
        Ok(None) => Err(format!("RuntimeClass \"{class}\" not found")),
        Err(error) => Err(format!("cannot read RuntimeClass \"{class}\": {error}")),
    }
}

/// Credentials for pulling an image of the Pod: the Pod's own, and those that the node's plugins
/// give.
pub(crate) async fn pull_credentials(
    node: &NodeContext,
    pod: &Pod,
    reference: &str,
    report: impl Fn(String),
) -> Vec<RegistryAuth> {
    let (mut auths, of_node) = tokio::join!(
        of_secrets(&node.client, pod, report),
        node.credentials.of(reference)
    );
    auths.extend(of_node);
    auths
}

/// Those of the Pod's `imagePullSecrets`, or else of its ServiceAccount's. A Secret that is absent
/// or broken is told to `report` and passed over.
async fn of_secrets(
    client: &kube::Client,
    pod: &Pod,
    report: impl Fn(String),
) -> Vec<RegistryAuth> {
    if pod::is_static(pod) {
        // It may refer to none, and is not to wait for the API.
        return Vec::new();
    }
    let namespace = pod::namespace(pod);
    let mut names = secret_names(pod::spec(pod).image_pull_secrets.as_deref());
    if names.is_empty() {
        let account = pod::spec(pod).service_account_name.as_deref();
        let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        if let Ok(Some(account)) = accounts.get_opt(account).await {
            names = secret_names(account.image_pull_secrets.as_deref());
        }
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut auths = Vec::new();
    for name in names {
        match secrets.get_opt(&name).await {
            Ok(Some(secret)) => match RegistryAuth::from_secret(&secret) {
                Ok(found) => auths.extend(found),
                Err(error) => report(error.to_string()),
            },
            Ok(None) => report(format!(
                "Unable to retrieve some image pull secrets ({name}); attempting to pull the \
                 image may not succeed."
            )),
            Err(error) => report(format!("cannot read image pull secret {name}: {error}")),
        }
    }
    auths
}

fn secret_names(
    references: Option<&[k8s_openapi::api::core::v1::LocalObjectReference]>,
) -> Vec<String> {
    let names = references
        .unwrap_or_default()
        .iter()
        .map(|r| r.name.clone());
    names.filter(|name| !name.is_empty()).collect()
}
