//! Ranges and names that every part of a cluster must agree on.

/// All Pods of the cluster, as in k3s.
pub(crate) const CLUSTER_CIDR: &str = "10.42.0.0/16";
/// Services, as in k3s.
pub(crate) const SERVICE_CIDR: &str = "10.43.0.0/16";
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
