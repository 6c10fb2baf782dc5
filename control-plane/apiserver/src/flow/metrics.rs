//! What can be counted of flow control: `apiserver_flowcontrol_*`, by Kubernetes' names.
//!
//! Absent are the histograms that upstream samples every nanosecond (`*_utilization`,
//! `read_vs_write_current_requests`, `demand_seats`) and the bounds of virtual starts.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::queues::Refusal;
use super::{Flow, Place};

const SECONDS: [f64; 12] = [
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];
const LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    priority_level: Arc<str>,
    flow_schema: Arc<str>,
}

impl Labels {
    fn new(place: &Place) -> Self {
        Self {
            priority_level: place.level.clone(),
            flow_schema: place.schema.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Level {
    priority_level: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    #[prometheus(flatten)]
    place: Labels,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Waited {
    #[prometheus(flatten)]
    place: Labels,
    execute: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Executed {
    #[prometheus(flatten)]
    place: Labels,
    r#type: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type FloatGauge = Gauge<f64, std::sync::atomic::AtomicU64>;

/// The metrics. Gauges are set when they are read.
pub(crate) struct FlowMetrics {
    rejected: Family<Rejected, Counter>,
    dispatched: Family<Labels, Counter>,
    waited: Histograms<Waited>,
    executed: Histograms<Executed>,
    lengths: Histograms<Labels>,
    estimated: Histograms<Labels>,
    inqueue_requests: Family<Labels, Gauge>,
    inqueue_seats: Family<Labels, Gauge>,
    executing_requests: Family<Labels, Gauge>,
    executing_seats: Family<Labels, Gauge>,
    /// Of each level, by name.
    levels: [(&'static str, &'static str, Family<Level, FloatGauge>); 10],
    fair: FloatGauge,
}

impl Default for FlowMetrics {
    fn default() -> Self {
        let seconds = || Histogram::new(SECONDS);
        let level = |name, help| (name, help, Family::default());
        Self {
            rejected: Family::default(),
            dispatched: Family::default(),
            waited: Family::new_with_constructor(seconds),
            executed: Family::new_with_constructor(seconds),
            lengths: Family::new_with_constructor(|| Histogram::new(LENGTHS)),
            estimated: Family::new_with_constructor(|| Histogram::new(SEATS)),
            inqueue_requests: Family::default(),
            inqueue_seats: Family::default(),
            executing_requests: Family::default(),
            executing_seats: Family::default(),
            levels: [
                level("nominal_limit_seats", "Seats of a level by its shares"),
                level("lower_limit_seats", "Seats that a level does not lend"),
                level(
                    "upper_limit_seats",
                    "Seats of a level that borrows all it may",
                ),
                level("current_limit_seats", "Seats of a level now"),
                level(
                    "demand_seats_high_watermark",
                    "Most seats wanted in the last period",
                ),
                level(
                    "demand_seats_average",
                    "Seats wanted in the last period, by time",
                ),
                level(
                    "demand_seats_stdev",
                    "Deviation of the seats wanted in the last period",
                ),
                level(
                    "demand_seats_smoothed",
                    "Seats wanted, smoothed over periods",
                ),
                level(
                    "target_seats",
                    "Seats that a level was to get at the last adjustment",
                ),
                level(
                    "current_r",
                    "Progress meter of a level's queues, in seat-seconds",
                ),
            ],
            fair: FloatGauge::default(),
        }
    }
}

impl FlowMetrics {
    /// Registers them below `apiserver`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("flowcontrol");
        registry.register(
            "rejected_requests",
            "Requests that were refused for want of seats",
            self.rejected.clone(),
        );
        registry.register(
            "dispatched_requests",
            "Requests that got their seats",
            self.dispatched.clone(),
        );
        registry.register(
            "request_wait_duration_seconds",
            "How long requests waited in their queues",
            self.waited.clone(),
        );
        registry.register(
            "request_execution_seconds",
            "How long requests held their seats",
            self.executed.clone(),
        );
        registry.register(
            "request_queue_length_after_enqueue",
            "Length of a queue as each request saw it that joined it",
            self.lengths.clone(),
        );
        registry.register(
            "work_estimated_seats",
            "Seats that requests took",
            self.estimated.clone(),
        );
        for (name, help, gauge) in [
            (
                "current_inqueue_requests",
                "Requests that wait",
                &self.inqueue_requests,
            ),
            (
                "current_inqueue_seats",
                "Seats of the requests that wait",
                &self.inqueue_seats,
            ),
            (
                "current_executing_requests",
                "Requests that are served",
                &self.executing_requests,
            ),
            (
                "current_executing_seats",
                "Seats of the requests that are served",
                &self.executing_seats,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, gauge) in &self.levels {
            registry.register(*name, *help, gauge.clone());
        }
        registry.register(
            "seat_fair_frac",
            "Part of its target that each level gets that is held by no bound",
            self.fair.clone(),
        );
    }

    pub(super) fn seats(&self, place: &Place) {
        let labels = Labels::new(place);
        self.estimated
            .get_or_create(&labels)
            .observe(place.seats as f64);
    }

    pub(super) fn queued(&self, place: &Place, length: usize) {
        self.lengths
            .get_or_create(&Labels::new(place))
            .observe(length as f64);
    }

    pub(super) fn refused(&self, place: &Place, refusal: Refusal) {
        let labels = Rejected {
            place: Labels::new(place),
            reason: refusal.label(),
        };
        self.rejected.get_or_create(&labels).inc();
    }

    pub(super) fn waited(&self, place: &Place, execute: bool, waited: Duration) {
        // Those who never wait would only hide the others.
        if place.exempt {
            return;
        }
        let labels = Waited {
            place: Labels::new(place),
            execute,
        };
        self.waited
            .get_or_create(&labels)
            .observe(waited.as_secs_f64());
    }

    pub(super) fn begun(&self, place: &Place, waited: Duration) {
        self.dispatched.get_or_create(&Labels::new(place)).inc();
        self.waited(place, true, waited);
    }

    pub(super) fn done(&self, place: &Place, kind: &'static str, took: Duration) {
        let labels = Executed {
            place: Labels::new(place),
            r#type: kind,
        };
        self.executed
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }
}

impl Flow {
    /// Sets the gauges to what is now.
    pub(crate) fn publish(&self) {
        let metrics = &self.metrics;
        let state = self.state.lock();
        for gauge in [
            &metrics.inqueue_requests,
            &metrics.inqueue_seats,
            &metrics.executing_requests,
            &metrics.executing_seats,
        ] {
            gauge.clear();
        }
        for (_, _, gauge) in &metrics.levels {
            gauge.clear();
        }
        metrics.fair.set(state.fair);
        for (name, level) in &state.levels {
            let labels = |schema: &Arc<str>| Labels {
                priority_level: name.clone(),
                flow_schema: schema.clone(),
            };
            let add = |family: &Family<Labels, Gauge>, schema: &Arc<str>, n: usize| {
                family
                    .get_or_create(&labels(schema))
                    .inc_by(i64::try_from(n).unwrap_or(i64::MAX));
            };
            for executing in level.queues.executing().values() {
                add(&metrics.executing_requests, &executing.schema, 1);
                add(&metrics.executing_seats, &executing.schema, executing.seats);
            }
            for waiting in level
                .queues
                .queues()
                .values()
                .flat_map(|queue| &queue.waiting)
            {
                let request = &waiting.request;
                add(&metrics.inqueue_requests, &request.schema, 1);
                add(&metrics.inqueue_seats, &request.schema, request.seats);
            }
            let values = [
                level.level.nominal as f64,
                level.level.min as f64,
                level.level.max as f64,
                level.queues.limit() as f64,
                level.observed.max,
                level.observed.average,
                level.observed.deviation,
                level.smoothed,
                level.target,
                level.queues.progress(),
            ];
            let label = Level {
                priority_level: name.clone(),
            };
            for ((_, _, gauge), value) in metrics.levels.iter().zip(values) {
                gauge.get_or_create(&label).set(value);
            }
        }
    }
}
