//! Behaviours of Kubernetes' conformance that the API shows together with the controllers. Names
//! and comments are as those of the tests of the API alone, in `tests/api/conformance` of the API
//! server.

mod endpoints;
mod garbage_collector;
mod namespace;
mod quota_scopes;
mod resource_quota;
