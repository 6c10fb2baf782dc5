//! The Kubernetes API over the store.

pub mod registry;
mod validation;
