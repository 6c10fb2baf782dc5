//! Memory limits of a guest.
//!
//! The limit is the container's: what all its live instances hold together. The instance that
//! would grow past it is ended, the others live on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

use super::engine::MAX_TABLE_ELEMENTS;

/// The error with which an instance ends that would have taken its container past the limit.
#[derive(Debug)]
pub(crate) struct OutOfMemory {
    limit: u64,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the guest grew past its memory limit of {} bytes",
            self.limit
        )
    }
}

impl std::error::Error for OutOfMemory {}

/// Memory of a container: the limit, and what its live instances hold together.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: AtomicU64,
    used: AtomicU64,
    /// What an instance holds at its end, as the latest ones had it.
    usual: AtomicU64,
}

impl Memory {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            limit: AtomicU64::new(limit.unwrap_or(u64::MAX)),
            used: AtomicU64::new(0),
            usual: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_limit(&self, limit: Option<u64>) {
        self.limit
            .store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What the next instance is likely to hold.
    pub(crate) fn usual(&self) -> u64 {
        self.usual.load(Ordering::Relaxed)
    }

    /// An instance ended that held so much. More is believed at once, less little by little: one
    /// request that needed much does not make all others wait for long.
    fn held(&self, bytes: u64) {
        // As much as ever is no news, and nothing need be written that all cores read.
        let _ = self
            .usual
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |usual| {
                match usual.checked_sub(bytes) {
                    Some(0) => None,
                    Some(less) => Some(usual - less.div_ceil(8)),
                    None => Some(bytes),
                }
            });
    }

    /// Takes memory unless that is past the limit. A limit that was lowered below what is used
    /// ends nobody who does not grow.
    fn take(&self, more: u64) -> Result<(), OutOfMemory> {
        let limit = self.limit.load(Ordering::Relaxed);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(more).filter(|after| *after <= limit)
            })
            .map(drop)
            .map_err(|_| OutOfMemory { limit })
    }

    fn give_back(&self, less: u64) {
        self.used.fetch_sub(less, Ordering::Relaxed);
    }
}

/// Limits of one instance: it sums all its memories, where wasmtime's own `StoreLimits` bounds
/// each by itself, and ends the guest instead of failing `memory.grow`, as the kernel would.
pub(crate) struct Limits {
    memory: Arc<Memory>,
    held: u64,
    elements: usize,
}

impl Limits {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self {
            memory,
            held: 0,
            elements: 0,
        }
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.memory.held(self.held);
        self.memory.give_back(self.held);
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let more = desired.saturating_sub(current) as u64;
        if more == 0 {
            return Ok(true);
        }
        self.memory.take(more)?;
        self.held += more;
        Ok(true)
    }

    // What was granted counts until the instance ends even if the growth fails after all:
    // `memory_grow_failed` is also called for growth that was never asked about here, so giving
    // back there would let a guest hide what it holds.

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // A table of 64 bits may ask for all that there is: a sum that wraps would let it have that,
        // and forget what the others hold.
        let after = desired
            .saturating_sub(current)
            .checked_add(self.elements)
            .filter(|after| *after <= MAX_TABLE_ELEMENTS);
        match after {
            Some(after) if maximum.is_none_or(|maximum| desired <= maximum) => {
                self.elements = after;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn instances(&self) -> usize {
        256
    }

    fn tables(&self) -> usize {
        256
    }

    fn memories(&self) -> usize {
        64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn growth_past_the_modules_own_maximum_fails_without_ending_the_guest() {
        let memory = Arc::new(Memory::new(None));
        let mut limits = Limits::new(memory.clone());
        assert!(!limits.memory_growing(0, 20, Some(10)).unwrap());
        assert_eq!(memory.used(), 0);
        assert!(
            !limits
                .table_growing(0, MAX_TABLE_ELEMENTS + 1, None)
                .unwrap()
        );
    }

    #[test]
    fn no_table_grows_past_what_all_may_hold() {
        let mut limits = Limits::new(Arc::new(Memory::new(None)));
        let mut grow = |current, desired| limits.table_growing(current, desired, None).unwrap();
        assert!(grow(0, 10));
        for more in [usize::MAX, usize::MAX - 8, MAX_TABLE_ELEMENTS - 9] {
            assert!(!grow(0, more), "{more}");
        }
        assert!(grow(0, MAX_TABLE_ELEMENTS - 10));
        assert!(!grow(10, 11));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin,
        End(usize),
        /// An instance grows by so much; the host may lack the memory, or not be asked.
        Grow(usize, usize),
        Fail(usize),
        Limit(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Begin),
            1 => any::<usize>().prop_map(Step::End),
            6 => (any::<usize>(), 0..60_usize).prop_map(|(of, more)| Step::Grow(of, more)),
            1 => any::<usize>().prop_map(Step::Fail),
            1 => (0..400_u64).prop_map(Step::Limit),
        ]
    }

    proptest! {
        /// What is used is what live instances hold, and grows only within the limit.
        #[test]
        fn a_container_holds_what_its_instances_do(
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let memory = Arc::new(Memory::new(Some(200)));
            let mut limit = 200;
            let mut live: Vec<(Limits, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Begin => live.push((Limits::new(memory.clone()), 0)),
                    Step::End(of) if !live.is_empty() => {
                        live.swap_remove(of % live.len());
                    }
                    Step::Fail(of) if !live.is_empty() => {
                        let at = of % live.len();
                        let error = wasmtime::Error::msg("past what the type allows");
                        live[at].0.memory_grow_failed(error).unwrap();
                    }
                    Step::Grow(of, more) if !live.is_empty() => {
                        let before = memory.used();
                        let at = of % live.len();
                        let (limits, held) = &mut live[at];
                        let size = *held as usize;
                        let fits = more == 0 || before + more as u64 <= limit;
                        match limits.memory_growing(size, size + more, None) {
                            Ok(grows) => {
                                prop_assert!(grows && fits);
                                *held += more as u64;
                            }
                            Err(error) => {
                                prop_assert!(!fits && error.is::<OutOfMemory>());
                                // Such an instance ends.
                                live.swap_remove(at);
                            }
                        }
                    }
                    Step::Limit(to) => {
                        limit = to;
                        memory.set_limit(Some(to));
                    }
                    Step::End(_) | Step::Grow(..) | Step::Fail(_) => {}
                }
                let held: u64 = live.iter().map(|(_, held)| held).sum();
                prop_assert_eq!(memory.used(), held);
            }
            live.clear();
            prop_assert_eq!(memory.used(), 0);
        }
    }
}
