//! Who is who: the cluster's certificate authority, the certificates it issues, kubeconfigs, and
//! how a node joins.
//!
//! A certificate's common name is the user and its organization the group, as Kubernetes reads
//! client certificates. The CA's key never leaves the servers.

pub(crate) mod authority;
pub(crate) mod join;
pub(crate) mod kubeconfig;
pub(crate) mod registry;
pub(crate) mod service_accounts;
pub(crate) mod token;
