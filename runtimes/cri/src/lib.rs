//! OCI containers under a runtime that the machine has, in place of our own
//! (`--container-runtime-endpoint`): containerd, CRI-O, or what else serves CRI v1 at a Unix socket.
//!
//! [`CriRuntime`] implements [`coracle_runtime::RuntimeService`] by calls of that interface
//! ([`wire`], over [`client`]). What is whose:
//!
//! | | |
//! |---|---|
//! | images | the runtime pulls, unpacks and keeps them; the node's content store has their manifests alone, which say what an image is and which digest is meant |
//! | network | the node's: the runtime is given a plugin that puts the Pod's namespace in the place of its own ([`cni`]) |
//! | state | the runtime's: what was asked goes with its objects as an annotation ([`plan`]), so that the next agent finds all in one place |
//! | logs | the runtime writes them where the kubelet reads them, in the format that is the CRI's; they are put aside here |
//! | exec, attach | streams of the runtime's own server, in SPDY, which alone can end an input ([`session`]) |
//! | ports | dialled in the Pod's network: the CRI's port-forward does not tell whether anything listens, which a probe asks |
//! | control groups | a Pod's are made and limited here, as with our own runtime; containers' by the runtime |
//! | events | every second all is listed and compared, as the kubelet does without evented PLEG; what is done here is looked at at once |
//!
//! Refused by name: user namespaces of a Pod's own, volumes that are images, and `recursiveReadOnly`
//! where the runtime does not have it.
//!
//! Deliberately absent: guests, which stay with the runtime `wasm`; whatever else runs under the same
//! runtime, which is neither shown nor touched.

mod agent;
mod client;
mod cni;
mod facts;
mod plan;
mod session;
mod signals;
mod staging;
mod wire;

pub use agent::{CriConfig, CriRuntime};
pub use cni::plugin;
