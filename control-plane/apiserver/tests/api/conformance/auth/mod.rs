//! What upstream tests in `test/e2e/auth`.

mod service_accounts;
mod subjectreviews;
