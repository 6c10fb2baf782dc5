//! Flow control: API priority and fairness (KEP-1040). Each request is of a flow, by the first
//! FlowSchema that matches it; a flow is of a priority level, which has a part of the server's
//! seats; within a level flows wait in queues that are served evenly. So one tenant's flood holds
//! up that tenant.
//!
//! | module | decides |
//! |---|---|
//! | [`classify`], [`config`] | of which schema and level a request is |
//! | [`width`] | how many seats it takes |
//! | [`queues`], [`shuffle`] | who is served next |
//! | [`borrowing`] | how many seats each level has |
//! | `retry_after` | when who was refused may try again |
//! | `controller` | reads the configuration, and writes whether schemas dangle |
//! | `dump`, `metrics` | what can be seen of it |
//!
//! All of it is decided by functions and state machines that know no clock; this module has the
//! lock around them, the time, and the wakers of those who wait. A seat is held until the response
//! has been sent whole, but no longer than a request may take: a client that does not read its
//! answer does not hold up its level. A watch holds its seats until it has sent what it began with.
//! What else lasts (exec, proxies, logs that are followed) takes none, as in Kubernetes.
//!
//! Deliberately absent: what watchers of an object cost its writer (upstream's additional latency).
//! An object is encoded once, when it is written, and all watchers get those bytes.

mod borrowing;
mod classify;
mod config;
pub(crate) mod controller;
mod counts;
mod dump;
mod metrics;
mod queues;
mod retry_after;
mod shuffle;
pub(crate) mod width;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_apimachinery::status::Status;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::auth::UserInfo;
use crate::request::info::RequestInfo;
use borrowing::{Claim, Demand, Observed, adjust, smooth};
use classify::{distinguisher, flow_hash};
use config::{Configuration, Level, Shape};
pub(crate) use counts::Counts;
pub(crate) use metrics::FlowMetrics;
use queues::{Arrival, Description, QueueSet, Refusal, Ticket};
use retry_after::RetryAfter;

/// How often seats are lent anew.
const ADJUST_EVERY: Duration = Duration::from_secs(10);
/// The part of a request's time that it may wait: what comes then has time as well, and who is
/// refused has some to try again.
const WAITING_PART: u32 = 4;
/// The longest that a request may wait, whatever time it has.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Limits of requests in flight. Together they are the seats of all priority levels.
#[derive(Clone, Copy, Debug)]
pub struct FlowLimits {
    /// `--max-requests-inflight`.
    pub read_only: usize,
    /// `--max-mutating-requests-inflight`.
    pub mutating: usize,
}

impl Default for FlowLimits {
    fn default() -> Self {
        Self {
            read_only: 400,
            mutating: 200,
        }
    }
}

/// A level at work.
struct LevelState {
    level: Level,
    queues: QueueSet,
    demand: Demand,
    observed: Observed,
    smoothed: f64,
    target: f64,
    retry_after: RetryAfter,
    /// Its object is gone; it serves whom it has, and ends.
    quiescing: bool,
}

impl LevelState {
    fn new(now: f64, level: Level) -> Self {
        let limit = level.nominal - (level.nominal - level.min) / 2;
        Self {
            queues: QueueSet::new(now, level.shape, limit),
            demand: Demand::new(now),
            observed: Observed::default(),
            smoothed: 0.0,
            target: 0.0,
            retry_after: RetryAfter::default(),
            quiescing: false,
            level,
        }
    }

    fn note_demand(&mut self, now: f64) {
        let wanted = self.queues.seats_in_use() + self.queues.seats_waiting();
        self.demand.note(now, wanted);
    }

    /// Notes a refusal. Returns the seconds after which the client may try again.
    fn refused(&mut self, now: f64) -> i32 {
        let seconds = self.retry_after.refused(now as u64);
        i32::try_from(seconds).unwrap_or(i32::MAX)
    }

    fn claim(&self) -> Claim {
        Claim {
            exempt: self.level.shape == Shape::Exempt,
            nominal: self.level.nominal,
            min: self.level.min,
            max: self.level.max,
            high: self.observed.max.round() as usize,
            smoothed: self.smoothed,
        }
    }
}

struct State {
    configuration: Configuration,
    levels: BTreeMap<Arc<str>, LevelState>,
    wakers: HashMap<Ticket, oneshot::Sender<()>>,
    next: Ticket,
    fair: f64,
}

impl State {
    /// Wakes those who execute from now on.
    fn wake(&mut self, begun: Vec<Ticket>) {
        for ticket in begun {
            if let Some(waker) = self.wakers.remove(&ticket) {
                // One that has gone gives its seats back itself.
                let _ = waker.send(());
            }
        }
    }

