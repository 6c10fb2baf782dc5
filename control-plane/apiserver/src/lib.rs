//! The Kubernetes API over the store.
//!
//! | module | for |
//! |---|---|
//! | `server` | the request path, in its order |
//! | [`serving`] | TLS connections, in-process services, shutdown |
//! | [`request`] | what a request asks for |
//! | [`auth`] | who asks, and whether they may |
//! | `flow`, `metrics`, `health`, `debug` | how much is served, and how well |
//! | [`audit`], `answer` | what is told of a request when it is over |
//! | `handlers` | from an authorized request to a response |
//! | [`admission`] | what depends on other objects than the one that is written |
//! | [`registry`] | the kinds, and every verb for all of them |
//! | `discovery`, `openapi` | what is served, for clients |
//! | [`bootstrap`], `expiry` | what a cluster starts with, and what ends by itself |
//! | [`dial`], `nodes`, `exchange` | the way to nodes and their Pods |
//!
//! **Invariant**: this crate alone sees the store. **Invariant**: nothing durable is kept
//! anywhere else, so that any number of servers can run over one store.
//!
//! Deliberately absent so far: RBAC, webhooks and custom resources.

pub mod admission;
mod answer;
pub mod audit;
pub mod auth;
pub mod bootstrap;
mod config;
mod debug;
pub mod dial;
mod discovery;
mod exchange;
mod expiry;
mod flow;
mod handlers;
mod health;
mod metrics;
mod nodes;
mod openapi;
pub mod registry;
pub mod request;
mod server;
pub mod serving;
mod validation;

pub use auth::UserInfo;
pub use auth::tokens::{KeyError, SigningKey, TokenConfig, VerifyingKey};
pub use config::{ApiServer, Config, Verbosity};
pub use dial::{Dial, Direct, Endpoint};
pub use flow::FlowLimits;
pub use metrics::storage::StorageSize;
pub use registry::service_addresses::Ipv4Range;
pub use serving::ApiService;
