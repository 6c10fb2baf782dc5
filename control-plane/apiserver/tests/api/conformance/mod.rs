//! The behaviours of Kubernetes' conformance that the API alone can show, each as a test whose
//! name one can find from the behaviour's.
//!
//! A test is named after the behaviour: its name without the tags in brackets, in lower case,
//! each run of what is neither letter nor digit as one underscore. `[sig-api-machinery] Watchers
//! should be able to start watching from a specific resource version [Conformance]` is
//! `watchers_should_be_able_to_start_watching_from_a_specific_resource_version`. It asserts all
//! that the behaviour demands, and says so with one line that begins with `Must:` for each demand,
//! in the comment before it. Modules are named after the files of the upstream tests.
//!
//! `tests/CONFORMANCE.md` is made from these names and lines, from the behaviours listed in
//! `tests/conformance/`, and from what the server serves. Behaviours that need controllers, a node
//! or a client are tests of the same names elsewhere: of the controllers, or in `tests/e2e`.

mod apimachinery;
mod apps;
mod auth;
mod common_node;
mod common_storage;
mod endpoints;
mod examples;
mod instrumentation;
mod lists;
mod network;
mod node;
mod objects;
mod page;
mod scheduling;
mod sources;
mod storage;
