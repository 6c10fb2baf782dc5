//! FlowSchema and PriorityLevelConfiguration: which requests wait for which. Two of each are fixed,
//! so that every request is of some flow and the cluster's administrators are never held up.

mod level;
mod mandatory;
mod schema;
mod suggested;
#[cfg(test)]
mod tests;

pub(super) use level::PriorityLevelStrategy;
pub(crate) use mandatory::{levels, schemas};
pub(super) use schema::FlowSchemaStrategy;
pub(crate) use suggested::{bootstrap_levels, bootstrap_schemas};

/// A default of a number of which zero is the same as none.
fn set_where_zero(number: &mut Option<i32>, value: i32) {
    if number.unwrap_or_default() == 0 {
        *number = Some(value);
    }
}
