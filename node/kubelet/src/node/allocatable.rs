//! What of the node Pods may have; pure.
//!
//! ```text
//! capacity ─ kube-reserved ─ system-reserved ─ hard eviction thresholds = allocatable
//!            └──────── what Pods' control group may use ────────┘
//! ```
//!
//! Of memory the huge pages go off too, which are nobody else's once they are reserved.
//!
//! Source of the rules: "Reserve Compute Resources for System Daemons" of the Kubernetes
//! documentation. The last part is for nobody: a Pod that used it would be ended.

use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources::{EPHEMERAL_STORAGE, ResourceList, huge_page_size};
use coracle_runtime::{PodsLimits, Resources};

use crate::eviction::{EvictionPolicy, Signal};

/// What is kept from Pods (`KubeletConfiguration`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reserved {
    /// For Kubernetes' own processes.
    pub kube: ResourceList,
    /// For what else the machine does; `pid` is processes and threads.
    pub system: ResourceList,
}

impl Reserved {
    fn take(&self, name: &str, of: Quantity) -> Quantity {
        let reserved = [&self.kube, &self.system].into_iter();
        let left = reserved.filter_map(|list| list.get(name));
        at_least_none(left.fold(of, |left, reserved| left - *reserved))
    }

    fn is_empty(&self) -> bool {
        self.kube.is_empty() && self.system.is_empty()
    }
}

fn at_least_none(of: Quantity) -> Quantity {
    match of.is_negative() {
        true => Quantity::new(0, of.format()),
        false => of,
    }
}

/// What the scheduler may give away.
pub(crate) fn allocatable(
    capacity: &ResourceList,
    reserved: &Reserved,
    eviction: &EvictionPolicy,
) -> ResourceList {
    let of = |(name, all): (&String, &Quantity)| {
        let signal = match name.as_str() {
            "memory" => Some(Signal::MemoryAvailable),
            EPHEMERAL_STORAGE => Some(Signal::NodeFsAvailable),
            _ => None,
        };
        let threshold = signal.and_then(|signal| eviction.hard.get(&signal));
        let capacity = u64::try_from(all.value()).unwrap_or(0);
        let left = reserved.take(name, *all);
        let left = match threshold {
            Some(threshold) => at_least_none(left - threshold.quantity(capacity)),
            None => left,
        };
        (name.clone(), left)
    };
    let mut list: ResourceList = capacity.iter().map(of).collect();
    if let Some(memory) = list.get_mut("memory") {
        let pages = capacity.iter();
        let pages = pages.filter(|(name, _)| huge_page_size(name).is_some());
        *memory = at_least_none(pages.fold(*memory, |left, (_, bytes)| left - *bytes));
    }
    list
}

/// What all Pods together may use, where something is reserved.
pub(crate) fn enforced(
    capacity: &ResourceList,
    processes: Option<u64>,
    reserved: &Reserved,
) -> Option<PodsLimits> {
    if reserved.is_empty() {
        return None;
    }
    let of = |name: &str| Some(reserved.take(name, *capacity.get(name)?));
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    let processes = processes.and_then(|all| i64::try_from(all).ok());
    let processes = processes.map(|all| reserved.take("pid", Quantity::from_bytes(all)));
    Some(PodsLimits {
        resources: Resources {
            cpu_request_millis: of("cpu").map(|cpu| unsigned(cpu.milli_value())),
            cpu_limit_millis: None,
            memory_limit_bytes: of("memory").map(|memory| unsigned(memory.value())),
            ..Resources::default()
        },
        processes: processes.map(|left| unsigned(left.value())),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::eviction::parse_thresholds;

    fn list(of: &[(&str, &str)]) -> ResourceList {
        let of = of.iter();
        of.map(|(name, amount)| ((*name).to_owned(), amount.parse().unwrap()))
            .collect()
    }

    #[test]
    fn huge_pages_are_no_memory() {
        let eviction = EvictionPolicy {
            hard: Default::default(),
            ..EvictionPolicy::default()
        };
        for (pages, memory) in [
            (&[("hugepages-2Mi", "0")][..], "4Gi"),
            (&[("hugepages-2Mi", "1Gi"), ("hugepages-1Gi", "2Gi")], "1Gi"),
            (&[("hugepages-1Gi", "5Gi")], "0"),
        ] {
            let capacity = list(&[pages, &[("memory", "4Gi")]].concat());
            let left = allocatable(&capacity, &Reserved::default(), &eviction);
            assert_eq!(left["memory"].to_string(), memory, "{pages:?}");
            for (name, all) in pages {
                assert_eq!(left[*name].to_string(), *all);
            }
        }
    }

    #[test]
    fn what_is_reserved_and_what_no_pod_may_reach_is_kept() {
        let capacity = list(&[
            ("cpu", "2"),
            ("memory", "4Gi"),
            ("ephemeral-storage", "100Gi"),
            ("pods", "110"),
        ]);
        let eviction = EvictionPolicy {
            hard: parse_thresholds("memory.available<100Mi,nodefs.available<10%").unwrap(),
            ..EvictionPolicy::default()
        };
        let texts = |reserved: &Reserved| {
            let left = allocatable(&capacity, reserved, &eviction);
            let text = |name: &str| left[name].to_string();
            ["cpu", "memory", "ephemeral-storage", "pods"].map(text)
        };
        let none = Reserved::default();
        assert_eq!(texts(&none), ["2", "3996Mi", "90Gi", "110"]);
        assert_eq!(enforced(&capacity, Some(1000), &none), None);
        let reserved = Reserved {
            kube: list(&[("cpu", "250m"), ("memory", "1Gi")]),
            system: list(&[
                ("cpu", "250m"),
                ("ephemeral-storage", "95Gi"),
                ("pid", "300"),
            ]),
        };
        assert_eq!(texts(&reserved), ["1500m", "2972Mi", "0", "110"]);
        let limits = enforced(&capacity, Some(1000), &reserved).unwrap();
        let of = limits.resources;
        assert_eq!(
            (of.cpu_request_millis, of.cpu_limit_millis),
            (Some(1500), None)
        );
        // Up to the threshold they may use it: then they are ended one by one.
        assert_eq!(of.memory_limit_bytes, Some(3 << 30));
        assert_eq!(limits.processes, Some(700));
    }
}
