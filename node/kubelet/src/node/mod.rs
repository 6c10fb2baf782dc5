//! The node as an object of the API: registration, status and lease.

pub(crate) mod allocatable;
pub(crate) mod capacity;
pub(crate) mod machine;
pub(crate) mod object;
pub(crate) mod reporter;
