//! CPU of guests: metered per poll by the thread's clock, throttled to a limit, and interrupted
//! by epochs.
//!
//! A poll of a guest's future runs on one thread from start to end, so what the thread's CPU clock
//! gained in it is what the guest used. Reading that clock is a system call, and most polls are
//! far shorter than the time for which the kernel gives a thread a core: a short poll counts by the
//! clock on the wall, which is read without the kernel ([`Stopwatch`]). Epochs make every poll end
//! soon: a ticker advances them while guests run, and parks when none does.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::Sleep;
use wasmtime::Engine;

/// Length of an epoch: a guest that does not wait yields within twice that.
const EPOCH: Duration = Duration::from_millis(2);
/// Epochs without a guest after which the ticker parks.
const IDLE_EPOCHS: u32 = 5;
/// The period over which a CPU limit is enforced, the kernel's default for CFS bandwidth.
const PERIOD: Duration = Duration::from_millis(100);

/// CPU time that the calling thread has used.
pub(crate) fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A poll that took no longer by the clock on the wall is taken to have had its core all the time.
/// Threads that share a core get slices of milliseconds.
const SHORT: Duration = Duration::from_micros(200);
/// The longest time between two readings of a thread's CPU clock that a poll may build on.
const FRESH: Duration = Duration::from_millis(1);

/// Both clocks of a thread, read together.
#[derive(Clone, Copy)]
struct Reading {
    wall: Instant,
    cpu: Duration,
}

thread_local! {
    static LAST: Cell<Option<Reading>> = const { Cell::new(None) };
}

/// Measures the CPU time of a poll.
struct Stopwatch {
    began: Instant,
    /// The thread's clocks not long before.
    before: Reading,
}

impl Stopwatch {
    fn start() -> Self {
        let began = Instant::now();
        let before = LAST
            .get()
            .filter(|last| began.duration_since(last.wall) < FRESH)
            .unwrap_or_else(|| read(began));
        Self { began, before }
    }

    fn stop(self) -> Duration {
        let ended = Instant::now();
        let took = ended.duration_since(self.began);
        if took < SHORT {
            return took;
        }
        used(self.began, self.before, read(ended))
    }
}

fn read(wall: Instant) -> Reading {
    let reading = Reading {
        wall,
        cpu: thread_time(),
    };
    LAST.set(Some(reading));
    reading
}

/// CPU that was used from `began` to `after`, when the thread had its core from `before` to
/// `began`.
fn used(began: Instant, before: Reading, after: Reading) -> Duration {
    let not_ours = began.duration_since(before.wall);
    let gained = after.cpu.saturating_sub(before.cpu);
    gained
        .saturating_sub(not_ours)
        .min(after.wall.duration_since(began))
}

/// CPU of one container: what it used, and its limit as a bucket that refills with time.
#[derive(Debug)]
pub(crate) struct Meter {
    used: AtomicU64,
    /// Thousandths of a core; 0 means no limit.
    limit: AtomicU64,
    /// Nanoseconds that may be used now; negative is debt.
    budget: AtomicI64,
    refilled: Mutex<Instant>,
}

