//! Ranges and names that every part of a cluster must agree on, and what `coracle up` takes where
//! nothing else is asked for.

use coracle_apimachinery::quantity::Quantity;
use coracle_kubelet::{Amount, NodePolicy, Signal};

/// All Pods of the cluster, as in k3s.
pub(crate) const CLUSTER_CIDR: &str = "10.42.0.0/16";
/// Services, as in k3s.
pub(crate) const SERVICE_CIDR: &str = "10.43.0.0/16";
/// Users of the host for guests, where the agent is root: one per namespace of the cluster. Outside
/// the ranges that systemd documents (its containers end at 1,879,048,191), of what distributions
/// give to people and their subordinates, and below 2^31, which some tools take for the end.
pub(crate) const GUEST_USERS: std::ops::Range<u32> = 2_000_000_000..2_000_065_536;
/// The cluster's domain.
pub(crate) const DOMAIN: &str = "cluster.local";
/// Bits of a node's range of Pods, as in Kubernetes.
pub(crate) const NODE_MASK: u8 = 24;
/// Pods on a node, as in Kubernetes.
pub(crate) const MAX_PODS: u32 = 110;
/// The same for `coracle up`: one node, and guests are light.
pub(crate) const UP_NODE_MASK: u8 = 18;
/// See [`UP_NODE_MASK`].
pub(crate) const UP_MAX_PODS: u32 = 16_000;
/// How the node of `coracle up` keeps room for itself. It shares its disk with whatever else its
/// owner has on it: how full that is says nothing of the cluster, as kind has it too, only how much
/// is left for it.
pub(crate) fn up_policy() -> NodePolicy {
    let mut policy = NodePolicy::default();
    policy.images.high_threshold_percent = 100;
    let left = Amount::Quantity(Quantity::from_bytes(512 << 20));
    for signal in [Signal::NodeFsAvailable, Signal::ImageFsAvailable] {
        policy.eviction.hard.insert(signal, left.clone());
    }
    policy
}

/// Issuer of the tokens of service accounts, as kubeadm sets it.
pub(crate) const SERVICE_ACCOUNT_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_somebody_is_full_when_little_is_left_not_when_it_is_well_used() {
        let hard = up_policy().eviction.hard;
        for signal in [Signal::NodeFsAvailable, Signal::ImageFsAvailable] {
            assert!(matches!(hard[&signal], Amount::Quantity(_)), "{signal:?}");
        }
        assert_eq!(hard.len(), NodePolicy::default().eviction.hard.len());
        assert_eq!(up_policy().images.high_threshold_percent, 100);
    }
}
