//! The queues of one priority level: fair queueing for server requests (KEP-1040), as a state
//! machine that knows neither clocks nor tasks.
//!
//! ```text
//!   arrive ──► waiting ──► executing ──► (gone)
//!      │          │ leave       │ leave
//!      ▼          ▼             ▼
//!   refused     (gone)        (gone)
//! ```
//!
//! Every call is given the time in seconds, and returns the tickets that execute from now on. The
//! level has a progress meter R: seat-seconds that each queue with something to do could have had
//! so far. Each queue keeps the R at which its next request would begin if all queues had been
//! served evenly, bit by bit. The request that would end first there is served first; it is
//! assumed to take [`SERVICE`] seconds until its real duration is known.
//!
//! A queue is there while something is in it: a level may be given millions, and what is done for
//! a request grows with the requests that are here alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::config::{Queuing, Shape};
use super::shuffle::deal;
use crate::request::info::RequestInfo;

/// Seconds that a request is assumed to take.
const SERVICE: f64 = 0.003;

/// A request, unique in its server.
pub(super) type Ticket = u64;

/// Why a request does not execute: the `reason` label of `rejected_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    /// Its queue is as long as it may be.
    QueueFull,
    /// There is no seat, and its level has no queues.
    ConcurrencyLimit,
    /// It waited too long.
    TimeOut,
    /// Its client has gone.
    Cancelled,
}

impl Refusal {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimeOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A request that arrives.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) ticket: Ticket,
    /// Seats that it takes.
    pub(super) seats: usize,
    /// The hash of its flow.
    pub(super) hash: u64,
    /// Its flow, for people.
    pub(super) schema: Arc<str>,
    pub(super) distinguisher: String,
    /// What it asks for, for people.
    pub(super) description: Description,
}

/// What a request asks for, for those who look at the queues.
#[derive(Clone, Debug, Default)]
pub(super) struct Description {
    pub(super) user: String,
    pub(super) info: RequestInfo,
    /// Seconds since the epoch.
    pub(super) since: f64,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: Arrival,
    /// R when it arrived.
    arrived: f64,
}

/// A request that executes.
#[derive(Debug)]
pub(super) struct Executing {
    /// The queue that it waited in.
    queue: Option<usize>,
    pub(super) seats: usize,
    pub(super) schema: Arc<str>,
    /// Since when.
    started: f64,
}

/// One queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) seats_waiting: usize,
    pub(super) executing: usize,
    pub(super) seats_in_use: usize,
    /// R at which the next request begins.
    pub(super) next: f64,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }

    /// One that waits no longer is no longer here.
    fn forget(&mut self, ticket: Ticket) {
        let waits = |waiting: &Waiting| waiting.request.ticket == ticket;
        if let Some(gone) = self.waiting.iter().position(waits)
            && let Some(gone) = self.waiting.remove(gone)
        {
            self.seats_waiting -= gone.request.seats;
            self.bound();
        }
    }

    /// The next request does not begin before it arrived: a queue cannot save up what it does not
    /// use.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next = self.next.max(oldest.arrived);
        }
    }
}

fn work(seats: usize) -> f64 {
    seats as f64 * SERVICE
}

/// The queues of a level.
#[derive(Debug)]
pub(super) struct QueueSet {
    shape: Shape,
    /// Seats that may be taken.
    limit: usize,
    /// Those that have something in them, by their number.
    queues: BTreeMap<usize, Queue>,
    executing: BTreeMap<Ticket, Executing>,
    seats_in_use: usize,
    /// R, and when it was brought up to date.
    progress: f64,
    seen: f64,
    /// The queue that was served last.
    last: usize,
    /// How many were enqueued so far.
    enqueued: usize,
}

