//! What upstream tests in `test/e2e/scheduling`.

mod limit_range;
mod preemption;
