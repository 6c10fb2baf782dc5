//! The life of a Pod on its node.
//!
//! ```text
//!              Delete, Remove, Fail, Finish, Shutdown
//!   Syncing ───────────────────────────────────────────▶ Terminating ──Stopped──▶ Terminated
//!                                                          │      ▲
//!                                                          └──────┘
//!                                              the same inputs: grace only shrinks
//! ```
//!
//! - `Syncing`: containers are started and restarted as the spec says.
//! - `Terminating`: nothing is started any more; what runs is ended within the grace period.
//! - `Terminated`: nothing runs. What is left is to report, to clean up and, if the Pod was
//!   deleted, to remove its object.
//!
//! [`transition`] is the only place that changes the state. Terminating never goes back: the
//! cause that came first stays, an update of the spec changes nothing any more.

use std::time::Duration;

use crate::status::Verdict;

/// Why a Pod ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its object was marked for deletion.
    Deleted,
    /// Its object is gone.
    Removed,
    /// The node has decided that it fails.
    Failed(Verdict),
    /// All its containers have ended for good, but for its sidecars and those that debug it.
    Finished,
    /// The node is being shut down. The object stays as it is.
    Shutdown,
}

/// Where a Pod is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Syncing,
    Terminating { cause: Cause, grace: Duration },
    Terminated { cause: Cause },
}

/// What may happen to a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// It is to end within that time.
    End { cause: Cause, grace: Duration },
    /// Nothing of it runs any more.
    Stopped,
}

/// The state that follows.
pub(crate) fn transition(state: State, input: Input) -> State {
    match (state, input) {
        (State::Syncing, Input::End { cause, grace }) => State::Terminating { cause, grace },
        // Containers end by themselves too; that alone ends no Pod that may restart them.
        (State::Syncing, Input::Stopped) => State::Syncing,
        (State::Terminating { cause, grace }, Input::End { grace: other, .. }) => {
            let grace = grace.min(other);
            State::Terminating { cause, grace }
        }
        (State::Terminating { cause, .. }, Input::Stopped) => State::Terminated { cause },
        (State::Terminated { cause }, _) => State::Terminated { cause },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rank(state: &State) -> u8 {
        match state {
            State::Syncing => 0,
            State::Terminating { .. } => 1,
            State::Terminated { .. } => 2,
        }
    }

    fn input() -> impl Strategy<Value = Input> {
        let verdict = Verdict {
            reason: "DeadlineExceeded".to_owned(),
            message: String::new(),
            disrupted: false,
        };
        let causes = prop_oneof![
            Just(Cause::Deleted),
            Just(Cause::Removed),
            Just(Cause::Failed(verdict)),
            Just(Cause::Finished),
            Just(Cause::Shutdown),
        ];
        let ends = (causes, 0..100_u64).prop_map(|(cause, seconds)| Input::End {
            cause,
            grace: Duration::from_secs(seconds),
        });
        prop_oneof![3 => ends, 1 => Just(Input::Stopped)]
    }

    proptest! {
        #[test]
        fn a_pod_only_goes_forward(inputs in proptest::collection::vec(input(), 0..20)) {
            let mut state = State::Syncing;
            for input in inputs {
                let next = transition(state.clone(), input.clone());
                prop_assert!(rank(&next) >= rank(&state), "{state:?} {input:?} {next:?}");
                prop_assert!(rank(&next) - rank(&state) <= 1, "no state is skipped");
                match (&state, &next) {
                    (
                        State::Terminating { cause, grace },
                        State::Terminating { cause: later, grace: shorter },
                    ) => {
                        prop_assert_eq!(cause, later);
                        prop_assert!(shorter <= grace);
                    }
                    (State::Terminating { cause, .. }, State::Terminated { cause: later }) => {
                        prop_assert_eq!(cause, later);
                        prop_assert_eq!(input, Input::Stopped);
                    }
                    (State::Terminated { .. }, _) => prop_assert_eq!(&state, &next),
                    _ => {}
                }
                state = next;
            }
        }
    }
}
