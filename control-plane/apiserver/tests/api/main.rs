//! The API over a store in memory, through the server's own service: what a client sees.

#![allow(clippy::unwrap_used)]

mod admission;
mod apply;
mod apply_types;
mod bad_input;
mod client;
mod concurrency;
mod conformance;
mod deletion;
mod discovery;
mod every_kind;
mod fields;
mod formats;
mod freshness;
mod fuzz;
mod garbage;
mod grace;
mod habits;
mod harness;
mod kinds;
mod kubectl;
mod lists;
mod logs;
mod managed_fields;
mod openapi;
mod pod_parts;
mod proxies;
mod requests;
mod services;
mod shapes;
mod subresources;
mod tls;
mod transport;
mod warnings;
mod watches;
mod websockets;
mod wire_fields;
mod writes;
