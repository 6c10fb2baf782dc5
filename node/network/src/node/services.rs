//! What the API says of Services and their endpoints.

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::Store;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};

/// Services and their endpoints, as whoever follows them in this process has them.
pub struct ServiceFeed {
    /// All Services.
    pub services: Store<Service>,
    /// All EndpointSlices.
    pub slices: Store<EndpointSlice>,
    /// Something of either has changed. Where it ends, what is known stays.
    pub changes: BoxStream<'static, ()>,
    /// Both hold all that there was at the start. Not by `Store::wait_until_ready`, if others wait
    /// there too: of several only the last is woken (kube-runtime 5.0).
    pub ready: BoxFuture<'static, ()>,
}

impl ServiceFeed {
    /// One that watches for itself, as long as its changes are asked for.
    pub(super) fn watch(client: Client) -> Self {
        let (services, service_changes) = follow::<Service>(client.clone());
        let (slices, slice_changes) = follow::<EndpointSlice>(client);
        // Each of these caches has this one waiter.
        let ready = {
            let (services, slices) = (services.clone(), slices.clone());
            async move {
                let listed = tokio::join!(services.wait_until_ready(), slices.wait_until_ready());
                if !matches!(listed, (Ok(()), Ok(()))) {
                    std::future::pending::<()>().await;
                }
            }
        };
        Self {
            services,
            slices,
            changes: futures::stream::select(service_changes, slice_changes).boxed(),
            ready: ready.boxed(),
        }
    }
}

/// A cache of one kind, and a stream that says when it has changed.
fn follow<K>(client: Client) -> (reflector::Store<K>, impl Stream<Item = ()> + Send + Unpin)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let changes = watcher(Api::<K>::all(client), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .filter_map(|event| async move {
            match event {
                // A page of a list is no state yet.
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
                Ok(_) => Some(()),
                Err(error) => {
                    tracing::warn!(%error, kind = %K::kind(&()), "the watch was interrupted");
                    None
                }
            }
        })
        .boxed();
    (store, changes)
}
