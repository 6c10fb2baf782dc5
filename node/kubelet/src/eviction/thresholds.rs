//! Eviction thresholds, as flags write them: `memory.available<100Mi,nodefs.available<10%`.
//!
//! Source of the rules: "Node-pressure Eviction" of the Kubernetes documentation. The defaults are
//! those of the kubelet but for disks, of which k3s' are taken: a node may share its disk with
//! whatever else is on somebody's machine.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_apimachinery::duration;
use coracle_apimachinery::quantity::Quantity;

use super::signals::Signal;

/// An amount of what a signal counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Amount {
    /// So many bytes, files or processes.
    Quantity(Quantity),
    /// That part of all.
    Percent(f64),
}

impl Amount {
    /// Of that capacity, as it is written.
    pub(crate) fn quantity(&self, capacity: u64) -> Quantity {
        match self {
            Self::Quantity(quantity) => *quantity,
            Self::Percent(_) => {
                Quantity::from_bytes(i64::try_from(self.of(capacity)).unwrap_or(i64::MAX))
            }
        }
    }

    /// Of that capacity.
    pub(crate) fn of(&self, capacity: u64) -> u64 {
        match self {
            Self::Quantity(quantity) => u64::try_from(quantity.value()).unwrap_or(0),
            Self::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }
}

/// What is allowed to be available at least; below it the node is short.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Threshold {
    pub(super) signal: Signal,
    pub(super) below: Amount,
    /// For how long it must be crossed; none for a hard threshold.
    pub(super) grace: Option<Duration>,
    /// More than that must be available before the shortage is over.
    pub(super) minimum_reclaim: Option<Amount>,
}

/// When Pods are too much for the node (`KubeletConfiguration`).
#[derive(Clone, Debug, PartialEq)]
pub struct EvictionPolicy {
    /// Between two looks.
    pub period: Duration,
    /// Below these Pods end at once.
    pub hard: BTreeMap<Signal, Amount>,
    /// Below these they end after a while.
    pub soft: BTreeMap<Signal, Amount>,
    /// After which while.
    pub soft_grace: BTreeMap<Signal, Duration>,
    /// What is to be made free beyond a threshold.
    pub minimum_reclaim: BTreeMap<Signal, Amount>,
    /// How long a condition of the node stays after its cause.
    pub transition: Duration,
    /// The longest grace period of a Pod that ends for a soft threshold.
    pub max_pod_grace: Duration,
}

impl Default for EvictionPolicy {
    fn default() -> Self {
        let hard = [
            (
                Signal::MemoryAvailable,
                Amount::Quantity(Quantity::from_bytes(100 << 20)),
            ),
            (Signal::NodeFsAvailable, Amount::Percent(5.0)),
            (Signal::NodeFsInodesFree, Amount::Percent(5.0)),
            (Signal::ImageFsAvailable, Amount::Percent(5.0)),
            (Signal::ImageFsInodesFree, Amount::Percent(5.0)),
        ];
        Self {
            period: Duration::from_secs(10),
            hard: hard.into(),
            soft: BTreeMap::new(),
            soft_grace: BTreeMap::new(),
            minimum_reclaim: BTreeMap::new(),
            transition: Duration::from_secs(300),
            max_pod_grace: Duration::ZERO,
        }
    }
}

impl EvictionPolicy {
    /// The thresholds, hard ones before soft ones.
    pub(super) fn thresholds(&self) -> Vec<Threshold> {
        let threshold = |signal: Signal, below: &Amount, grace| Threshold {
            signal,
            below: below.clone(),
            grace,
            minimum_reclaim: self.minimum_reclaim.get(&signal).cloned(),
        };
        let hard = self.hard.iter();
        let hard = hard.map(|(signal, below)| threshold(*signal, below, None));
        let soft = self.soft.iter().map(|(signal, below)| {
            let grace = self.soft_grace.get(signal).copied().unwrap_or_default();
            threshold(*signal, below, Some(grace))
        });
        hard.chain(soft).collect()
    }

    /// Says what does not go together.
    pub fn check(&self) -> Result<(), String> {
        let without = self
            .soft
            .keys()
            .find(|of| !self.soft_grace.contains_key(of));
        match without {
            Some(signal) => Err(format!(
                "grace period must be specified for the soft eviction threshold {}",
                signal.name()
            )),
            None => Ok(()),
        }
    }
}

