//! What is counted of requests.

use std::time::Duration;

use http::HeaderMap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry as Metered;

use crate::registry::strategy::Descriptor;
use crate::request::info::RequestInfo;
use crate::request::media::content_type;
use crate::request::options::Query;

const SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// Subresources whose requests connect to something else.
const CONNECT: &[&str] = &["log", "exec", "attach", "portforward", "proxy"];

/// Subresources that become labels.
const SUBRESOURCES: &[&str] = &[
    "status",
    "scale",
    "binding",
    "eviction",
    "finalize",
    "approval",
    "token",
    "ephemeralcontainers",
    "resize",
    "log",
    "exec",
    "attach",
    "portforward",
    "proxy",
];

/// Paths of no resource that become labels, as upstream has them in `subresource`.
const PATHS: &[&str] = &[
    "/healthz",
    "/livez",
    "/readyz",
    "/version",
    "/metrics",
    "/metrics/slis",
    "/api",
    "/apis",
    "/openapi/v2",
    "/openapi/v3",
];

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
}

impl RequestLabels {
    /// Of a request for a resource of this kind. What is not served has no names.
    pub(crate) fn new(
        descriptor: Option<&Descriptor>,
        info: &RequestInfo,
        headers: &HeaderMap,
    ) -> Self {
        let Some(descriptor) = descriptor else {
            let path = PATHS.iter().rev().find(|path| {
                let rest = info.path.strip_prefix(*path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            return Self {
                verb: verb(info, headers),
                group: String::new(),
                version: String::new(),
                resource: String::new(),
                subresource: path.copied().unwrap_or_default(),
                scope: if info.is_resource { scope(info) } else { "" },
                component: "apiserver",
            };
        };
        let subresource = SUBRESOURCES
            .iter()
            .find(|known| **known == info.subresource);
        Self {
            verb: verb(info, headers),
            group: descriptor.group.clone(),
            version: descriptor.version.clone(),
            resource: descriptor.plural.clone(),
            subresource: subresource.copied().unwrap_or_default(),
            scope: scope(info),
            component: "apiserver",
        }
    }

    /// The verb, as the request log has it.
    pub(crate) fn verb(&self) -> &'static str {
        self.verb
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    if !info.is_of_collection() || info.verb == "create" {
        "resource"
    } else if !info.namespace.is_empty() {
        "namespace"
    } else {
        "cluster"
    }
}

fn verb(info: &RequestInfo, headers: &HeaderMap) -> &'static str {
    if info.is_resource && CONNECT.contains(&info.subresource.as_str()) {
        return "CONNECT";
    }
    match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" if content_type(headers).starts_with("application/apply-patch") => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    }
}

/// The `dry_run` label.
pub(crate) fn dry_run(query: &Query) -> &'static str {
    let mut all = query.all("dryRun").peekable();
    if all.peek().is_none() {
        ""
    } else if all.all(|value| value == "All") {
        "All"
    } else {
        "invalid"
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dry {
    #[prometheus(flatten)]
    request: RequestLabels,
    dry_run: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    #[prometheus(flatten)]
    request: RequestLabels,
    dry_run: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Terminated {
    #[prometheus(flatten)]
    request: RequestLabels,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Inflight {
    request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Watched {
    group: String,
    version: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Deprecated {
    group: String,
    version: String,
    resource: String,
    subresource: &'static str,
    /// The release in which it is gone: there is none yet of what is served.
    removed_release: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Begun {
    group: String,
    resource: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// What is counted of requests.
pub(crate) struct Requests {
    total: Family<Answered, Counter>,
    durations: Histograms<Dry>,
    /// Without the time for which a request waited its turn: what this server is answerable for.
    own_durations: Histograms<RequestLabels>,
    sizes: Histograms<RequestLabels>,
    inflight: Family<Inflight, Gauge>,
    long_running: Family<RequestLabels, Gauge>,
    terminations: Family<Terminated, Counter>,
    watch_events: Family<Watched, Counter>,
    watch_sizes: Histograms<Watched>,
    init_events: Family<Begun, Counter>,
    deprecated: Family<Deprecated, Gauge>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            total: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            own_durations: Family::new_with_constructor(|| {
                Histogram::new(SECONDS[2..].iter().copied())
            }),
            sizes: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1000.0, 10.0, 7))
            }),
            inflight: Family::default(),
            long_running: Family::default(),
            terminations: Family::default(),
            watch_events: Family::default(),
            watch_sizes: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1024.0, 2.0, 8))
            }),
            init_events: Family::default(),
            deprecated: Family::default(),
        }
    }
}

