//! What upstream tests in `test/e2e/apimachinery`.

mod chunking;
mod discovery;
mod field_validation;
mod namespace;
mod resource_quota;
mod server_version;
mod table_conversion;
mod watch;