    /// Takes another configuration into use; requests that are here go on.
    fn configure(&mut self, now: f64, configuration: Configuration) {
        for (name, level) in &configuration.levels {
            if let Some(state) = self.levels.get_mut(name) {
                state.level = level.clone();
                state.quiescing = false;
            } else {
                self.levels
                    .insert(name.clone(), LevelState::new(now, level.clone()));
            }
        }
        for (name, state) in &mut self.levels {
            state.quiescing = !configuration.levels.contains_key(name);
        }
        self.configuration = configuration;
        self.lend(now);
    }

    /// Gives each level its seats for the next period.
    fn lend(&mut self, now: f64) {
        self.levels
            .retain(|_, state| !state.quiescing || !state.queues.is_idle());
        let claims: Vec<Claim> = self.levels.values().map(LevelState::claim).collect();
        let adjusted = adjust(&claims);
        self.fair = adjusted.fair;
        let mut begun = Vec::new();
        for ((state, claim), limit) in self.levels.values_mut().zip(&claims).zip(adjusted.limits) {
            state.target = claim.target();
            begun.extend(state.queues.configure(now, state.level.shape, limit));
            state.note_demand(now);
        }
        self.wake(begun);
    }
}

/// Flow control of one server.
pub(crate) struct Flow {
    state: Mutex<State>,
    /// The seats of all levels.
    seats: usize,
    epoch: Instant,
    /// How long a request may hold its seats.
    longest: Duration,
    metrics: FlowMetrics,
}

/// Where a request is served.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) schema: Arc<str>,
    pub(crate) schema_uid: String,
    pub(crate) level: Arc<str>,
    pub(crate) level_uid: String,
    pub(crate) seats: usize,
    pub(crate) exempt: bool,
}

/// The seats of a request, given back when this is dropped.
pub(crate) struct Permit {
    flow: Arc<Flow>,
    place: Place,
    ticket: Ticket,
    arrived: Instant,
    /// Since when it executes; none while it waits.
    began: Option<Instant>,
    kind: &'static str,
    /// Why it does not, if it never does.
    refusal: Refusal,
}

impl Permit {
    /// Where it is served.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// How long it waited.
    pub(crate) fn waited(&self) -> Duration {
        let until = self.began.unwrap_or_else(Instant::now);
        until.duration_since(self.arrived)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (flow, place) = (&self.flow, &self.place);
        flow.leave(&place.level, self.ticket);
        match self.began {
            Some(began) => flow.metrics.done(place, self.kind, began.elapsed()),
            None => {
                flow.metrics.waited(place, false, self.arrived.elapsed());
                flow.metrics.refused(place, self.refusal);
            }
        }
    }
}

/// What a request was refused with, and where.
pub(crate) struct Refused {
    pub(crate) place: Place,
    pub(crate) status: Status,
}

impl Flow {
    /// Flow control with what is mandatory, until the configuration has been read.
    pub(crate) fn new(limits: FlowLimits, longest: Duration) -> Self {
        let seats = limits.read_only + limits.mutating;
        let mut state = State {
            configuration: Configuration::new(Vec::new(), Vec::new(), seats),
            levels: BTreeMap::new(),
            wakers: HashMap::new(),
            next: 0,
            fair: 0.0,
        };
        state.configure(0.0, Configuration::new(Vec::new(), Vec::new(), seats));
        Self {
            state: Mutex::new(state),
            seats,
            epoch: Instant::now(),
            longest,
            metrics: FlowMetrics::default(),
        }
    }

    /// Its metrics, to be registered.
    pub(crate) fn metrics(&self) -> &FlowMetrics {
        &self.metrics
    }

    fn now(&self) -> f64 {
        self.epoch.elapsed().as_secs_f64()
    }

    /// Another configuration.
    pub(crate) fn configure(
        &self,
        schemas: Vec<FlowSchema>,
        levels: Vec<PriorityLevelConfiguration>,
    ) {
        let configuration = Configuration::new(schemas, levels, self.seats);
        let now = self.now();
        self.state.lock().configure(now, configuration);
    }

    /// The chores of a period: lends seats anew, and takes back those that are held too long.
    pub(crate) fn adjust(&self) {
        let now = self.now();
        let mut state = self.state.lock();
        let oldest = now - self.longest.as_secs_f64();
        let mut begun = Vec::new();
        for level in state.levels.values_mut() {
            for ticket in level.queues.executing_since(oldest) {
                begun.extend(level.queues.leave(now, ticket));
            }
            level.note_demand(now);
            level.observed = level.demand.take(now);
            level.smoothed = smooth(level.smoothed, level.observed);
        }
        state.wake(begun);
        state.lend(now);
    }

