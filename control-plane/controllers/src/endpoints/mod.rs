//! EndpointSlices and Endpoints: which Pods are behind a Service.
//!
//! One pass over a Service finds its [`backend`]s, and from them both forms: the [`slices`] that
//! proxies and DNS read, and the one Endpoints object that older clients still read. Services
//! without a selector are their makers' own business: what they say in Endpoints is [`mirror`]ed
//! to slices.

mod backend;
pub(crate) mod mirror;
mod packing;
mod slices;
mod subsets;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use crate::context::{Context, Writes};
use crate::error::{Error, already_exists, ignore_not_found, namespace_terminating};
use crate::informer::revision_of;
use crate::queue::{Reconcile, WorkQueue};
use packing::Action;

type Key = ObjectRef<Service>;

/// Passes at once.
const WORKERS: usize = 8;
/// The least time between two passes over one Service, so that a rollout of hundreds of Pods
/// does not write its slices hundreds of times.
const PACE: Duration = Duration::from_millis(50);

/// Names the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Marks objects of Services without a cluster address.
const HEADLESS: &str = "service.kubernetes.io/headless";

pub(crate) async fn run(context: Context) {
    let queue = WorkQueue::new(PACE);
    let informers = &context.informers;
    context.route(&informers.services, &queue, |service| {
        vec![Key::from_obj(service)]
    });
    let services = informers.services.store().clone();
    context.route(&informers.pods, &queue, move |pod| {
        let selecting = services.state_filter(|service| backend::selects(service, pod));
        selecting
            .iter()
            .map(|service| Key::from_obj(service))
            .collect()
    });
    context.route(&informers.endpoint_slices, &queue, |slice| {
        let service = slice
            .labels()
            .get(SERVICE_NAME)
            .filter(|_| slices::ours(slice));
        let namespace = slice.namespace().unwrap_or_default();
        service
            .map(|name| Key::new(name).within(&namespace))
            .into_iter()
            .collect()
    });
    context.route(&informers.endpoints, &queue, |endpoints| {
        vec![Key::new(&endpoints.name_any()).within(&endpoints.namespace().unwrap_or_default())]
    });
    let controller = Arc::new(Controller {
        context: context.clone(),
        slice_writes: Writes::new(),
        endpoints_writes: Writes::new(),
    });
    let cancel = context.cancel.clone();
    queue
        .run("endpointslice", WORKERS, cancel, controller)
        .await;
}

struct Controller {
    context: Context,
    slice_writes: Writes<Key>,
    endpoints_writes: Writes<Key>,
}

impl Reconcile<Key> for Controller {
    async fn reconcile(&self, key: Key) -> Result<Option<Duration>, Error> {
        let informers = &self.context.informers;
        for (writes, revision) in [
            (&self.slice_writes, informers.endpoint_slices.revision()),
            (&self.endpoints_writes, informers.endpoints.revision()),
        ] {
            if let Err(wait) = writes.shown(&key, revision) {
                return Ok(Some(wait));
            }
        }
        let namespace = key.namespace.clone().unwrap_or_default();
        let shown = ObjectRef::<Endpoints>::new(&key.name).within(&namespace);
        let shown = informers.endpoints.store().get(&shown);
        let Some(service) = informers.services.store().get(&key) else {
            // Slices go with their owner; Endpoints have none.
            return self
                .delete_endpoints(&namespace, shown)
                .await
                .map(|()| None);
        };
        if !backend::has_backends(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let pods = informers
            .pods
            .store()
            .state_filter(|pod| backend::selects(&service, pod));
        let zone = |pod: &Pod| {
            let node = ObjectRef::<Node>::new(crate::pods::node(pod)?);
            let node = informers.nodes.store().get(&node)?;
            node.labels().get("topology.kubernetes.io/zone").cloned()
        };
        let backends = backend::backends(&service, &pods, zone);
        let slices = informers.endpoint_slices.store().state_filter(|slice| {
            slice.namespace() == key.namespace
                && slices::ours(slice)
                && slice.labels().get(SERVICE_NAME) == Some(&key.name)
        });
        for action in slices::plan(&service, &backends, &slices) {
            let client = self.context.client.clone();
            let written = write_slice(client, &namespace, action).await?;
            if let Some(revision) = written {
                self.slice_writes.wrote(&key, revision);
            }
        }
        if let Some(endpoints) = subsets::plan(&service, &backends, shown.as_deref()) {
            self.write_endpoints(&key, &namespace, shown.is_some(), &endpoints)
                .await?;
        }
        Ok(None)
    }
}

impl Controller {
    async fn write_endpoints(
        &self,
        key: &Key,
        namespace: &str,
        exists: bool,
        endpoints: &Endpoints,
    ) -> Result<(), Error> {
        let api: Api<Endpoints> = Api::namespaced(self.context.client.clone(), namespace);
        let params = PostParams::default();
        let written = if exists {
            api.replace(&endpoints.name_any(), &params, endpoints).await
        } else {
            api.create(&params, endpoints).await
        };
        match written {
            Ok(written) => self.endpoints_writes.wrote(key, revision_of(&written)),
            Err(error) if namespace_terminating(&error) => {}
            // The cache will show it in a moment, and that starts the next pass.
            Err(error) if already_exists(&error) => {}
            Err(error) => return Err(Error::api("write Endpoints")(error)),
        }
        Ok(())
    }

    async fn delete_endpoints(
        &self,
        namespace: &str,
        endpoints: Option<Arc<Endpoints>>,
    ) -> Result<(), Error> {
        let Some(endpoints) = endpoints.filter(|endpoints| subsets::ours(endpoints)) else {
            return Ok(());
        };
        let api: Api<Endpoints> = Api::namespaced(self.context.client.clone(), namespace);
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: endpoints.uid(),
            resource_version: None,
        });
        let deleted = api.delete(&endpoints.name_any(), &params).await;
        ignore_not_found(deleted).map_err(Error::api("delete Endpoints"))?;
        Ok(())
    }
}

/// Does what was planned for a slice; gives the version of what was written, if anything was.
async fn write_slice(
    client: kube::Client,
    namespace: &str,
    action: Action,
) -> Result<Option<u64>, Error> {
    let api: Api<EndpointSlice> = Api::namespaced(client, namespace);
    let params = PostParams::default();
    let written = match action {
        Action::Create(slice) => match api.create(&params, &slice).await {
            Err(error) if namespace_terminating(&error) => return Ok(None),
            created => created.map_err(Error::api("create an EndpointSlice"))?,
        },
        Action::Update(slice) => {
            let updated = api.replace(&slice.name_any(), &params, &slice).await;
            updated.map_err(Error::api("update an EndpointSlice"))?
        }
        Action::Delete(slice) => {
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: slice.uid(),
                resource_version: None,
            });
            let deleted = api.delete(&slice.name_any(), &params).await;
            ignore_not_found(deleted).map_err(Error::api("delete an EndpointSlice"))?;
            return Ok(None);
        }
    };
    Ok(Some(revision_of(&written)))
}
