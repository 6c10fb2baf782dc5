//! Events end by themselves: what was last seen longer ago than their time to live is removed.
//!
//! Applying a command reads no clock, so every server proposes the removals, each on condition
//! that the Event is still as it was read; a second proposal finds nothing to do.

use std::sync::Arc;
use std::time::Duration;

use coracle_store::{ListOptions, Precondition, Read, Record};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::registry::{PREFIX, Registry};

const EVERY: Duration = Duration::from_secs(60);

/// Events that are read at once.
const PAGE: usize = 500;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Times {
    metadata: Metadata,
    last_timestamp: Option<Timestamp>,
    event_time: Option<Timestamp>,
    series: Option<Series>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    creation_timestamp: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Series {
    last_observed_time: Option<Timestamp>,
}

/// When an Event was last seen.
fn last_seen(json: &[u8]) -> Option<Timestamp> {
    let times: Times = serde_json::from_slice(json).ok()?;
    let series = times.series.and_then(|series| series.last_observed_time);
    [
        times.metadata.creation_timestamp,
        times.last_timestamp,
        times.event_time,
        series,
    ]
    .into_iter()
    .flatten()
    .max()
}

/// Removes Events that have expired, until cancelled.
pub(crate) async fn run(registry: Arc<Registry>, ttl: Duration, cancel: CancellationToken) {
    let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::from_hours(1));
    loop {
        let before = Timestamp::now().checked_sub(ttl).unwrap_or(Timestamp::MIN);
        if let Err(error) = sweep(&registry, before).await {
            tracing::warn!(%error, "could not remove expired events, trying again later");
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Removes the Events that were last seen before a time. Returns how many.
pub(crate) async fn sweep(registry: &Registry, before: Timestamp) -> coracle_store::Result<usize> {
    let prefix = format!("{PREFIX}events/");
    let mut removed = 0;
    let mut start_after = None;
    loop {
        let options = ListOptions {
            read: Read::AtLeast(0),
            limit: PAGE,
            start_after,
        };
        let list = registry.store.list(&prefix, options).await?;
        for record in list.records.iter().filter(|record| expired(record, before)) {
            let precondition = Precondition {
                revision: Some(record.revision()),
                uid: None,
            };
            match registry.store.delete(record.key(), precondition).await {
                Ok(_) => removed += 1,
                Err(coracle_store::Error::NotFound(_) | coracle_store::Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if list.remaining.is_none() {
            return Ok(removed);
        }
        start_after = list.records.last().map(|record| record.key().to_owned());
    }
}

fn expired(record: &Record, before: Timestamp) -> bool {
    last_seen(record.value().json()).is_some_and(|seen| seen < before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_sighting_counts() {
        let seen = last_seen(
            br#"{"metadata":{"creationTimestamp":"2026-01-01T00:00:00Z"},"lastTimestamp":"2026-01-01T00:10:00Z","eventTime":null,"series":{"count":2,"lastObservedTime":"2026-01-01T00:20:00.000001Z"}}"#,
        );
        assert_eq!(seen, "2026-01-01T00:20:00.000001Z".parse().ok());
        assert_eq!(last_seen(b"{}"), None);
        assert_eq!(last_seen(b"nonsense"), None);
    }
}
