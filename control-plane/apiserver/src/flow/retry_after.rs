//! When a client whose request was refused may try again: sooner or later, as a priority level
//! refuses few or many. The seconds double where in so many there were three refusals each, not more
//! often than they pass, and fall by one where there was less than one each, as in Kubernetes.
//!
//! There is no clock here: times are whole seconds, of any beginning.

use std::collections::VecDeque;

/// The most seconds.
const MOST: u64 = 32;

/// The refusals of one priority level.
#[derive(Debug)]
pub(super) struct RetryAfter {
    seconds: u64,
    /// Refusals by second, of those that may still count. The last is the present one.
    refused: VecDeque<(u64, u64)>,
    raised: Option<u64>,
}

impl Default for RetryAfter {
    fn default() -> Self {
        Self {
            seconds: 1,
            refused: VecDeque::new(),
            raised: None,
        }
    }
}

impl RetryAfter {
    /// Notes a refusal. Returns the seconds after which to try again.
    pub(super) fn refused(&mut self, now: u64) -> u64 {
        match self.refused.back_mut() {
            Some((second, count)) if *second >= now => *count += 1,
            _ => {
                self.adjust(now);
                self.refused.push_back((now, 1));
            }
        }
        self.seconds
    }

    /// A second has begun: what there was until then tells.
    fn adjust(&mut self, now: u64) {
        let horizon = MOST.min(2 * self.seconds);
        self.refused
            .retain(|(second, _)| now.saturating_sub(*second) <= horizon);
        let recent = self.refused.iter();
        let recent = recent.filter(|(second, _)| now.saturating_sub(*second) <= self.seconds);
        let refused: u64 = recent.map(|(_, count)| count).sum();
        let rested = self
            .raised
            .is_none_or(|raised| now.saturating_sub(raised) >= self.seconds);
        if rested && refused >= 3 * self.seconds {
            self.seconds = MOST.min(2 * self.seconds);
            self.raised = Some(now);
        } else if refused < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds that are told last in each of these seconds, with as many refusals.
    fn told(counts: &[u64]) -> Vec<u64> {
        let mut after = RetryAfter::default();
        let seconds = (100..).zip(counts);
        let told = seconds.map(|(now, count)| {
            let all = (0..*count).map(|_| after.refused(now));
            all.last().unwrap_or(0)
        });
        told.collect()
    }

    #[test]
    fn few_refusals_leave_it_at_a_second() {
        assert_eq!(told(&[1, 2, 2, 0, 2]), [1, 1, 1, 0, 1]);
    }

    #[test]
    fn many_double_it_and_not_more_often_than_it_passes() {
        assert_eq!(told(&[50; 8]), [1, 2, 2, 4, 4, 4, 4, 8]);
        assert_eq!(told(&[500; 200]).last(), Some(&MOST));
    }

    #[test]
    fn it_falls_by_one_when_few_are_refused() {
        let mut counts = vec![50; 4];
        counts.extend([0, 0, 0, 0, 1, 1, 1, 1, 1, 1]);
        assert_eq!(told(&counts), [1, 2, 2, 4, 0, 0, 0, 0, 3, 2, 2, 2, 2, 2]);
    }
}
