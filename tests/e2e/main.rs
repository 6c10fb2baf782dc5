//! End-to-end tests: the real binary and real clients, each test with a cluster of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../clients/mod.rs"]
mod clients;
mod cluster;
mod conformance;
mod container_network;
mod containers;
mod faults;
mod isolation;
mod lifecycle;
mod nodes;
mod pod_network;
mod pressure;
mod samples;
mod streaming;
mod tokens;
mod usage;
mod walk;
