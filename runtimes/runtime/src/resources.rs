//! Limits and requests, and what they are in the units of the kernel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::huge_pages;

/// The period of CPU limits, microseconds.
pub const CPU_PERIOD: u64 = 100_000;

/// Limits and requests of a container, already in the units of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CPU request in thousandths of a core; the share under contention.
    pub cpu_request_millis: Option<u64>,
    /// CPU limit in thousandths of a core; enforced by throttling.
    pub cpu_limit_millis: Option<u64>,
    /// Memory limit in bytes; past it the container ends with `OOMKilled`.
    pub memory_limit_bytes: Option<u64>,
    /// Limits of huge pages in bytes, by the size of the pages; of others there are none.
    #[serde(default)]
    pub huge_pages: BTreeMap<u64, u64>,
}

impl Resources {
    /// The share of the processor.
    pub fn cpu_shares(&self) -> u64 {
        shares(self.cpu_request_millis.unwrap_or(0))
    }

    /// Microseconds of each [`CPU_PERIOD`], if they are limited.
    pub fn cpu_quota(&self) -> Option<i64> {
        // The least that the kernel takes is a millisecond.
        let quota = self.cpu_limit_millis?.saturating_mul(CPU_PERIOD) / 1000;
        Some(i64::try_from(quota).unwrap_or(i64::MAX).max(1000))
    }

    /// Bytes of memory, if they are limited.
    pub fn memory_limit(&self) -> Option<i64> {
        let bytes = self.memory_limit_bytes?;
        Some(i64::try_from(bytes).unwrap_or(i64::MAX))
    }

    /// The limit of huge pages of each of these sizes, in bytes, by the name that the kernel has for
    /// the size.
    pub fn huge_page_limits(&self, sizes: &[u64]) -> Vec<(String, u64)> {
        let limit = |size: &u64| self.huge_pages.get(size).copied().unwrap_or(0);
        let sizes = sizes.iter();
        sizes
            .map(|size| (huge_pages::unit(*size), limit(size)))
            .collect()
    }
}

/// The share of the processor, as the kubelet computes it; 2 is the kernel's least.
pub fn shares(millis: u64) -> u64 {
    (millis.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_that_nobody_asked_for_are_none() {
        let resources = Resources {
            // That of another machine's size is nowhere to be set.
            huge_pages: BTreeMap::from([(2 << 20, 4 << 20), (64 << 10, 64 << 10)]),
            ..Resources::default()
        };
        let limits = resources.huge_page_limits(&[2 << 20, 1 << 30]);
        assert_eq!(limits, [("2MB".to_owned(), 4 << 20), ("1GB".to_owned(), 0)]);
        assert_eq!(resources.huge_page_limits(&[]), []);
    }
}
