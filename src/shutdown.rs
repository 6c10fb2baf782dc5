//! Ending on SIGINT and SIGTERM.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels the token at the first signal. The second one ends the process at once, for whoever
/// does not want to wait for graceful ends.
pub(crate) fn on_signals(cancel: CancellationToken) -> Result<tokio::task::JoinHandle<()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    Ok(tokio::spawn(async move {
        let first = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        tracing::info!(signal = first, "ending");
        cancel.cancel();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!(
            "coracle: ended at once by a second signal; guests end by themselves in a minute"
        );
        #[expect(
            clippy::disallowed_methods,
            reason = "without destructors: that is what was asked for"
        )]
        std::process::exit(130);
    }))
}
