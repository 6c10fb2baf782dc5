//! What upstream tests in `test/e2e/common/storage`, as far as no volume is mounted.

mod immutable;