impl Meter {
    pub(crate) fn new(limit_millis: Option<u64>) -> Self {
        Self {
            used: AtomicU64::new(0),
            limit: AtomicU64::new(limit_millis.unwrap_or(0)),
            budget: AtomicI64::new(0),
            refilled: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn set_limit(&self, limit_millis: Option<u64>) {
        self.limit
            .store(limit_millis.unwrap_or(0), Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// Books what was used; says how long the container must now wait.
    pub(crate) fn charge(&self, used: Duration) -> Option<Duration> {
        let used = used.as_nanos() as u64;
        self.used.fetch_add(used, Ordering::Relaxed);
        let limit = self.limit.load(Ordering::Relaxed);
        if limit == 0 {
            return None;
        }
        let budget = self.budget.fetch_sub(used as i64, Ordering::Relaxed) - used as i64;
        if budget >= 0 {
            return None;
        }
        let budget = self.refill(limit);
        (budget < 0).then(|| {
            let wait = u128::from(budget.unsigned_abs()) * 1000 / u128::from(limit);
            Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
        })
    }

    fn refill(&self, limit: u64) -> i64 {
        let mut refilled = self.refilled.lock();
        let now = Instant::now();
        let more = earned(now.duration_since(*refilled), limit);
        *refilled = now;
        let full = earned(PERIOD, limit);
        let before = self.budget.load(Ordering::Relaxed);
        let after = before.saturating_add(more).min(full);
        self.budget
            .fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        after
    }
}

/// Nanoseconds of CPU that a limit grants in some time, which may be months of idleness.
fn earned(time: Duration, limit: u64) -> i64 {
    let earned = time.as_nanos().saturating_mul(limit.into()) / 1000;
    i64::try_from(earned).unwrap_or(i64::MAX)
}

/// Advances the engine's epoch while guests run.
#[derive(Clone)]
pub(crate) struct Ticker(Arc<TickerState>);

struct TickerState {
    lanes: [Lane; LANES],
    parked: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
}

/// Guests are entered and left thousands of times a second on every core: threads count in lanes
/// of their own, so that they need not pass one count between them.
#[derive(Default)]
#[repr(align(128))]
struct Lane {
    running: AtomicU32,
    /// Whether a guest ran since the last tick.
    ran: AtomicBool,
}

/// Threads beyond this many share lanes.
const LANES: usize = 16;

thread_local! {
    static LANE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % LANES
    };
}

impl TickerState {
    fn are_running(&self) -> bool {
        let running = |lane: &Lane| lane.running.load(Ordering::SeqCst) > 0;
        self.lanes.iter().any(running)
    }

    /// Whether guests ran since this was last asked.
    fn have_run(&self) -> bool {
        let mut ran = false;
        for lane in &self.lanes {
            ran |= lane.ran.load(Ordering::Relaxed) && lane.ran.swap(false, Ordering::Relaxed);
        }
        ran
    }
}

impl Ticker {
    /// Starts the ticker's thread, which lives as long as the process: both processes that have
    /// one end by exiting.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let state = Arc::new(TickerState {
            lanes: Default::default(),
            parked: AtomicBool::new(false),
            thread: std::sync::OnceLock::new(),
        });
        let engine = engine.clone();
        let ticker = state.clone();
        let thread = std::thread::Builder::new()
            .name("epochs".into())
            .stack_size(64 << 10)
            .spawn(move || tick(&ticker, &engine))?;
        let _ = state.thread.set(thread.thread().clone());
        Ok(Self(state))
    }

    fn lane(&self) -> &Lane {
        &self.0.lanes[LANE.with(|lane| *lane)]
    }

    fn enter(&self) {
        self.lane().running.fetch_add(1, Ordering::SeqCst);
        if self.0.parked.load(Ordering::SeqCst)
            && self.0.parked.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.0.thread.get()
        {
            thread.unpark();
        }
    }

