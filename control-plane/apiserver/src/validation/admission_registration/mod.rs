//! Who is asked before an object is written: webhooks and policies, what they are asked about, and
//! the expressions in them.
//!
//! Expressions that an object had before are not compiled again when it is updated: what was once
//! taken stays, even where a later release compiles more strictly.

pub(crate) mod binding;
mod client;
mod conditions;
pub(crate) mod mutating;
pub(crate) mod policy;
pub(crate) mod rules;
mod subject;
pub(crate) mod webhook;