    /// Waits for seats. `width` is what the request would take if its level had no bound, `time`
    /// what it may take in all.
    ///
    /// # Errors
    /// 429 where its queue is full, or it waited too long.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        user: &UserInfo,
        info: &RequestInfo,
        width: usize,
        time: Duration,
    ) -> Result<Permit, Box<Refused>> {
        let arrived = Instant::now();
        let (woken, mut permit) = self.arrive(user, info, width, arrived)?;
        let woken = match woken {
            None => true,
            Some(woken) => {
                let patience = LONGEST_WAIT.min(time / WAITING_PART);
                let woken = tokio::time::timeout(patience, woken).await;
                matches!(woken, Ok(Ok(())))
            }
        };
        if !woken {
            permit.refusal = Refusal::TimeOut;
            let place = permit.place.clone();
            let now = self.now();
            let mut state = self.state.lock();
            let level = state.levels.get_mut(&place.level);
            let seconds = level.map_or(1, |level| level.refused(now));
            return Err(refuse(place, seconds));
        }
        permit.began = Some(Instant::now());
        self.metrics.begun(&permit.place, permit.waited());
        Ok(permit)
    }

    /// Takes seats at once, or a place in a queue from which it will be woken.
    fn arrive(
        self: &Arc<Self>,
        user: &UserInfo,
        info: &RequestInfo,
        width: usize,
        arrived: Instant,
    ) -> Result<(Option<oneshot::Receiver<()>>, Permit), Box<Refused>> {
        let now = self.now();
        let mut state = self.state.lock();
        let state = &mut *state;
        let schema = state.configuration.classify(user, info);
        let schema = schema
            .expect("what is mandatory is always configured")
            .clone();
        let level = state.levels.get_mut(&schema.level);
        let level = level.expect("each schema's level is at work");
        let place = Place {
            schema: schema.name.clone(),
            schema_uid: schema.uid.clone(),
            level: schema.level.clone(),
            level_uid: level.level.uid.clone(),
            seats: width.clamp(1, level.level.widest),
            exempt: level.level.shape == Shape::Exempt,
        };
        let flow = distinguisher(&schema.spec, user, info);
        let ticket = state.next;
        state.next += 1;
        let queued = matches!(level.queues.shape(), Shape::Queue(_));
        let request = Arrival {
            ticket,
            seats: place.seats,
            hash: if queued {
                flow_hash(&schema.name, flow)
            } else {
                0
            },
            schema: schema.name.clone(),
            distinguisher: flow.to_owned(),
            description: if queued {
                Description {
                    user: user.name.clone(),
                    info: info.clone(),
                    since: jiff::Timestamp::now().as_nanosecond() as f64 / 1e9,
                }
            } else {
                Description::default()
            },
        };
        self.metrics.seats(&place);
        let begun = level.queues.arrive(now, request);
        level.note_demand(now);
        let mut begun = match begun {
            Ok(begun) => begun,
            Err(refusal) => {
                self.metrics.refused(&place, refusal);
                return Err(refuse(place, level.refused(now)));
            }
        };
        let permit = Permit {
            flow: self.clone(),
            place,
            ticket,
            arrived,
            began: None,
            kind: if info.is_read_only() {
                "readOnly"
            } else {
                "mutating"
            },
            refusal: Refusal::Cancelled,
        };
        let own = begun.iter().position(|other| *other == ticket);
        let woken = if let Some(own) = own {
            begun.swap_remove(own);
            None
        } else {
            let (waker, woken) = oneshot::channel();
            state.wakers.insert(ticket, waker);
            if let Some(length) = level.queues.queue_length_of(ticket) {
                self.metrics.queued(&permit.place, length);
            }
            Some(woken)
        };
        state.wake(begun);
        Ok((woken, permit))
    }

    fn leave(&self, level: &Arc<str>, ticket: Ticket) {
        let now = self.now();
        let mut state = self.state.lock();
        let state = &mut *state;
        state.wakers.remove(&ticket);
        let Some(level) = state.levels.get_mut(level) else {
            return;
        };
        let begun = level.queues.leave(now, ticket);
        level.note_demand(now);
        state.wake(begun);
    }
}

fn refuse(place: Place, seconds: i32) -> Box<Refused> {
    let status = Status::too_many_requests(
        "too many requests are being served, please try again later",
        seconds,
    );
    Box::new(Refused { place, status })
}

#[cfg(test)]
mod tests;
