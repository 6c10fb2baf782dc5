//! Pulls that take long: how far they are, and when that is told.
//!
//! Whoever pulls writes how far it is into [`PullProgress`], as often as it likes; what is told of
//! that follows a clock of its own ([`wait`]) and ends with the pull.
//!
//! Deliberately absent: how far a runtime is that pulls for itself, which does not say.

use std::time::Duration;

use tokio::sync::watch;

/// How long a pull goes on before it is told of, seconds.
const FIRST: u64 = 10;
/// How long after one report the next one comes at most, seconds.
const LONGEST: u64 = 60;

/// How much of an image is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes that are here.
    pub done_bytes: u64,
    /// Bytes that it takes; 0 until the registry has said.
    pub total_bytes: u64,
}

/// How far a pull is; nothing until it begins.
#[derive(Debug, Default)]
pub struct PullProgress(watch::Sender<Option<Fetched>>);

impl PullProgress {
    /// Says how far it is.
    pub fn set(&self, fetched: Fetched) {
        self.0.send_replace(Some(fetched));
    }
}

/// How long to wait before a pull is told of, of which so many reports were made: 10 seconds, then
/// twice as long each time, up to a minute.
fn wait(reports: u32) -> Duration {
    let doubled = 1_u64.checked_shl(reports).unwrap_or(u64::MAX);
    Duration::from_secs(FIRST.saturating_mul(doubled).min(LONGEST))
}

/// What is told of a pull.
pub(crate) fn text(reference: &str, fetched: Fetched) -> String {
    let Fetched {
        done_bytes,
        total_bytes,
    } = fetched;
    if total_bytes == 0 {
        return format!("Pulling image \"{reference}\": nothing of it has come yet");
    }
    let (shift, unit) = match total_bytes {
        0..0x10_0000 => (10, "KiB"),
        _ => (20, "MiB"),
    };
    let (done, total) = (done_bytes.min(total_bytes) >> shift, total_bytes >> shift);
    format!("Pulling image \"{reference}\": {done} {unit} of {total} {unit}")
}

/// Waits for what needs a pull, and tells of that while it goes on.
pub(crate) async fn telling<T, S: Future<Output = ()>>(
    pull: impl Future<Output = T>,
    progress: &PullProgress,
    sleep: impl Fn(Duration) -> S,
    tell: impl FnMut(Fetched),
) -> T {
    tokio::select! {
        biased;
        done = pull => done,
        () = reports(progress, sleep, tell) => std::future::pending().await,
    }
}

/// Tells of a pull until it is dropped.
async fn reports<S: Future<Output = ()>>(
    progress: &PullProgress,
    sleep: impl Fn(Duration) -> S,
    mut tell: impl FnMut(Fetched),
) {
    let mut seen = progress.0.subscribe();
    // The sender is there as long as `progress` is.
    let _ = seen.wait_for(Option::is_some).await;
    for made in 0..u32::MAX {
        sleep(wait(made)).await;
        let fetched = *seen.borrow_and_update();
        tell(fetched.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_less_and_less_often() {
        let waits = (0..6).map(|made| wait(made).as_secs());
        assert_eq!(waits.collect::<Vec<_>>(), [10, 20, 40, 60, 60, 60]);
        assert_eq!(wait(u32::MAX).as_secs(), 60);
    }

    #[test]
    fn sizes_are_in_one_unit() {
        const MIB: u64 = 1 << 20;
        for (done, total, said) in [
            (0, 0, "nothing of it has come yet"),
            (120 * MIB, 300 * MIB, "120 MiB of 300 MiB"),
            (MIB - 1, 10 * MIB, "0 MiB of 10 MiB"),
            (5000, 20_000, "4 KiB of 19 KiB"),
            (MIB, MIB, "1 MiB of 1 MiB"),
            // A registry that sends more than it said is cut off elsewhere.
            (2 * MIB, MIB, "1 MiB of 1 MiB"),
            (
                u64::MAX,
                u64::MAX,
                "17592186044415 MiB of 17592186044415 MiB",
            ),
        ] {
            let fetched = Fetched {
                done_bytes: done,
                total_bytes: total,
            };
            let expected = format!("Pulling image \"app:v1\": {said}");
            assert_eq!(text("app:v1", fetched), expected);
        }
    }
}
