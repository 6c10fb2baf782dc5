//! CPU of guests: metered per poll by the thread's clock, throttled to a limit, and interrupted
//! by epochs.
//!
//! A poll of a guest's future runs on one thread from start to end, so the difference of
//! `CLOCK_THREAD_CPUTIME_ID` around it is exactly what the guest used. Epochs make every poll
//! end soon: a ticker advances them while guests run, and parks when none does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
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
        (budget < 0).then(|| Duration::from_nanos(budget.unsigned_abs() * 1000 / limit))
    }

    fn refill(&self, limit: u64) -> i64 {
        let mut refilled = self.refilled.lock();
        let now = Instant::now();
        let earned = now.duration_since(*refilled).as_nanos() as u64 * limit / 1000;
        *refilled = now;
        let full = (PERIOD.as_nanos() as u64 * limit / 1000) as i64;
        let before = self.budget.load(Ordering::Relaxed);
        let after = before.saturating_add(earned as i64).min(full);
        self.budget.fetch_add(after - before, Ordering::Relaxed);
        after
    }
}

/// Advances the engine's epoch while guests run.
#[derive(Clone)]
pub(crate) struct Ticker(Arc<TickerState>);

struct TickerState {
    running: AtomicU32,
    /// Whether a guest ran since the last tick.
    ran: AtomicBool,
    parked: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
}

impl Ticker {
    /// Starts the ticker's thread, which lives as long as the process: both processes that have
    /// one end by exiting.
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let state = Arc::new(TickerState {
            running: AtomicU32::new(0),
            ran: AtomicBool::new(false),
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

    fn enter(&self) {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        if self.0.parked.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.0.thread.get()
        {
            thread.unpark();
        }
    }

    fn leave(&self) {
        self.0.ran.store(true, Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(state: &TickerState, engine: &Engine) {
    let mut idle = 0;
    loop {
        std::thread::sleep(EPOCH);
        if state.running.load(Ordering::SeqCst) > 0 {
            engine.increment_epoch();
            idle = 0;
        } else if state.ran.swap(false, Ordering::Relaxed) {
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
        if state.running.load(Ordering::SeqCst) > 0 {
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
        let before = thread_time();
        this.ticker.enter();
        let result = Pin::new(&mut this.guest).poll(cx);
        this.ticker.leave();
        let used = thread_time().saturating_sub(before);
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
    fn a_meter_without_limit_only_counts() {
        let meter = Meter::new(None);
        assert_eq!(meter.charge(Duration::from_secs(5)), None);
        assert_eq!(meter.used(), Duration::from_secs(5));
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
