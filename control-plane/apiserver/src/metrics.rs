//! Metrics, under the names that Kubernetes gives them.

use std::time::Duration;

use axum::body::Body;
use coracle_store::{ListOptions, Read};
use http::{Response, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Metered;

use crate::handlers::encode::response;
use crate::registry::{Registry, prefix};
use crate::request::info::RequestInfo;

const BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// Labels of a request. Only names of kinds that are served become labels: a client cannot make
/// new series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: String,
}

impl RequestLabels {
    pub(crate) fn new(registry: &Registry, info: &RequestInfo) -> Self {
        let kind = registry
            .kinds()
            .resource(&info.group, &info.version, &info.resource);
        let Some(kind) = kind.filter(|_| info.is_resource) else {
            let verb = if info.is_read_only() { "GET" } else { "OTHER" };
            return Self {
                verb: verb.to_owned(),
                ..Self::default()
            };
        };
        let d = kind.descriptor();
        let known = ["status", "scale", "binding", "eviction", "log", "finalize"];
        let subresource = known.iter().find(|known| **known == info.subresource);
        let scope = match (info.name.is_empty(), info.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        let verb = match info.verb.as_str() {
            "create" => "POST".to_owned(),
            "update" => "PUT".to_owned(),
            "get" | "list" | "watch" | "patch" | "delete" | "deletecollection" => {
                info.verb.to_uppercase()
            }
            _ => "OTHER".to_owned(),
        };
        Self {
            verb,
            group: d.group.clone(),
            version: d.version.clone(),
            resource: d.plural.clone(),
            subresource: subresource.map_or_else(String::new, |s| (*s).to_owned()),
            scope: scope.to_owned(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    #[prometheus(flatten)]
    request: RequestLabels,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Inflight {
    request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    resource: String,
}

type Durations = Family<RequestLabels, Histogram, fn() -> Histogram>;

/// The metrics of one server.
pub(crate) struct Metrics {
    registered: Metered,
    requests: Family<Answered, Counter>,
    durations: Durations,
    inflight: Family<Inflight, Gauge>,
    long_running: Family<RequestLabels, Gauge>,
    objects: Family<Resource, Gauge>,
}

/// Counts a request as running until it is dropped.
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let requests = Family::default();
        let durations: Durations = Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let inflight = Family::default();
        let long_running = Family::default();
        let objects = Family::default();
        let mut registered = Metered::with_prefix("apiserver");
        registered.register(
            "request",
            "Requests, by verb, resource and code",
            requests.clone(),
        );
        registered.register(
            "request_duration_seconds",
            "Response latency in seconds",
            durations.clone(),
        );
        registered.register(
            "current_inflight_requests",
            "Requests that are being served now, long-running ones not counted",
            inflight.clone(),
        );
        registered.register(
            "longrunning_requests",
            "Long-running requests, such as watches",
            long_running.clone(),
        );
        registered.register(
            "storage_objects",
            "Stored objects, by resource",
            objects.clone(),
        );
        Self {
            registered,
            requests,
            durations,
            inflight,
            long_running,
            objects,
        }
    }

    /// Counts a request that begins.
    pub(crate) fn begin(
        &self,
        labels: &RequestLabels,
        read_only: bool,
        long_running: bool,
    ) -> Running {
        let gauge = if long_running {
            self.long_running.get_or_create(labels).clone()
        } else {
            let request_kind = if read_only { "readOnly" } else { "mutating" };
            self.inflight
                .get_or_create(&Inflight { request_kind })
                .clone()
        };
        gauge.inc();
        Running(gauge)
    }

    /// Counts a request that has been answered.
    pub(crate) fn end(
        &self,
        labels: &RequestLabels,
        code: StatusCode,
        elapsed: Duration,
        long_running: bool,
    ) {
        let answered = Answered {
            request: labels.clone(),
            code: code.as_u16(),
        };
        self.requests.get_or_create(&answered).inc();
        if !long_running {
            self.durations
                .get_or_create(labels)
                .observe(elapsed.as_secs_f64());
        }
    }

    /// The metrics as text.
    pub(crate) async fn render(&self, registry: &Registry) -> Response<Body> {
        for kind in registry.kinds().all() {
            let descriptor = kind.descriptor();
            if descriptor.converted || descriptor.computed {
                continue;
            }
            let options = ListOptions {
                read: Read::AtLeast(0),
                limit: 1,
                start_after: None,
            };
            if let Ok(list) = registry.store.list(&prefix(descriptor, ""), options).await {
                let count = list.records.len() + list.remaining.unwrap_or(0);
                let resource = Resource {
                    resource: descriptor.group_resource().to_string(),
                };
                self.objects
                    .get_or_create(&resource)
                    .set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registered);
        let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        response(StatusCode::OK, media_type, Body::from(text))
    }
}
