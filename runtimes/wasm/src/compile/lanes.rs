//! Whose turn it is to be compiled.
//!
//! Images are anybody's, and what one costs to compile is known when it is compiled: a small module
//! may take as long as it may. Were all compiled in the order in which they come, a few of that kind
//! would hold up every guest that starts. So there are two lanes, in each of which one compiler runs:
//!
//! ```text
//! module ──► quick: little time ──► compiled
//!               │ that is spent, or all the memory there is
//!               ▼
//!            slow: all the time there is, at the lowest priority ──► compiled
//!               │ that is spent
//!               ▼
//!            refused, for a while without another trial
//! ```
//!
//! What is slow begins anew in the slow lane: to stop it and go on later would keep its memory. It is
//! remembered, and takes no second turn of the quick lane. A large module takes none at all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;

/// How long a module may take that others wait for.
const QUICK: Duration = Duration::from_secs(30);
/// How long any module may take.
const SLOW: Duration = Duration::from_secs(300);
/// The largest module that begins in the quick lane.
const QUICK_SIZE: u64 = 32 << 20;
/// How long it is remembered that a module could not be compiled. A node that was busy then may do
/// better later.
const REFUSED: Duration = Duration::from_secs(600);
/// Modules that are remembered.
const REMEMBERED: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Quick,
    Slow,
}

impl Lane {
    /// As the compiler's process is told.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Slow => "slow",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Quick, Self::Slow]
            .into_iter()
            .find(|lane| lane.name() == name)
    }

    /// How nice the compiler is. In the slow lane it leaves nearly all to that in the quick one.
    pub(super) fn nice(self) -> i32 {
        match self {
            Self::Quick => 10,
            Self::Slow => 19,
        }
    }
}

/// How one run of the compiler ended.
pub(super) enum Trial<T> {
    /// With an answer, be it that the module is not valid.
    Answered(T),
    /// Without one, since the compiler was ended, and what is said of that.
    Broke(String),
}

/// The lanes of a node.
pub(super) struct Lanes {
    quick: Turn,
    slow: Turn,
    known: Mutex<Known>,
}

struct Turn {
    one: tokio::sync::Mutex<()>,
    time: Duration,
}

impl Turn {
    fn new(time: Duration) -> Self {
        Self {
            one: tokio::sync::Mutex::new(()),
            time,
        }
    }
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self::of(QUICK, SLOW)
    }

    fn of(quick: Duration, slow: Duration) -> Self {
        Self {
            quick: Turn::new(quick),
            slow: Turn::new(slow),
            known: Mutex::default(),
        }
    }

    /// Has a module of so many bytes compiled when it is its turn, or says why it cannot be. A trial
    /// that is dropped ends its compiler.
    pub(super) async fn run<'a, T>(
        &self,
        digest: &str,
        size: u64,
        compile: impl Fn(Lane) -> BoxFuture<'a, Trial<T>>,
    ) -> Result<T, String> {
        let mut lane = Lane::Quick;
        loop {
            // The same module may have had its turn while this one waited.
            lane = match self.known.lock().next(digest, size, lane, Instant::now()) {
                Next::In(lane) => lane,
                Next::Refused(why) => return Err(why),
            };
            let turn = match lane {
                Lane::Quick => &self.quick,
                Lane::Slow => &self.slow,
            };
            let _turn = turn.one.lock().await;
            match self.known.lock().next(digest, size, lane, Instant::now()) {
                Next::In(still) if still == lane => {}
                _ => continue,
            }
            let why = match tokio::time::timeout(turn.time, compile(lane)).await {
                Ok(Trial::Answered(answer)) => return Ok(answer),
                Ok(Trial::Broke(why)) => why,
                Err(_) => {
                    let seconds = turn.time.as_secs();
                    format!("the module was not compiled within {seconds} seconds")
                }
            };
            self.known.lock().spent(digest, lane, why, Instant::now());
        }
    }
}

/// What becomes of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    In(Lane),
    Refused(String),
}

/// Modules that were not compiled in the quick lane, the latest last.
#[derive(Default)]
struct Known(VecDeque<Slow>);

struct Slow {
    digest: String,
    /// Why it was not compiled in the slow lane either, and until when that is believed.
    refused: Option<(String, Instant)>,
}

impl Known {
    /// Where a module is tried that has come to a lane.
    fn next(&self, digest: &str, size: u64, lane: Lane, now: Instant) -> Next {
        let slow = self.0.iter().find(|slow| slow.digest == digest);
        match slow.map(|slow| &slow.refused) {
            Some(Some((why, until))) if now < *until => Next::Refused(why.clone()),
            Some(_) => Next::In(Lane::Slow),
            None if size > QUICK_SIZE => Next::In(Lane::Slow),
            None => Next::In(lane),
        }
    }

