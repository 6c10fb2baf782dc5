//! Watch: the store's events, seen through a selection.

use std::collections::VecDeque;
use std::time::Duration;

use coracle_apimachinery::status::Status;
use coracle_store::{Event, ListOptions as StoreOptions, Read, Record, Revision, Watch};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::time::Instant;

use super::erased::Kind;
use super::list::Selection;
use super::strategy::Descriptor;
use super::{Registry, errors};
use crate::request::options::ListOptions;

/// Least time between two bookmarks; in Kubernetes it is about a minute as well.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object was created, or came to match the selectors.
    Added(Record),
    /// An object changed.
    Modified(Record),
    /// An object was removed, or no longer matches; its last matching state.
    Deleted(Record),
    /// The client has seen everything up to this revision.
    Bookmark {
        /// The revision.
        revision: Revision,
        /// Whether the initial state has been sent whole just now.
        initial_events_end: bool,
    },
    /// The watch ends for this reason.
    Error(Status),
}

/// A watch that has begun.
pub struct Watched {
    /// What it tells.
    pub changes: BoxStream<'static, Change>,
    /// How many of them, from the first, tell of the state with which it begins.
    pub initial: usize,
}

struct State {
    pending: VecDeque<Change>,
    watch: Watch,
    selection: Selection,
    descriptor: Descriptor,
    bookmarks: bool,
    last_bookmark: Instant,
    ended: bool,
}

impl Registry {
    /// Watches objects of a kind, in a namespace or (empty) in all.
    ///
    /// # Errors
    /// 400 for selectors that do not parse, 504 for a revision that is not reached yet. A
    /// revision that is gone is told in the stream, as Kubernetes does.
    pub async fn watch(
        &self,
        kind: &dyn Kind,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Watched, Status> {
        let selection = Selection::parse(kind, options)?;
        let descriptor = kind.descriptor();
        let prefix = selection.prefix(kind, namespace);
        let failed = |error| errors::from_store(descriptor, "", &error);

        let mut pending = VecDeque::new();
        let with_state = options
            .send_initial_events
            .unwrap_or(options.resource_version.unwrap_or(0) == 0);
        let from = if with_state {
            let read = options.resource_version.map_or(Read::Latest, Read::AtLeast);
            let all = StoreOptions {
                read,
                limit: 0,
                start_after: None,
            };
            let list = self.store.list(&prefix, all).await.map_err(failed)?;
            let matching = list
                .records
                .into_iter()
                .filter(|record| selection.matches(record));
            pending.extend(matching.map(Change::Added));
            if options.send_initial_events == Some(true) && options.bookmarks {
                pending.push_back(Change::Bookmark {
                    revision: list.revision,
                    initial_events_end: true,
                });
            }
            list.revision
        } else if let Some(revision) = options.resource_version.filter(|revision| *revision > 0) {
            revision
        } else {
            // "From now on": the newest revision, agreed with everybody.
            let none = StoreOptions {
                read: Read::Latest,
                limit: 1,
                start_after: None,
            };
            self.store
                .list(&prefix, none)
                .await
                .map_err(failed)?
                .revision
        };

        let watch = match self.store.watch(&prefix, from).await {
            Ok(watch) => watch,
            Err(error @ coracle_store::Error::Expired { .. }) => {
                return Ok(Watched {
                    changes: stream::iter([Change::Error(failed(error))]).boxed(),
                    initial: 0,
                });
            }
            Err(error) => return Err(failed(error)),
        };
        let initial = pending.len();
        let state = State {
            pending,
            watch,
            selection,
            descriptor: descriptor.clone(),
            bookmarks: options.bookmarks,
            last_bookmark: Instant::now(),
            ended: false,
        };
        let changes = stream::unfold(state, |mut state| async {
            let change = state.next().await?;
            Some((change, state))
        });
        Ok(Watched {
            changes: changes.boxed(),
            initial,
        })
    }
}

impl State {
    async fn next(&mut self) -> Option<Change> {
        if let Some(change) = self.pending.pop_front() {
            return Some(change);
        }
        // What was queued is of no use any more: do not keep its memory for hours.
        self.pending = VecDeque::new();
        while !self.ended {
            match self.watch.next().await {
                Some(Ok(event)) => {
                    if let Some(change) = self.see(event) {
                        return Some(change);
                    }
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Change::Error(errors::from_store(
                        &self.descriptor,
                        "",
                        &error,
                    )));
                }
                None => self.ended = true,
            }
        }
        None
    }

    /// What a client with this selection sees of an event.
    fn see(&mut self, event: Event) -> Option<Change> {
        match event {
            Event::Put { record, previous } => {
                let matched = previous
                    .as_ref()
                    .is_some_and(|previous| self.selection.matches(previous));
                match (self.selection.matches(&record), matched) {
                    (true, true) => Some(Change::Modified(record)),
                    (true, false) => Some(Change::Added(record)),
                    (false, true) => {
                        previous.map(|previous| Change::Deleted(previous.at(record.revision())))
                    }
                    (false, false) => None,
                }
            }
            Event::Delete { previous, revision } => self
                .selection
                .matches(&previous)
                .then(|| Change::Deleted(previous.at(revision))),
            Event::Progress(revision) => {
                let due = self.bookmarks && self.last_bookmark.elapsed() >= BOOKMARK_EVERY;
                if !due {
                    return None;
                }
                self.last_bookmark = Instant::now();
                Some(Change::Bookmark {
                    revision,
                    initial_events_end: false,
                })
            }
        }
    }
}