impl QueueSet {
    pub(super) fn new(now: f64, shape: Shape, limit: usize) -> Self {
        Self {
            shape,
            limit,
            queues: BTreeMap::new(),
            executing: BTreeMap::new(),
            seats_in_use: 0,
            progress: 0.0,
            seen: now,
            last: 0,
            enqueued: 0,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn progress(&self) -> f64 {
        self.progress
    }

    /// The queues that have something in them, by their number.
    pub(super) fn queues(&self) -> &BTreeMap<usize, Queue> {
        &self.queues
    }

    pub(super) fn executing(&self) -> &BTreeMap<Ticket, Executing> {
        &self.executing
    }

    pub(super) fn seats_in_use(&self) -> usize {
        self.seats_in_use
    }

    pub(super) fn seats_waiting(&self) -> usize {
        self.queues.values().map(|queue| queue.seats_waiting).sum()
    }

    pub(super) fn waiting(&self) -> usize {
        self.queues.values().map(|queue| queue.waiting.len()).sum()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.executing.is_empty() && self.queues.is_empty()
    }

    /// A request arrives. It executes if its ticket is among those that are returned.
    pub(super) fn arrive(&mut self, now: f64, request: Arrival) -> Result<Vec<Ticket>, Refusal> {
        self.advance(now);
        let queuing = match self.shape {
            Shape::Queue(queuing) => queuing,
            Shape::Reject if !self.has_room(request.seats) => {
                return Err(Refusal::ConcurrencyLimit);
            }
            Shape::Reject | Shape::Exempt => {
                let ticket = request.ticket;
                self.begin(now, request, None);
                return Ok(vec![ticket]);
            }
        };
        let index = self.choose(request.hash, queuing);
        let progress = self.progress;
        let length = self.queues.get(&index).map_or(0, |q| q.waiting.len());
        // Also where seats are free: then one waits ahead that is wider than they are.
        if length >= queuing.length {
            return Err(Refusal::QueueFull);
        }
        let queue = self.queues.entry(index).or_insert_with(|| Queue {
            next: progress,
            ..Queue::default()
        });
        queue.seats_waiting += request.seats;
        queue.waiting.push_back(Waiting {
            request,
            arrived: progress,
        });
        queue.bound();
        Ok(self.dispatch(now))
    }

    /// A request leaves: it has been served, or it waits no longer.
    pub(super) fn leave(&mut self, now: f64, ticket: Ticket) -> Vec<Ticket> {
        self.advance(now);
        if let Some(done) = self.executing.remove(&ticket) {
            self.seats_in_use -= done.seats;
            if let Some(queue) = done.queue.and_then(|index| self.queues.get_mut(&index)) {
                queue.executing -= 1;
                queue.seats_in_use -= done.seats;
                // What it took is known now.
                let took = (now - done.started).max(0.0);
                queue.next -= done.seats as f64 * (SERVICE - took);
                queue.bound();
            }
        } else {
            for queue in self.queues.values_mut() {
                queue.forget(ticket);
            }
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        self.dispatch(now)
    }

    /// How many wait where one waits who came last.
    pub(super) fn queue_length_of(&self, ticket: Ticket) -> Option<usize> {
        let newest = |queue: &&Queue| {
            let last = queue.waiting.back();
            last.is_some_and(|last| last.request.ticket == ticket)
        };
        self.queues
            .values()
            .find(newest)
            .map(|queue| queue.waiting.len())
    }

    /// Those that execute since before a time.
    pub(super) fn executing_since(&self, before: f64) -> Vec<Ticket> {
        let old = self.executing.iter().filter(|(_, e)| e.started < before);
        old.map(|(ticket, _)| *ticket).collect()
    }

    /// Another configuration. Requests that are here keep their places; queues that are too many
    /// take no more, and go when they are empty.
    pub(super) fn configure(&mut self, now: f64, shape: Shape, limit: usize) -> Vec<Ticket> {
        self.advance(now);
        self.shape = shape;
        self.limit = limit;
        self.dispatch(now)
    }

    /// Brings R up to date, for the state that held since it was last.
    fn advance(&mut self, now: f64) {
        let elapsed = (now - self.seen).max(0.0);
        self.seen = self.seen.max(now);
        let busy = self.queues.len();
        let seats = |queue: &Queue| queue.seats_in_use + queue.seats_waiting;
        let wanted: usize = self.queues.values().map(seats).sum();
        if busy > 0 {
            self.progress += elapsed * wanted.min(self.limit) as f64 / busy as f64;
        }
    }

    /// The queue of a flow's hand with the least work in it. Where to look first goes round, so
    /// that flows whose hands overlap do not all meet in the same queue.
    fn choose(&mut self, hash: u64, queuing: Queuing) -> usize {
        let mut hand = deal(hash, queuing.queues, queuing.hand);
        let first = self.enqueued % hand.len().max(1);
        self.enqueued = self.enqueued.wrapping_add(1);
        hand.rotate_left(first);
        let least = hand
            .into_iter()
            .min_by_key(|index| self.queues.get(index).map_or(0, |q| q.seats_waiting));
        least.unwrap_or_default()
    }

    fn has_room(&self, seats: usize) -> bool {
        // One that is wider than the level is served when it is alone. A level without a seat
        // serves nobody: it is a way to hold requests back.
        let alone = self.limit > 0 && self.executing.is_empty();
        self.seats_in_use + seats <= self.limit || (seats > self.limit && alone)
    }

    fn begin(&mut self, now: f64, request: Arrival, queue: Option<usize>) {
        self.seats_in_use += request.seats;
        self.executing.insert(
            request.ticket,
            Executing {
                queue,
                seats: request.seats,
                schema: request.schema,
                started: now,
            },
        );
    }

    /// Begins as many as there is room for, in the order of their virtual ends. One for which
    /// there is no room holds up those behind it: else the wide would wait for ever.
    fn dispatch(&mut self, now: f64) -> Vec<Ticket> {
        let mut begun = Vec::new();
        while self.seats_in_use < self.limit {
            let Some(index) = self.first() else { break };
            let oldest = self.queues.get(&index).and_then(|q| q.waiting.front());
            let seats = oldest.map_or(0, |waiting| waiting.request.seats);
            if !self.has_room(seats) {
                break;
            }
            let Some(queue) = self.queues.get_mut(&index) else {
                break;
            };
            let Some(waiting) = queue.waiting.pop_front() else {
                break;
            };
            queue.seats_waiting -= seats;
            queue.executing += 1;
            queue.seats_in_use += seats;
            queue.next += work(seats);
            queue.bound();
            self.last = index;
            begun.push(waiting.request.ticket);
            self.begin(now, waiting.request, Some(index));
        }
        begun
    }

    /// The queue whose oldest request ends first in the virtual world; of equals, the first after
    /// that which was served last.
    fn first(&self) -> Option<usize> {
        let after = self.queues.range(self.last.saturating_add(1)..);
        let before = self.queues.range(..=self.last);
        let mut best: Option<(f64, usize)> = None;
        for (index, queue) in after.chain(before) {
            let Some(oldest) = queue.waiting.front() else {
                continue;
            };
            let end = queue.next + work(oldest.request.seats);
            if best.is_none_or(|(least, _)| end < least) {
                best = Some((end, *index));
            }
        }
        best.map(|(_, index)| index)
    }
}

#[cfg(test)]
mod tests;
