//! Objects, selectors, quantities, Status, field errors, patches, managed fields, tables and wire
//! formats of the Kubernetes API.
//!
//! Everything here is a function from data to data: no module reads a file, a clock or the
//! network, and none keeps state. What depends on time or chance takes it as an argument.
//! The types of the served kinds come from `k8s-openapi`; this crate holds what surrounds them.
//!
//! Deliberately absent: defaults, validation and conversion of particular kinds (the API
//! server's registry owns them), but for the defaults of Pods, which kubelets read from files too.

pub mod apply;
pub mod cbor;
pub mod cron;
pub mod duration;
pub mod field;
pub mod gvk;
pub mod host_ports;
pub mod intstr;
pub mod json;
pub mod managed;
pub mod meta;
pub mod names;
pub mod node_affinity;
pub mod patch;
pub mod pod_defaults;
pub mod pod_references;
pub mod pods;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod resources;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod taints;
pub mod yaml;
