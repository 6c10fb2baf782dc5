//! Which images go, and in which order; pure.
//!
//! Source of the rules: "Garbage collection of unused containers and images" of the Kubernetes
//! documentation. When each was used is what this agent has seen itself: after a start it knows
//! of none, and so neither age counts from before.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::ListedImage;
use crate::node::machine::DiskUse;

/// When images are removed (`KubeletConfiguration`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageGcPolicy {
    /// Use of the images' disk, in percent, from which images are removed; 100 never does.
    pub high_threshold_percent: u8,
    /// Use down to which they are then removed.
    pub low_threshold_percent: u8,
    /// An image that was found less than this ago stays.
    pub minimum_age: Duration,
    /// An image that was not used for this long goes, however much room there is; zero is never.
    pub maximum_age: Duration,
}

impl Default for ImageGcPolicy {
    fn default() -> Self {
        Self {
            high_threshold_percent: 85,
            low_threshold_percent: 80,
            minimum_age: Duration::from_secs(120),
            maximum_age: Duration::ZERO,
        }
    }
}

impl ImageGcPolicy {
    /// Bytes to be freed where the disk is used beyond the high threshold.
    pub(super) fn excess(&self, disk: &DiskUse) -> Option<u64> {
        if disk.capacity == 0 || self.high_threshold_percent >= 100 {
            return None;
        }
        let available = disk.available.min(disk.capacity);
        let used = 100 - part(available, 100, disk.capacity);
        (used >= u64::from(self.high_threshold_percent)).then(|| self.above_low(disk))
    }

    /// Bytes by which the use of the disk is above the low threshold.
    pub(super) fn above_low(&self, disk: &DiskUse) -> u64 {
        let free = 100 - u64::from(self.low_threshold_percent.min(100));
        part(disk.capacity, free, 100).saturating_sub(disk.available)
    }
}

fn part(of: u64, by: u64, whole: u64) -> u64 {
    let part = u128::from(of) * u128::from(by) / u128::from(whole);
    u64::try_from(part).unwrap_or(u64::MAX)
}

#[derive(Clone, Debug)]
struct Record {
    first_detected: Instant,
    last_used: Option<Instant>,
}

/// What is known of the node's images, by digest.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<String, Record>);

impl Records {
    /// Takes in what there is and what is in use.
    pub(super) fn observe(&mut self, images: &[ListedImage], used: &HashSet<String>, now: Instant) {
        let there: HashSet<&str> = images.iter().map(|image| &*image.digest).collect();
        self.0.retain(|digest, _| there.contains(&**digest));
        for image in images {
            let record = self.0.entry(image.digest.clone()).or_insert(Record {
                first_detected: now,
                last_used: None,
            });
            if used.contains(&image.digest) {
                record.last_used = Some(now);
            }
        }
    }

    /// Images that may go, the least recently used first; of those that were not used since they
    /// were found, the first found.
    pub(super) fn unused(&self, minimum_age: Duration, now: Instant) -> Vec<String> {
        let free = self.0.iter().filter(|(_, record)| {
            record.last_used.is_none_or(|at| at < now)
                && now.saturating_duration_since(record.first_detected) >= minimum_age
        });
        let mut free: Vec<_> = free.collect();
        free.sort_by_key(|(digest, record)| (record.last_used, record.first_detected, *digest));
        free.into_iter().map(|(digest, _)| digest.clone()).collect()
    }

    /// Images that were not used for so long that they go anyhow. What was found unused counts
    /// from then.
    pub(super) fn old(&self, maximum_age: Duration, now: Instant) -> Vec<String> {
        let idle = |record: &Record| {
            let since = record.last_used.unwrap_or(record.first_detected);
            now.saturating_duration_since(since)
        };
        let old = self
            .0
            .iter()
            .filter(|(_, record)| maximum_age > Duration::ZERO && idle(record) > maximum_age);
        old.map(|(digest, _)| digest.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn disk(capacity: u64, available: u64) -> DiskUse {
        DiskUse {
            at: SystemTime::UNIX_EPOCH,
            capacity,
            used: capacity - available,
            available,
            inodes: 0,
            inodes_free: 0,
        }
    }

    #[test]
    fn what_is_above_the_high_threshold_is_freed_down_to_the_low_one() {
        let policy = ImageGcPolicy::default();
        for (capacity, available, excess) in [
            (1000, 160, None),
            // Percents are whole, as in Kubernetes: 84.1 % is "100 - 15".
            (1000, 159, Some(41)),
            (1000, 150, Some(50)),
            (1000, 0, Some(200)),
            (0, 0, None),
            (u64::MAX, 0, Some(u64::MAX / 5)),
        ] {
            assert_eq!(policy.excess(&disk(capacity, available)), excess);
        }
        let never = ImageGcPolicy {
            high_threshold_percent: 100,
            ..policy
        };
        assert_eq!(never.excess(&disk(1000, 0)), None);
    }

    #[test]
    fn the_least_recently_used_goes_first_and_what_is_young_or_in_use_stays() {
        let began = Instant::now();
        let at = |minutes: u64| began + Duration::from_secs(60 * minutes);
        let image = |digest: &str| ListedImage {
            digest: digest.to_owned(),
            references: Vec::new(),
            size_bytes: 1,
        };
        let images = ["a", "b", "c", "d"].map(image);
        let used = |digests: &[&str]| digests.iter().map(|d| (*d).to_owned()).collect();
        let mut records = Records::default();
        records.observe(&images[..3], &used(&["a"]), at(0));
        records.observe(&images[..3], &used(&["b"]), at(5));
        records.observe(&images, &used(&["a"]), at(10));
        let minutes = |n: u64| Duration::from_secs(60 * n);
        // `a` is in use, `d` is new.
        assert_eq!(records.unused(minutes(2), at(10)), ["c", "b"]);
        assert_eq!(records.unused(minutes(2), at(12)), ["c", "d", "b", "a"]);
        assert_eq!(records.unused(Duration::ZERO, at(10)), ["c", "d", "b"]);
        assert_eq!(records.old(minutes(6), at(12)), ["b", "c"]);
        assert!(records.old(Duration::ZERO, at(12)).is_empty());
        // What went is forgotten, and is new should it come back.
        records.observe(&images[..1], &used(&[]), at(15));
        records.observe(&images, &used(&[]), at(20));
        assert_eq!(records.unused(minutes(2), at(20)), ["a"]);
    }
}
