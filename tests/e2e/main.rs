//! End-to-end tests: the real binary and real clients, each test with a cluster of its own, or with
//! a namespace of one that is shared ([`conformance`]).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../clients/mod.rs"]
mod clients;
mod cluster;
mod conformance;
mod container_network;
mod container_runtime;
mod containers;
mod debugging;
mod exec;
mod faults;
mod health_checks;
mod host_ports;
mod image_volumes;
mod isolation;
mod lifecycle;
mod mixed;
mod nodes;
mod pod_network;
mod pressure;
mod proxies;
mod resizing;
mod samples;
mod services;
mod static_pods;
mod streaming;
mod tokens;
mod usage;
mod user_namespaces;
mod walk;
mod wasm_images;
