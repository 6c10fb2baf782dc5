//! Borrowing: seats that a priority level does not need go to those that do, within what each
//! lends and may borrow (KEP-1040, "Dispatching"). Decided from the demand of the last period.

/// How much of the past stays in the smoothed demand.
const SMOOTHING: f64 = 0.977;
/// A target below this counts as this, so that nothing is divided by zero.
const LEAST_TARGET: f64 = 0.001;

/// How many seats are wanted over time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Demand {
    now: f64,
    current: f64,
    elapsed: f64,
    /// Integrals of the demand and of its square.
    sum: f64,
    squares: f64,
    max: f64,
}

/// The demand of a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Observed {
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) max: f64,
}

impl Demand {
    pub(super) fn new(now: f64) -> Self {
        Self {
            now,
            ..Self::default()
        }
    }

    fn advance(&mut self, now: f64) {
        let elapsed = (now - self.now).max(0.0);
        self.now = self.now.max(now);
        self.elapsed += elapsed;
        self.sum += elapsed * self.current;
        self.squares += elapsed * self.current * self.current;
    }

    /// From now on so many are wanted.
    pub(super) fn note(&mut self, now: f64, seats: usize) {
        self.advance(now);
        self.current = seats as f64;
        self.max = self.max.max(self.current);
    }

    /// What was since the last call, and a new period.
    pub(super) fn take(&mut self, now: f64) -> Observed {
        self.advance(now);
        let observed = if self.elapsed > 0.0 {
            let average = self.sum / self.elapsed;
            let variance = self.squares / self.elapsed - average * average;
            Observed {
                average,
                deviation: variance.max(0.0).sqrt(),
                max: self.max,
            }
        } else {
            Observed {
                average: self.current,
                deviation: 0.0,
                max: self.max,
            }
        };
        *self = Self {
            now: self.now,
            current: self.current,
            max: self.current,
            ..Self::default()
        };
        observed
    }
}

/// The demand that goes into the adjustment: rises at once, falls slowly.
pub(super) fn smooth(before: f64, observed: Observed) -> f64 {
    let envelope = observed.average + observed.deviation;
    envelope.max(SMOOTHING * before + (1.0 - SMOOTHING) * envelope)
}

/// A priority level in the adjustment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) exempt: bool,
    pub(super) nominal: usize,
    pub(super) min: usize,
    pub(super) max: usize,
    /// The most that was wanted.
    pub(super) high: usize,
    pub(super) smoothed: f64,
}

impl Claim {
    /// What it is given in any case: what it does not lend, and of its own what it wanted.
    fn least(&self) -> usize {
        if self.exempt {
            self.min.max(self.high)
        } else {
            self.min.max(self.nominal.min(self.high))
        }
    }

    pub(super) fn target(&self) -> f64 {
        self.smoothed.max(self.least() as f64)
    }
}

/// The result of an adjustment.
#[derive(Debug, PartialEq)]
pub(super) struct Adjusted {
    /// Seats of each level.
    pub(super) limits: Vec<usize>,
    /// The part of its target that each level gets that is held by no bound.
    pub(super) fair: f64,
}

/// The seats of all levels for the next period.
pub(super) fn adjust(claims: &[Claim]) -> Adjusted {
    let total: usize = claims.iter().map(|claim| claim.nominal).sum();
    let limited = || claims.iter().filter(|claim| !claim.exempt);
    let exempt: usize = claims.iter().filter(|c| c.exempt).map(Claim::least).sum();
    let left = total.saturating_sub(exempt);
    let min: usize = limited().map(|claim| claim.min).sum();
    let least: usize = limited().map(Claim::least).sum();
    let rounded = |value: f64| value.round().max(0.0) as usize;
    let mut fair = 0.0;
    let of = |claim: &Claim, fair: f64| {
        let (low, high) = (claim.least() as f64, claim.max.max(claim.least()) as f64);
        (fair * claim.target().max(LEAST_TARGET)).clamp(low, high)
    };
    if left > least {
        let sum = |fair: f64| limited().map(|claim| of(claim, fair)).sum::<f64>();
        fair = solve(left as f64, sum);
    }
    let limits = claims.iter().map(|claim| {
        if claim.exempt {
            claim.least()
        } else if left <= min {
            claim.min
        } else if left <= least {
            let part = (left - min) as f64 / (least - min) as f64;
            claim.min + rounded((claim.least() - claim.min) as f64 * part)
        } else {
            rounded(of(claim, fair))
        }
    });
    Adjusted {
        limits: limits.collect(),
        fair,
    }
}

