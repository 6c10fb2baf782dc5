//! Devices that Pods ask for: DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate
//! and ResourceSlice.
//!
//! Deliberately absent: who allocates devices to claims, who evicts for taints, and the finer
//! rights to parts of a claim's status, which belong to the authorizer of roles.

mod alpha;
mod claim;
mod class;
mod defaults;
mod slice;
#[cfg(test)]
mod slice_tests;
mod taint_rule;
mod template;
#[cfg(test)]
mod tests;

pub(super) use claim::ResourceClaimStrategy;
pub(super) use class::DeviceClassStrategy;
pub(super) use slice::ResourceSliceStrategy;
pub(super) use taint_rule::DeviceTaintRuleStrategy;
pub(super) use template::ResourceClaimTemplateStrategy;
