//! What upstream tests in `test/e2e/instrumentation`.

mod core_events;
mod events;
