//! The kubelet as a whole, against a fake API and a fake runtime.
#![allow(clippy::unwrap_used)]

mod api;
mod armoring;
mod attaching;
mod debugging;
mod evicting;
mod images;
mod lifecycle;
mod node;
mod probing;
mod pulled;
mod resizing;
mod restart;
mod restarting;
mod serving;
mod shutting_down;
mod sidecars;
mod spdy;
mod starting;
mod static_pods;
mod streaming;
mod volumes;
mod world;
