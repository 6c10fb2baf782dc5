//! What upstream tests in `test/e2e/auth`.

mod subjectreviews;