/// The argument at which a function that grows reaches a sum, or as near as it comes.
fn solve(wanted: f64, sum: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    while sum(high) < wanted && high < 1e12 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if sum(middle) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn demand_is_weighted_by_time() {
        let mut demand = Demand::new(0.0);
        demand.note(1.0, 10);
        demand.note(3.0, 0);
        let observed = demand.take(4.0);
        assert_eq!(
            (observed.average, observed.deviation, observed.max),
            (5.0, 5.0, 10.0)
        );
        let next = demand.take(5.0);
        assert_eq!(next, Observed::default());
    }

    #[test]
    fn smoothed_demand_rises_at_once_and_falls_slowly() {
        let observed = |average| Observed {
            average,
            ..Observed::default()
        };
        assert_eq!(smooth(0.0, observed(10.0)), 10.0);
        let after = smooth(10.0, observed(0.0));
        assert!(after > 9.0 && after < 10.0);
    }

    fn claim(nominal: usize, lends: usize, high: usize) -> Claim {
        Claim {
            exempt: false,
            nominal,
            min: nominal - lends,
            max: nominal + 1000,
            high,
            smoothed: high as f64,
        }
    }

    #[test]
    fn who_wants_more_borrows_what_others_lend() {
        // The idle one keeps the 10 that it does not lend; the busy one gets the rest.
        let adjusted = adjust(&[claim(100, 90, 0), claim(100, 50, 400)]);
        assert_eq!(adjusted.limits, [10, 190]);
        // Both want more than theirs: nobody lends.
        let adjusted = adjust(&[claim(100, 90, 300), claim(100, 50, 300)]);
        assert_eq!(adjusted.limits, [100, 100]);
        // What may be borrowed is bounded.
        let mut bounded = claim(100, 50, 400);
        bounded.max = 120;
        assert_eq!(adjust(&[claim(100, 90, 0), bounded]).limits, [80, 120]);
        // What is exempt goes first, from what others lend.
        let exempt = Claim {
            exempt: true,
            nominal: 0,
            min: 0,
            max: 0,
            high: 60,
            smoothed: 60.0,
        };
        assert_eq!(adjust(&[exempt, claim(100, 50, 100)]).limits, [60, 50]);
    }

    proptest! {
        #[test]
        fn limits_stay_in_their_bounds_and_are_all_given(
            levels in proptest::collection::vec((1_usize..200, 0_usize..=100, 0_usize..300, 0_usize..400), 1..8),
        ) {
            let claims: Vec<_> = levels.iter().map(|(nominal, lends, borrows, high)| {
                let mut claim = claim(*nominal, nominal * lends / 100, *high);
                claim.max = nominal + borrows;
                claim
            }).collect();
            let adjusted = adjust(&claims);
            for (claim, limit) in claims.iter().zip(&adjusted.limits) {
                prop_assert!(*limit >= claim.min && *limit <= claim.max, "{claim:?} {limit}");
            }
            let total: usize = claims.iter().map(|claim| claim.nominal).sum();
            let given: usize = adjusted.limits.iter().sum();
            // Rounded, half a seat each at most.
            prop_assert!(given.abs_diff(total) <= claims.len(), "{given} of {total}");
        }
    }
}
