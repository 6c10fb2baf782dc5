//! What upstream tests in `test/e2e/node`.

mod node_lifecycle;
mod pods;
