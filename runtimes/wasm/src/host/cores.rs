//! The threads on which requests run.
//!
//! Each core has a `current_thread` runtime: a connection stays on the core that it was given
//! to, and nothing is locked between cores. Beside each runs a runtime under SCHED_IDLE, which
//! gets what the others leave: there go guests that used up their slice.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;

use super::turns::Rounds;

/// Threads beyond this many add memory and no speed on the nodes that we know.
const MAX_CORES: usize = 32;
const STACK: usize = 1 << 20;

/// One core's runtimes.
pub(super) struct Core {
    pub index: usize,
    pub rounds: Arc<Rounds>,
    pub handle: Handle,
    pub idle: Handle,
}

/// All cores.
pub(super) struct Cores {
    cores: Vec<Arc<Core>>,
    next: AtomicUsize,
}

impl Cores {
    /// Starts the threads, which live as long as the process.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let count = std::thread::available_parallelism()?.get().min(MAX_CORES);
        let cores = (0..count)
            .map(|index| {
                let handle = thread(format!("core-{index}"), false)?;
                let rounds = Arc::new(Rounds::default());
                let of = rounds.clone();
                handle.spawn(async move { of.run().await });
                Ok(Arc::new(Core {
                    index,
                    rounds,
                    handle,
                    idle: thread(format!("idle-{index}"), true)?,
                }))
            })
            .collect::<io::Result<_>>()?;
        Ok(Arc::new(Self {
            cores,
            next: AtomicUsize::new(0),
        }))
    }

    /// The core whose turn it is.
    pub(super) fn next(&self) -> &Arc<Core> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        &self.cores[turn % self.cores.len()]
    }

    pub(super) fn count(&self) -> usize {
        self.cores.len()
    }
}

fn thread(name: String, idle: bool) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(8)
        .max_blocking_threads(8)
        .thread_name(format!("{name}-blocking"))
        .build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name(name)
        .stack_size(STACK)
        .spawn(move || {
            if idle && let Err(error) = become_idle() {
                eprintln!("running demoted guests at normal priority: {error}");
            }
            runtime.block_on(std::future::pending::<()>());
        })?;
    Ok(handle)
}

fn become_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 names the calling thread, and the parameters outlive the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &parameters) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
