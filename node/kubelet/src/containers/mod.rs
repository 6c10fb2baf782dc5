//! Containers of a Pod: what runs, what should run, and the difference.

pub(crate) mod actions;
pub(crate) mod allocation;
pub(crate) mod back_off;
pub(crate) mod handler;
pub(crate) mod lost;
pub(crate) mod observed;
mod pull;
pub(crate) mod start;
pub(crate) mod stop;
mod supported;
