//! What is counted of the store. The names are those of etcd's client in Kubernetes, by which
//! dashboards know the storage; the operations are the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use coracle_store::{
    Error, List, ListOptions, Precondition, Read, Record, Result, Revision, Store, Value, Watch,
};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Metered;

use crate::registry::lookup::Kinds;
use crate::registry::{PREFIX, Registry};

const SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
    group: Arc<str>,
    resource: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    group: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Joined {
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cluster {
    storage_cluster_id: &'static str,
}

/// Tells how many bytes the store takes on disk.
pub type StorageSize = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The metrics of the store.
#[derive(Clone)]
pub(crate) struct StorageMetrics {
    durations: Family<Operation, Histogram, fn() -> Histogram>,
    requests: Family<Operation, Counter>,
    errors: Family<Operation, Counter>,
    objects: Family<Resource, Gauge>,
    objects_joined: Family<Joined, Gauge>,
    size: Family<Cluster, Gauge>,
    measure: Option<StorageSize>,
}

impl StorageMetrics {
    pub(crate) fn new(measure: Option<StorageSize>) -> Self {
        Self {
            durations: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            requests: Family::default(),
            errors: Family::default(),
            objects: Family::default(),
            objects_joined: Family::default(),
            size: Family::default(),
            measure,
        }
    }

    pub(super) fn register(&self, registry: &mut Metered) {
        registry.register(
            "etcd_request_duration_seconds",
            "How long requests to the store took, in seconds",
            self.durations.clone(),
        );
        registry.register(
            "etcd_requests",
            "Requests to the store",
            self.requests.clone(),
        );
        registry.register(
            "etcd_request_errors",
            "Requests that the store failed",
            self.errors.clone(),
        );
        registry.register(
            "apiserver_resource_objects",
            "Stored objects, by resource",
            self.objects.clone(),
        );
        registry.register(
            "apiserver_storage_objects",
            "Stored objects, by resource, under the name that was used until 1.34",
            self.objects_joined.clone(),
        );
        registry.register(
            "apiserver_storage_size_bytes",
            "Bytes that the store takes on disk",
            self.size.clone(),
        );
    }

    /// Sets the gauges to what is stored now.
    pub(super) async fn count_objects(&self, registry: &Registry) {
        for kind in registry.kinds().all() {
            let descriptor = kind.descriptor();
            if descriptor.converted || descriptor.computed {
                continue;
            }
            let count = registry.count(descriptor).await;
            // As upstream has it where the count failed.
            let count = count.map_or(-1, |count| i64::try_from(count).unwrap_or(i64::MAX));
            let resource = Resource {
                group: descriptor.group.clone(),
                resource: descriptor.plural.clone(),
            };
            let joined = Joined {
                resource: descriptor.group_resource().to_string(),
            };
            self.objects.get_or_create(&resource).set(count);
            self.objects_joined.get_or_create(&joined).set(count);
        }
        if let Some(measure) = &self.measure {
            let size = i64::try_from(measure()).unwrap_or(i64::MAX);
            let cluster = Cluster {
                storage_cluster_id: "etcd-0",
            };
            self.size.get_or_create(&cluster).set(size);
        }
    }
}

/// A store whose operations are counted.
pub(crate) struct Counted {
    store: Arc<dyn Store>,
    metrics: StorageMetrics,
    /// Group and resource, by the segments of the keys.
    resources: HashMap<String, (Arc<str>, Arc<str>)>,
    other: (Arc<str>, Arc<str>),
}

impl Counted {
    pub(crate) fn new(store: Arc<dyn Store>, kinds: &Kinds, metrics: StorageMetrics) -> Self {
        let stored = kinds.all().iter().map(|kind| kind.descriptor());
        let stored = stored.filter(|descriptor| !descriptor.computed && !descriptor.converted);
        let resources = stored.map(|descriptor| {
            let labels = (
                descriptor.group.as_str().into(),
                descriptor.plural.as_str().into(),
            );
            (descriptor.storage.clone(), labels)
        });
        Self {
            resources: resources.collect(),
            other: ("".into(), "".into()),
            store,
            metrics,
        }
    }

    fn operation(&self, operation: &'static str, key: &str) -> Operation {
        let path = key.strip_prefix(PREFIX).unwrap_or_default();
        // Of the core group one segment names the kind, of others two.
        let mut ends = path.match_indices('/').map(|(at, _)| at);
        let (first, second) = (ends.next(), ends.next());
        let known = [second, first].into_iter().flatten();
        let (group, resource) = known
            .filter_map(|end| self.resources.get(&path[..end]))
            .next()
            .unwrap_or(&self.other)
            .clone();
        Operation {
            operation,
            group,
            resource,
        }
    }

    async fn count<T>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = Instant::now();
        let result = work.await;
        let labels = self.operation(operation, key);
        let metrics = &self.metrics;
        metrics
            .durations
            .get_or_create(&labels)
            .observe(began.elapsed().as_secs_f64());
        metrics.requests.get_or_create(&labels).inc();
        // What a caller can expect is no failure of the store.
        let failed = matches!(
            result,
            Err(Error::Full(_) | Error::Unavailable(_) | Error::TooLarge { .. })
        );
        if failed {
            metrics.errors.get_or_create(&labels).inc();
        }
        result
    }
}

#[async_trait]
impl Store for Counted {
    async fn create(&self, key: &str, value: Value) -> Result<Record> {
        self.count("create", key, self.store.create(key, value))
            .await
    }

    async fn get(&self, key: &str, read: Read) -> Result<Option<Record>> {
        self.count("get", key, self.store.get(key, read)).await
    }

    async fn list(&self, prefix: &str, options: ListOptions) -> Result<List> {
        self.count("list", prefix, self.store.list(prefix, options))
            .await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        precondition: Precondition,
        value: Value,
    ) -> Result<Record> {
        let work = self.store.compare_and_swap(key, precondition, value);
        self.count("update", key, work).await
    }

    async fn delete(&self, key: &str, precondition: Precondition) -> Result<Record> {
        self.count("delete", key, self.store.delete(key, precondition))
            .await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch> {
        self.store.watch(prefix, from).await
    }

    fn revision(&self) -> Revision {
        self.store.revision()
    }
}
