//! Limits and requests, and what they are in the units of the kernel.

use serde::{Deserialize, Serialize};

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
}

/// The share of the processor, as the kubelet computes it; 2 is the kernel's least.
pub fn shares(millis: u64) -> u64 {
    (millis.saturating_mul(1024) / 1000).clamp(2, 262_144)
}
