//! What upstream tests in `test/e2e/apimachinery`.

mod watch;
