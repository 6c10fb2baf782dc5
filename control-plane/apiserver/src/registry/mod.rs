//! The generic registry: every verb for every kind, written once over [`strategy::Strategy`].

pub mod erased;
pub mod kinds;
pub mod printing;
pub mod strategy;
