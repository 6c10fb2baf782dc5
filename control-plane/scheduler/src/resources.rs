//! Amounts of resources as the scheduler counts them: whole numbers, CPU in thousandths.

use std::collections::BTreeMap;

use coracle_apimachinery::resources::{self, CPU, MEMORY, PODS, ResourceList};
use k8s_openapi::api::core::v1::{Node, Pod};

/// What a Pod without requests is taken to use when nodes are compared (not when it is decided
/// whether it fits): a tenth of a CPU and 200 MB, as Kubernetes does.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// An amount of every resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    /// All others but Pods, by name.
    pub(crate) others: BTreeMap<String, i64>,
}

impl Resources {
    fn from_list(list: &ResourceList) -> Self {
        let mut sum = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                CPU => sum.milli_cpu = quantity.milli_value(),
                MEMORY => sum.memory = quantity.value(),
                PODS => {}
                _ => drop(sum.others.insert(name.clone(), quantity.value())),
            }
        }
        sum
    }

    /// What a Pod asks for, or has while it is resized.
    pub(crate) fn requested(pod: &Pod) -> Self {
        Self::from_list(&resources::pod_requests_in_place(pod))
    }

    /// What a node has for Pods.
    pub(crate) fn allocatable(node: &Node) -> Self {
        let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
        Self::from_list(&resources::parse(list))
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.milli_cpu += other.milli_cpu;
        self.memory += other.memory;
        for (name, amount) in &other.others {
            *self.others.entry(name.clone()).or_default() += amount;
        }
    }

    pub(crate) fn sub(&mut self, other: &Self) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        for (name, amount) in &other.others {
            *self.others.entry(name.clone()).or_default() -= amount;
        }
    }

    /// The same with the defaults in place of nothing.
    pub(crate) fn or_default(&self) -> Self {
        let or = |amount: i64, default| if amount == 0 { default } else { amount };
        Self {
            milli_cpu: or(self.milli_cpu, DEFAULT_MILLI_CPU),
            memory: or(self.memory, DEFAULT_MEMORY),
            others: BTreeMap::new(),
        }
    }
}

/// How many Pods a node takes.
pub(crate) fn allowed_pods(node: &Node) -> i64 {
    let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    resources::parse(list)
        .get(PODS)
        .map_or(0, |quantity| quantity.value())
}
