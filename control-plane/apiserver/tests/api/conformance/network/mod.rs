//! What upstream tests in `test/e2e/network`.

mod apiserver;
mod endpoints;
mod endpointslice;
mod service;
