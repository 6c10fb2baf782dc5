//! The plugins, one module each. Their names, weights and words are those of Kubernetes.

mod balanced_allocation;
mod image_locality;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
pub(crate) mod scheduling_gates;
mod taint_toleration;
#[cfg(test)]
pub(crate) mod testing;

use crate::framework::Framework;

/// The plugins of the default scheduler.
pub(crate) fn default() -> Framework {
    Framework {
        filters: vec![
            Box::new(node_unschedulable::NodeUnschedulable),
            Box::new(node_name::NodeName),
            Box::new(taint_toleration::TaintToleration),
            Box::new(node_affinity::NodeAffinity),
            Box::new(node_ports::NodePorts),
            Box::new(node_resources_fit::NodeResourcesFit),
        ],
        post_filters: Vec::new(),
        scores: vec![
            Box::new(taint_toleration::TaintToleration),
            Box::new(node_affinity::NodeAffinity),
            Box::new(node_resources_fit::NodeResourcesFit),
            Box::new(balanced_allocation::BalancedAllocation),
            Box::new(image_locality::ImageLocality),
        ],
    }
}
