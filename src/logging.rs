//! Logs go to standard error; standard output is for people.

use std::sync::Arc;

use anyhow::{Context, Result};
use coracle_apiserver::Verbosity;
use tracing_subscriber::EnvFilter;

/// Starts logging with the filter that was given, or `default`. What is returned changes it while
/// the program runs.
pub(crate) fn start(given: Option<&str>, default: &str) -> Result<Verbosity> {
    let filter = given.unwrap_or(default);
    // A bare level means ours: raft tells every step of an election at `info`, and warns of a vote
    // that it has overtaken itself.
    let filter = match filter.parse::<tracing::Level>() {
        Ok(level) => format!("{level},openraft=error"),
        Err(_) => filter.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter)
        .with_context(|| format!("--log {filter:?} is no filter: try info or coracle=debug"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.init();
    Ok(Arc::new(move |verbosity: &str| {
        let filter = EnvFilter::new(filter_of(verbosity)?);
        handle.reload(filter).map_err(|error| error.to_string())
    }))
}

/// The filter for a verbosity as Kubernetes counts it: requests are logged from 3 on. There is
/// nothing beyond `debug`: a released binary has been built without it.
fn filter_of(verbosity: &str) -> Result<&'static str, String> {
    let number = verbosity.parse::<u32>();
    match number.map_err(|_| format!("{verbosity:?} is not a number"))? {
        0..=2 => Ok("info,openraft=error"),
        _ => Ok("info,coracle=debug,openraft=error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosities_are_numbers() {
        assert!(filter_of("2").is_ok_and(|filter| filter.starts_with("info,openraft")));
        assert!(filter_of("3").is_ok_and(|filter| filter.contains("coracle=debug")));
        assert!(filter_of("10").is_ok_and(|filter| filter.contains("coracle=debug")));
        assert!(filter_of("-1").is_err() && filter_of("loud").is_err());
    }
}
