//! Memory limits of a guest.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

use super::engine::MAX_TABLE_ELEMENTS;

/// The error with which a guest ends that grew past its limit.
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
}

impl Memory {
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            limit: AtomicU64::new(limit.unwrap_or(u64::MAX)),
            used: AtomicU64::new(0),
        }
    }

    pub(crate) fn set_limit(&self, limit: Option<u64>) {
        self.limit
            .store(limit.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
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
        self.memory.used.fetch_sub(self.held, Ordering::Relaxed);
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
        let limit = self.memory.limit.load(Ordering::Relaxed);
        if self.held.saturating_add(more) > limit {
            return Err(OutOfMemory { limit }.into());
        }
        self.held += more;
        self.memory.used.fetch_add(more, Ordering::Relaxed);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        if maximum.is_some_and(|maximum| desired > maximum)
            || self.elements + more > MAX_TABLE_ELEMENTS
        {
            return Ok(false);
        }
        self.elements += more;
        Ok(true)
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

    #[test]
    fn memories_are_summed_and_given_back() {
        let memory = Arc::new(Memory::new(Some(100)));
        let mut limits = Limits::new(memory.clone());
        assert!(limits.memory_growing(0, 60, None).unwrap());
        assert!(limits.memory_growing(0, 40, None).unwrap());
        let error = limits.memory_growing(40, 41, None).unwrap_err();
        assert!(error.is::<OutOfMemory>(), "{error}");
        assert_eq!(memory.used(), 100);
        drop(limits);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn growth_past_the_modules_own_maximum_fails_without_ending_the_guest() {
        let mut limits = Limits::new(Arc::new(Memory::new(None)));
        assert!(!limits.memory_growing(0, 20, Some(10)).unwrap());
        assert!(
            !limits
                .table_growing(0, MAX_TABLE_ELEMENTS + 1, None)
                .unwrap()
        );
    }
}
