//! The ConfigMap `kube-root-ca.crt` of every namespace, by which Pods know the API server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::{Context, PACE};
use crate::error::{Error, already_exists, namespace_terminating, not_found};
use crate::informer::Informer;
use crate::queue::{Reconcile, WorkQueue};
use crate::service_account::active;

type Key = ObjectRef<Namespace>;

const NAME: &str = "kube-root-ca.crt";
const FIELD: &str = "ca.crt";
/// What people are told of it.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Certificates by which the API server is known inside of the cluster, by its Service's name \
     or address. They need not vouch for anything else.",
);
/// Passes at once.
const WORKERS: usize = 4;

pub(crate) async fn run(context: Context, certificate: String) {
    let queue = WorkQueue::new(PACE);
    // Nobody else needs ConfigMaps: this watch is for those of one name.
    let maps: Informer<ConfigMap> = Informer::start_with(
        watcher::Config::default().fields(&format!("metadata.name={NAME}")),
        Api::all(context.client.clone()),
        (),
        &context.tasks,
        &context.cancel,
    );
    tokio::select! {
        () = context.cancel.cancelled() => return,
        () = maps.wait_until_ready() => {}
    }
    context.route(&context.informers.namespaces, &queue, |namespace| {
        vec![Key::from_obj(namespace)]
    });
    context.route(&maps, &queue, |map| {
        let namespace = map.namespace();
        namespace.map(|name| Key::new(&name)).into_iter().collect()
    });
    let cancel = context.cancel.clone();
    let publisher = Arc::new(Publisher {
        context,
        maps,
        certificate,
    });
    queue.run("rootca", WORKERS, cancel, publisher).await;
}

struct Publisher {
    context: Context,
    maps: Informer<ConfigMap>,
    certificate: String,
}

impl Reconcile<Key> for Publisher {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let namespace = self.context.informers.namespaces.store().get(&key);
        if !namespace.is_some_and(|namespace| active(&namespace)) {
            return Ok(None);
        }
        let shown = self
            .maps
            .store()
            .get(&ObjectRef::new(NAME).within(&key.name));
        let api: Api<ConfigMap> = Api::namespaced(self.context.client.clone(), &key.name);
        let data: BTreeMap<_, _> = [(FIELD.to_owned(), self.certificate.clone())].into();
        let written = match shown {
            Some(map) => match correction(map.data.as_ref(), &data) {
                None => return Ok(None),
                Some(data) => {
                    let patch = Patch::Merge(json!({ "data": data }));
                    api.patch(NAME, &PatchParams::default(), &patch).await
                }
            },
            None => {
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(NAME.to_owned()),
                        namespace: Some(key.name.clone()),
                        annotations: Some(
                            [(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())].into(),
                        ),
                        ..ObjectMeta::default()
                    },
                    data: Some(data),
                    ..ConfigMap::default()
                };
                api.create(&PostParams::default(), &map).await
            }
        };
        match written {
            Ok(_) => Ok(None),
            Err(e) if already_exists(&e) || namespace_terminating(&e) || not_found(&e) => Ok(None),
            Err(error) => Err(Error::api("publish the root certificates")(error)),
        }
    }
}

/// What makes the data of a ConfigMap what is wanted, as a merge patch; `None` where it is.
fn correction(
    shown: Option<&BTreeMap<String, String>>,
    wanted: &BTreeMap<String, String>,
) -> Option<BTreeMap<String, Option<String>>> {
    if shown == Some(wanted) {
        return None;
    }
    let surplus = shown.into_iter().flatten();
    let surplus = surplus.filter(|(key, _)| !wanted.contains_key(*key));
    let surplus = surplus.map(|(key, _)| (key.clone(), None));
    let wanted = wanted
        .iter()
        .map(|(key, value)| (key.clone(), Some(value.clone())));
    Some(surplus.chain(wanted).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_data_is_made_what_it_should_be() {
        let wanted = [(FIELD.to_owned(), "pem".to_owned())].into();
        for (shown, want) in [
            (json!({"ca.crt": "pem"}), Value::Null),
            (Value::Null, json!({"ca.crt": "pem"})),
            (json!({"ca.crt": ""}), json!({"ca.crt": "pem"})),
            (
                json!({"ca.crt": "pem", "other": "x"}),
                json!({"ca.crt": "pem", "other": null}),
            ),
        ] {
            let shown: Option<BTreeMap<String, String>> = serde_json::from_value(shown).unwrap();
            let correction = correction(shown.as_ref(), &wanted);
            assert_eq!(json!(correction), want);
        }
    }
}