    /// A module had its turn, and was not compiled.
    fn spent(&mut self, digest: &str, lane: Lane, why: String, now: Instant) {
        self.0.retain(|slow| slow.digest != digest);
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Slow {
            digest: digest.to_owned(),
            refused: match lane {
                Lane::Quick => None,
                Lane::Slow => Some((why, now + REFUSED)),
            },
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use tokio::sync::mpsc;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_module_that_takes_long_leaves_the_quick_lane() {
        let (begin, later) = (Instant::now(), Instant::now() + REFUSED + HOUR);
        let refused = || Next::Refused("too large".into());
        let (quick, slow) = (Next::In(Lane::Quick), Next::In(Lane::Slow));
        // What was spent on it, its size, when it comes again, and where it goes.
        type Case = (&'static [Lane], u64, Instant, Next);
        let cases: [Case; 7] = [
            (&[], 0, begin, quick.clone()),
            (&[], QUICK_SIZE, begin, quick),
            (&[], QUICK_SIZE + 1, begin, slow.clone()),
            (&[Lane::Quick], 0, begin, slow.clone()),
            (&[Lane::Quick], 0, later, slow.clone()),
            (&[Lane::Quick, Lane::Slow], 0, begin, refused()),
            (&[Lane::Slow], QUICK_SIZE + 1, later, slow),
        ];
        for (spent, size, at, expected) in cases {
            let mut known = Known::default();
            for lane in spent {
                known.spent("one", *lane, "too large".into(), begin);
            }
            let found = known.next("one", size, Lane::Quick, at);
            assert_eq!(found, expected, "{spent:?} {size}");
            assert_eq!(
                known.next("other", 0, Lane::Quick, at),
                Next::In(Lane::Quick)
            );
        }
    }

    #[test]
    fn so_many_are_remembered() {
        let (mut known, now) = (Known::default(), Instant::now());
        for digest in 0..=REMEMBERED {
            known.spent(&digest.to_string(), Lane::Quick, String::new(), now);
        }
        assert_eq!(known.0.len(), REMEMBERED);
        let next = |digest: &str| known.next(digest, 0, Lane::Quick, now);
        assert_eq!(next("0"), Next::In(Lane::Quick));
        assert_eq!(next("1"), Next::In(Lane::Slow));
    }

    #[tokio::test]
    async fn modules_that_take_for_ever_hold_up_no_other() {
        let lanes = Arc::new(Lanes::of(Duration::from_millis(20), HOUR));
        let (tried, mut trials) = mpsc::unbounded_channel();
        let bombs = (0..4).map(|number| {
            let (lanes, tried) = (lanes.clone(), tried.clone());
            tokio::spawn(async move {
                let digest = format!("bomb-{number}");
                let compile = |lane: Lane| {
                    tried.send((number, lane)).unwrap();
                    std::future::pending::<Trial<()>>().boxed()
                };
                lanes.run(&digest, 0, compile).await
            })
        });
        let bombs: Vec<_> = bombs.collect();
        // They are before it.
        assert_eq!(trials.recv().await, Some((0, Lane::Quick)));
        let compile = |lane: Lane| futures::future::ready(Trial::Answered(lane)).boxed();
        let compiled = lanes.run("good", 0, compile);
        let compiled = tokio::time::timeout(DEADLINE, compiled).await.unwrap();
        assert_eq!(compiled, Ok(Lane::Quick));
        assert!(bombs.iter().all(|bomb| !bomb.is_finished()));
        for bomb in &bombs {
            bomb.abort();
        }
        drop(tried);
        let mut quick = Vec::new();
        while let Some((number, lane)) = trials.recv().await {
            match lane {
                Lane::Quick => quick.push(number),
                // One of them runs there.
                Lane::Slow => assert_eq!(number, 0),
            }
        }
        assert!(!quick.contains(&0), "it has one turn there");
    }

    #[tokio::test]
    async fn who_waits_for_the_same_module_hears_what_became_of_it() {
        let lanes = Lanes::of(HOUR, HOUR);
        let trials = Mutex::new(Vec::new());
        let compile = |lane: Lane| {
            trials.lock().push(lane);
            futures::future::ready(Trial::<()>::Broke(format!("in {}", lane.name()))).boxed()
        };
        let both =
            futures::future::join(lanes.run("one", 0, compile), lanes.run("one", 0, compile));
        let both = tokio::time::timeout(DEADLINE, both).await.unwrap();
        let refused = || Err("in slow".to_owned());
        assert_eq!(both, (refused(), refused()));
        assert_eq!(*trials.lock(), [Lane::Quick, Lane::Slow]);
    }
}
