//! Logs go to standard error; standard output is for people.

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

/// Starts logging with the filter that was given, or `default`.
pub(crate) fn start(given: Option<&str>, default: &str) -> Result<()> {
    let filter = given.unwrap_or(default);
    // A bare level means ours: raft tells every step of an election at `info`, and warns of a vote
    // that it has overtaken itself.
    let filter = match filter.parse::<tracing::Level>() {
        Ok(level) => format!("{level},openraft=error"),
        Err(_) => filter.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter)
        .with_context(|| format!("--log {filter:?} is no filter: try info or coracle=debug"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(())
}
