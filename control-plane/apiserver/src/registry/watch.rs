//! Watch: the store's events, seen through a selection.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use coracle_apimachinery::status::Status;
use coracle_store::{Encodings, Event, ListOptions as StoreOptions, Read, Record, Revision, Watch};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::time::{Instant, Sleep, sleep_until};

use super::erased::Kind;
use super::list::Selection;
use super::strategy::Descriptor;
use super::{Registry, errors};
use crate::request::options::ListOptions;

/// How long after another a bookmark comes.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How long before a watch ends its last bookmark comes: from there its client goes on, however
/// long nothing of what it watches has changed.
const BEFORE_END: Duration = Duration::from_secs(2);

/// What became of an object, for who watches with selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It was created, or came to match.
    Added,
    /// It changed.
    Modified,
    /// It was removed, or no longer matches.
    Deleted,
}

impl Became {
    /// The type of the event.
    pub const fn event(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum Change {
    /// Something became of an object.
    Object {
        /// What.
        became: Became,
        /// The object; of one that is gone the last matching state. It is the one that the store
        /// held, which all watchers share.
        record: Record,
        /// The revision at which it is shown: that of the change, also of a removal.
        revision: Revision,
        /// What all who are told of the change share.
        encodings: Encodings,
    },
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
    /// Everything up to this revision has been told.
    told: Revision,
    /// Until a bookmark is due, where any is: one timer for all events that come before.
    bookmark: Option<Pin<Box<Sleep>>>,
    /// When the watch ends, if nothing ends it before.
    ends: Instant,
    ended: bool,
}

impl Registry {
    /// Watches objects of a kind, in a namespace or (empty) in all. Whoever asks ends it in time.
    ///
    /// # Errors
    /// 400 for selectors that do not parse, 504 for a revision that is not reached yet. A
    /// revision that is gone is told in the stream, as Kubernetes does.
    pub async fn watch(
        &self,
        kind: &dyn Kind,
        namespace: &str,
        options: &ListOptions,
        ends: Instant,
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
            pending.extend(matching.map(|record| Change::Object {
                became: Became::Added,
                revision: record.revision(),
                record,
                encodings: Encodings::default(),
            }));
            // A watch without a version asks for the state as well, if in an older way.
            if options.bookmarks {
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
        let mut state = State {
            pending,
            watch,
            selection,
            descriptor: descriptor.clone(),
            told: from,
            bookmark: None,
            ends,
            ended: false,
        };
        if options.bookmarks {
            state.await_bookmark();
        }
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
            let event = match &mut self.bookmark {
                None => self.watch.next().await,
                Some(due) => tokio::select! {
                    biased;
                    event = self.watch.next() => event,
                    () = due => return Some(self.bookmark()),
                },
            };
            match event {
                Some(Ok(event)) => {
                    let (revision, change) = seen(&self.selection, event);
                    self.told = revision;
                    if change.is_some() {
                        return change;
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

    fn await_bookmark(&mut self) {
        let due = next_bookmark(Instant::now(), self.ends);
        self.bookmark = due.map(|due| Box::pin(sleep_until(due)));
    }

    fn bookmark(&mut self) -> Change {
        self.await_bookmark();
        Change::Bookmark {
            revision: self.told,
            initial_events_end: false,
        }
    }
}

/// The revision of an event, and what a client with this selection sees of it.
fn seen(selection: &Selection, event: Event) -> (Revision, Option<Change>) {
    let (revision, now, before, encodings) = match event {
        Event::Put {
            record,
            previous,
            encodings,
        } => (record.revision(), Some(record), previous, encodings),
        Event::Delete {
            previous,
            revision,
            encodings,
        } => (revision, None, Some(previous), encodings),
        Event::Progress(revision) => return (revision, None),
    };
    let matching = |record: Option<Record>| record.filter(|record| selection.matches(record));
    let (became, record) = match (matching(now), matching(before)) {
        (Some(record), Some(_)) => (Became::Modified, record),
        (Some(record), None) => (Became::Added, record),
        (None, Some(record)) => (Became::Deleted, record),
        (None, None) => return (revision, None),
    };
    let change = Change::Object {
        became,
        record,
        revision,
        encodings,
    };
    (revision, Some(change))
}

/// When the next bookmark is due of a watch that ends then; none is once the last has been sent.
fn next_bookmark(now: Instant, ends: Instant) -> Option<Instant> {
    let last = ends.checked_sub(BEFORE_END)?;
    let next = last.min(now + BOOKMARK_EVERY);
    (next > now).then_some(next)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use coracle_store::{Attributes, MemoryStore, Precondition, Store, Value};

    use super::*;
    use crate::registry::lookup::Kinds;
    use crate::registry::{key, kinds};

    #[tokio::test]
    async fn watchers_share_the_object_that_goes() {
        let kinds = Kinds::new(kinds::all());
        let kind = &**kinds.resource("", "v1", "configmaps").unwrap();
        let key = key(kind.descriptor(), "default", "a");
        let value = |app: &str| {
            let attributes = Attributes {
                labels: [("app".to_owned(), app.to_owned())].into(),
                ..Attributes::default()
            };
            Value::new(b"{}", &attributes)
        };
        let any = Precondition::default;
        let store = MemoryStore::new();
        let first = store.create(&key, value("x")).await.unwrap();
        let second = store
            .compare_and_swap(&key, any(), value("y"))
            .await
            .unwrap();
        let end = store.delete(&key, any()).await.unwrap().revision();
        for (selector, last, at) in [
            ("app=x", &first, second.revision()),
            ("app=y", &second, end),
            ("", &second, end),
        ] {
            let options = ListOptions {
                label_selector: selector.to_owned(),
                ..ListOptions::default()
            };
            let selection = Selection::parse(kind, &options).unwrap();
            for watcher in 0..2 {
                let watch = store.watch(&key, first.revision()).await.unwrap();
                let changes = watch
                    .take(2)
                    .map(|event| seen(&selection, event.unwrap()).1);
                let changes: Vec<_> = changes.collect().await;
                let gone = changes.into_iter().find_map(|change| match change {
                    Some(Change::Object {
                        became: Became::Deleted,
                        record,
                        revision,
                        ..
                    }) => Some((record, revision)),
                    _ => None,
                });
                let (record, revision) = gone.unwrap();
                assert_eq!(revision, at, "{selector:?}");
                // The very bytes that were written, and not others that are the same.
                let shared = std::ptr::eq(record.value().json(), last.value().json());
                assert!(shared, "{selector:?}: watcher {watcher} has a copy");
            }
        }
    }

    #[test]
    fn bookmarks_come_every_minute_and_before_the_end() {
        let now = Instant::now();
        let after = Duration::from_secs;
        for (lasts, want) in [
            (after(3600), Some(after(60))),
            (after(61), Some(after(59))),
            (after(10), Some(after(8))),
            (after(2), None),
            (after(1), None),
        ] {
            let next = next_bookmark(now, now + lasts);
            assert_eq!(next.map(|next| next - now), want, "{lasts:?}");
        }
        let first = next_bookmark(now, now + after(61));
        let second = first.and_then(|first| next_bookmark(first, now + after(61)));
        assert_eq!(second, None);
    }
}