    fn leave(&self) {
        let lane = self.lane();
        if !lane.ran.load(Ordering::Relaxed) {
            lane.ran.store(true, Ordering::Relaxed);
        }
        lane.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(state: &TickerState, engine: &Engine) {
    let mut idle = 0;
    loop {
        std::thread::sleep(EPOCH);
        if state.are_running() {
            engine.increment_epoch();
            idle = 0;
        } else if state.have_run() {
            idle = 0;
        } else {
            idle += 1;
        }
        if idle < IDLE_EPOCHS {
            continue;
        }
        // Announce first, look again, then park: a guest that enters in between sees the
        // announcement and unparks.
        state.parked.store(true, Ordering::SeqCst);
        if state.are_running() {
            state.parked.store(false, Ordering::SeqCst);
        }
        while state.parked.load(Ordering::SeqCst) {
            std::thread::park();
        }
        idle = 0;
    }
}

/// A guest's future under its meter.
pub(crate) struct Metered<F> {
    guest: F,
    meter: Arc<Meter>,
    ticker: Ticker,
    wait: Option<Pin<Box<Sleep>>>,
    used: Duration,
}

impl<F: Future + Unpin> Metered<F> {
    pub(crate) fn new(guest: F, meter: Arc<Meter>, ticker: Ticker) -> Self {
        Self {
            guest,
            meter,
            ticker,
            wait: None,
            used: Duration::ZERO,
        }
    }

    /// CPU time that this future has used.
    pub(crate) fn used(&self) -> Duration {
        self.used
    }
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if let Some(wait) = &mut this.wait {
            ready!(wait.as_mut().poll(cx));
            this.wait = None;
        }
        let stopwatch = Stopwatch::start();
        this.ticker.enter();
        let result = Pin::new(&mut this.guest).poll(cx);
        this.ticker.leave();
        let used = stopwatch.stop();
        this.used += used;
        if let Some(debt) = this.meter.charge(used)
            && result.is_pending()
        {
            // The guest's own wakers may fire meanwhile: each finds the sleep and goes back.
            let mut wait = Box::pin(tokio::time::sleep(debt));
            if wait.as_mut().poll(cx).is_pending() {
                this.wait = Some(wait);
            } else {
                cx.waker().wake_by_ref();
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_counts_what_it_had_of_its_core() {
        let start = Instant::now();
        let at = |wall: u64, cpu: u64| Reading {
            wall: start + Duration::from_millis(wall),
            cpu: Duration::from_millis(cpu),
        };
        // Each: the clocks before, the beginning, the clocks after, and what was used.
        let cases = [
            (at(0, 10), 0, at(4, 14), 4),
            (at(0, 10), 1, at(5, 15), 4),
            // Away from the core for half of the poll.
            (at(0, 10), 0, at(8, 14), 4),
            // Away before it: never less than nothing, never more than there was time for.
            (at(0, 10), 3, at(4, 11), 0),
            (at(0, 10), 3, at(4, 19), 1),
        ];
        for (before, began, after, expected) in cases {
            let began = start + Duration::from_millis(began);
            let found = used(began, before, after);
            assert_eq!(found, Duration::from_millis(expected));
        }
    }

    #[test]
    fn a_stopwatch_sees_work_and_no_sleep() {
        let stopwatch = Stopwatch::start();
        let until = thread_time() + Duration::from_millis(20);
        while thread_time() < until {}
        std::thread::sleep(Duration::from_millis(60));
        let found = stopwatch.stop();
        assert!(found >= Duration::from_millis(18), "{found:?}");
        assert!(found < Duration::from_millis(60), "{found:?}");
    }

    #[test]
    fn a_meter_without_limit_only_counts() {
        let meter = Meter::new(None);
        assert_eq!(meter.charge(Duration::from_secs(5)), None);
        assert_eq!(meter.used(), Duration::from_secs(5));
    }

    #[test]
    fn what_is_earned_is_right_for_any_limit_and_time() {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        for (time, limit, expected) in [
            (PERIOD, 500, 50_000_000),
            (Duration::from_secs(1), 64_000, 64_000_000_000),
            // A Pod of 64 cores that nobody called for a year.
            (YEAR, 64_000, 2_018_304_000_000_000_000),
            (YEAR * 10, 64_000, i64::MAX),
            (PERIOD, u64::MAX, i64::MAX),
        ] {
            assert_eq!(earned(time, limit), expected, "{time:?} {limit}");
        }
    }

    #[test]
    fn debt_is_waited_for_at_the_rate_of_the_limit() {
        let meter = Meter::new(Some(500));
        let wait = meter.charge(Duration::from_millis(200)).unwrap_or_default();
        // 200 ms at half a core take 400 ms, less what was earned since the meter was made.
        assert!(wait > Duration::from_millis(300), "{wait:?}");
        assert!(wait <= Duration::from_millis(400), "{wait:?}");
        meter.set_limit(None);
        assert_eq!(meter.charge(Duration::from_millis(1)), None);
    }
}