/// Reads `signal<amount,…`. A threshold of 0% or 100% is none.
pub fn parse_thresholds(text: &str) -> Result<BTreeMap<Signal, Amount>, String> {
    let mut all = parse(text, '<', amount)?;
    all.retain(|_, amount| {
        !matches!(amount, Amount::Percent(percent) if *percent == 0.0 || *percent == 100.0)
    });
    Ok(all)
}

/// Reads `signal=amount,…`.
pub fn parse_amounts(text: &str) -> Result<BTreeMap<Signal, Amount>, String> {
    parse(text, '=', amount)
}

/// Reads `signal=duration,…`.
pub fn parse_periods(text: &str) -> Result<BTreeMap<Signal, Duration>, String> {
    parse(text, '=', |text| {
        let nanos = duration::parse(text).and_then(|nanos| u64::try_from(nanos).ok());
        let nanos = nanos.ok_or_else(|| format!("{text:?} is no duration, as 1m30s"))?;
        Ok(Duration::from_nanos(nanos))
    })
}

fn parse<T>(
    text: &str,
    separator: char,
    value: impl Fn(&str) -> Result<T, String>,
) -> Result<BTreeMap<Signal, T>, String> {
    let mut all = BTreeMap::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let Some((name, of)) = part.split_once(separator) else {
            return Err(format!(
                "{part:?} is not of the form SIGNAL{separator}VALUE"
            ));
        };
        let Some(signal) = Signal::ALL.into_iter().find(|signal| signal.name() == name) else {
            let known = Signal::ALL.map(Signal::name).join(", ");
            return Err(format!(
                "unknown eviction signal {name:?}: those known are {known}"
            ));
        };
        if all.insert(signal, value(of)?).is_some() {
            return Err(format!("duplicate eviction threshold for {name}"));
        }
    }
    Ok(all)
}

fn amount(text: &str) -> Result<Amount, String> {
    if let Some(percent) = text.strip_suffix('%') {
        return match percent.parse() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Amount::Percent(percent)),
            _ => Err(format!("{text:?} is no percentage from 0% to 100%")),
        };
    }
    match text.parse::<Quantity>() {
        Ok(quantity) if !quantity.is_negative() => Ok(Amount::Quantity(quantity)),
        _ => Err(format!("{text:?} is no amount, as 100Mi or 10%")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_flags_write_them() {
        let all = parse_thresholds("memory.available<1Gi,nodefs.available<10.5%,pid.available<0%");
        let all = all.unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[&Signal::MemoryAvailable].of(0), 1 << 30);
        assert_eq!(all[&Signal::NodeFsAvailable].of(1000), 105);
        assert!(parse_thresholds("").unwrap().is_empty());
        for (text, named) in [
            ("memory.available", "SIGNAL<VALUE"),
            ("memory.available<-1", "no amount"),
            ("memory.available<101%", "no percentage"),
            ("swap.available<1", "imagefs.inodesFree"),
            (
                "pid.available<1,pid.available<2",
                "duplicate eviction threshold",
            ),
        ] {
            let error = parse_thresholds(text).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
        let periods = parse_periods("memory.available=1m30s").unwrap();
        assert_eq!(periods[&Signal::MemoryAvailable], Duration::from_secs(90));
        assert!(parse_periods("memory.available=1").is_err());
    }

    #[test]
    fn a_soft_threshold_has_a_grace_period() {
        let mut policy = EvictionPolicy {
            soft: parse_thresholds("memory.available<1Gi").unwrap(),
            minimum_reclaim: parse_amounts("memory.available=5%").unwrap(),
            ..EvictionPolicy::default()
        };
        assert!(policy.check().unwrap_err().ends_with("memory.available"));
        policy.soft_grace = parse_periods("memory.available=30s").unwrap();
        policy.check().unwrap();
        let all = policy.thresholds();
        let last = all.last().unwrap();
        assert_eq!(last.grace, Some(Duration::from_secs(30)));
        assert_eq!(all.len(), 6);
        assert_eq!(last.minimum_reclaim, all[0].minimum_reclaim);
    }
}
