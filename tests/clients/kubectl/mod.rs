//! kubectl: how it reads and changes objects. What a user does with it from day to day is in
//! `tests/e2e/walk.rs`.

mod apply;
mod change;
mod last_applied;
mod read;

use std::process::Output;

/// All that a command said.
fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
