//! The controllers against the API server itself, over a store in memory.

#![allow(clippy::unwrap_used)]

mod budgets;
mod conformance;
mod harness;
mod quotas;
mod storage;
mod tokens;
