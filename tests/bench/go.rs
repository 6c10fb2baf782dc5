//! Peers that are programs in Go.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds a program in Go of the bench's into a folder; none where Go is missing.
pub(crate) fn built(name: &str, into: &Path) -> Option<PathBuf> {
    let program = into.join(name);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench");
    let ended = Command::new("go")
        .current_dir(sources.join(name))
        .args(["build", "-trimpath", "-o"])
        .arg(&program)
        .arg(".")
        .status();
    match ended.is_ok_and(|status| status.success()) {
        true => Some(program),
        false => None,
    }
}