/// Counts a request as running until it is dropped.
pub(crate) struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts the events of one watch.
#[derive(Clone)]
pub(crate) struct WatchCounter {
    events: Counter,
    sizes: Histogram,
    begun: Counter,
}

impl WatchCounter {
    /// An event of so many bytes, which tells of the state with which the watch began or of a
    /// change.
    pub(crate) fn event(&self, size: usize, initial: bool) {
        self.events.inc();
        self.sizes.observe(size as f64);
        if initial {
            self.begun.inc();
        }
    }
}

impl Requests {
    /// Registers them below `apiserver`.
    pub(super) fn register(&self, registry: &mut Metered) {
        registry.register(
            "request",
            "Requests, by verb, resource and code",
            self.total.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "How long requests took, in seconds",
            self.durations.clone(),
        );
        registry.register(
            "request_sli_duration_seconds",
            "How long requests took that were no dry runs, in seconds, without their wait in queues",
            self.own_durations.clone(),
        );
        registry.register(
            "response_sizes",
            "Bytes of the answers to reads",
            self.sizes.clone(),
        );
        registry.register(
            "current_inflight_requests",
            "Requests that are being served now, long-running ones not counted",
            self.inflight.clone(),
        );
        registry.register(
            "longrunning_requests",
            "Requests that last, such as watches",
            self.long_running.clone(),
        );
        registry.register(
            "request_terminations",
            "Requests that the server ended to defend itself",
            self.terminations.clone(),
        );
        registry.register(
            "watch_events",
            "Events that were sent to watchers",
            self.watch_events.clone(),
        );
        registry.register(
            "watch_events_sizes",
            "Bytes of the events that were sent to watchers",
            self.watch_sizes.clone(),
        );
        registry.register(
            "init_events",
            "Events that told watchers of the state with which they began",
            self.init_events.clone(),
        );
        registry.register(
            "requested_deprecated_apis",
            "Kinds that were asked for and should not be used any more",
            self.deprecated.clone(),
        );
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

    /// Counts a request that has been answered; `waited` is a part of `elapsed`.
    pub(crate) fn end(
        &self,
        labels: &RequestLabels,
        dry_run: &'static str,
        code: u16,
        (elapsed, waited): (Duration, Duration),
        size: u64,
    ) {
        let answered = Answered {
            request: labels.clone(),
            dry_run,
            code,
        };
        self.total.get_or_create(&answered).inc();
        let dry = Dry {
            request: labels.clone(),
            dry_run,
        };
        self.durations
            .get_or_create(&dry)
            .observe(elapsed.as_secs_f64());
        if dry_run.is_empty() {
            let own = elapsed.saturating_sub(waited).as_secs_f64();
            self.own_durations.get_or_create(labels).observe(own);
        }
        if matches!(labels.verb, "GET" | "LIST") {
            self.sizes.get_or_create(labels).observe(size as f64);
        }
    }

    /// Counts a request that the server ended to defend itself.
    pub(crate) fn terminated(&self, labels: &RequestLabels, code: u16) {
        let terminated = Terminated {
            request: labels.clone(),
            code,
        };
        self.terminations.get_or_create(&terminated).inc();
    }

    /// Notes that a kind was asked for that should not be used any more.
    pub(crate) fn deprecated(&self, labels: &RequestLabels) {
        let deprecated = Deprecated {
            group: labels.group.clone(),
            version: labels.version.clone(),
            resource: labels.resource.clone(),
            subresource: labels.subresource,
            removed_release: "",
        };
        self.deprecated.get_or_create(&deprecated).set(1);
    }

    /// Counts the events of a watch of this kind.
    pub(crate) fn watch(&self, descriptor: &Descriptor) -> WatchCounter {
        let watched = Watched {
            group: descriptor.group.clone(),
            version: descriptor.version.clone(),
            resource: descriptor.plural.clone(),
        };
        let begun = Begun {
            group: descriptor.group.clone(),
            resource: descriptor.plural.clone(),
        };
        WatchCounter {
            events: self.watch_events.get_or_create(&watched).clone(),
            sizes: self.watch_sizes.get_or_create(&watched).clone(),
            begun: self.init_events.get_or_create(&begun).clone(),
        }
    }
}
