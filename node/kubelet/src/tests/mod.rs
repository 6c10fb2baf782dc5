//! The kubelet as a whole, against a fake API and a fake runtime.
#![allow(clippy::unwrap_used)]

mod api;
mod attaching;
mod evicting;
mod images;
mod lifecycle;
mod node;
mod probing;
mod restart;
mod serving;
mod starting;
mod streaming;
mod volumes;
mod world;
