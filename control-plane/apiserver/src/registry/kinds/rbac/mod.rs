//! Role, ClusterRole, RoleBinding, ClusterRoleBinding: who may do what, as it is written down.

mod binding;
mod role;
#[cfg(test)]
mod tests;

pub(super) use binding::{ClusterRoleBindingStrategy, RoleBindingStrategy};
pub(super) use role::{ClusterRoleStrategy, RoleStrategy};
