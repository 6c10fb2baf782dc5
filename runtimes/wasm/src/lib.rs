//! WebAssembly guests under wasmtime.
//!
//! The crate has two sides that never share a process. The *agent side* ([`WasmRuntime`])
//! implements [`coracle_runtime::RuntimeService`]: it owns the records of sandboxes and
//! containers on disk, compiles images, and starts, adopts and ends guest processes. The *guest
//! side* is reached through [`subcommand`], by which the binary re-executes itself: `wasm-compile`
//! turns a module into machine code, `wasm-runner` runs one command guest, `wasm-http-host`
//! serves all HTTP guests of a namespace with a fresh instance per request. Both long-lived
//! processes speak the protocol of [`protocol`] over a Unix socket, survive the agent and are
//! adopted by the next one.
//!
//! **Invariant**: no guest code, and no compiler on hostile input, runs inside the agent.
//!
//! Under root guests run as users of their own, one per Kubernetes namespace, and join the network
//! namespace of the node's Pods if it has one ([`launch`]).
//!
//! Deliberately absent: pulling images (the images crate), addresses and names (they come
//! through [`coracle_runtime::GuestNetwork`], injected as a [`NetworkFactory`]), volumes and
//! restarts (the kubelet).

mod agent;
mod compile;
mod confine;
mod descriptors;
mod guest;
mod host;
mod launch;
mod process;
mod protocol;
mod runner;
mod serve;

pub use agent::{WasmConfig, WasmRuntime};
pub use process::{NetworkFactory, subcommand};
