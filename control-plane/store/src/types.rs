//! The trait and its vocabulary.

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

pub use crate::encodings::Encodings;
pub use crate::record::Record;
pub use crate::value::{Attributes, Pairs, Value, ValueRef};

/// A point in the history of the key space. The first mutation has revision 1; an empty store
/// is at 0. A `resourceVersion` is this number in decimal.
pub type Revision = u64;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Linearizable: everything acknowledged before the call is seen.
    Latest,
    /// Whatever is at hand, but at least as new as this revision.
    AtLeast(Revision),
    /// The state exactly at this revision; [`Error::Expired`] where it is no longer retained.
    Exact(Revision),
}

/// What must hold for a mutation to happen. An absent part holds always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precondition {
    /// UID that the stored object must have.
    pub uid: Option<String>,
    /// Revision that the stored object must have.
    pub revision: Option<Revision>,
}

/// How to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOptions {
    /// Freshness.
    pub read: Read,
    /// At most so many records; 0 is no limit.
    pub limit: usize,
    /// Only keys strictly after this one: the continuation of an earlier list.
    pub start_after: Option<String>,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Records in the order of their keys.
    pub records: Vec<Record>,
    /// The revision of the state that was listed.
    pub revision: Revision,
    /// Whether there are more, and how many: none where the page is the last.
    pub remaining: Option<usize>,
}

impl List {
    /// A page of so many records that are left from where it begins.
    pub(crate) fn of(records: Vec<Record>, revision: Revision, count: usize) -> Self {
        let remaining = count.checked_sub(records.len()).filter(|left| *left > 0);
        Self {
            records,
            revision,
            remaining,
        }
    }
}

/// A change in the key space.
#[derive(Clone, Debug)]
pub enum Event {
    /// An object was created (`previous` is none) or replaced.
    Put {
        /// The object as written.
        record: Record,
        /// What it replaced; a watch with a selector needs it to tell that an object left.
        previous: Option<Record>,
        /// What those who are told of it have made of it.
        encodings: Encodings,
    },
    /// An object was removed.
    Delete {
        /// Its last state.
        previous: Record,
        /// The revision of the removal.
        revision: Revision,
        /// What those who are told of it have made of it.
        encodings: Encodings,
    },
    /// Nothing up to this revision is outstanding: the source of bookmarks. Sent when a watch
    /// has delivered all that it began with, and then at most once per second of idleness if
    /// the revision has advanced.
    Progress(Revision),
}

/// A subscription. Events come in the order of their revisions. It ends with
/// [`Error::Expired`] when the subscriber is so slow that its bounded queue overflows: it must
/// list again.
pub type Watch = BoxStream<'static, Result<Event>>;

/// Why the store did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Create found the key taken.
    #[error("key {key} exists")]
    Exists {
        /// The key.
        key: String,
        /// What holds it.
        current: Box<Record>,
    },
    /// There is nothing at the key.
    #[error("key {0} not found")]
    NotFound(String),
    /// A precondition does not hold.
    #[error("precondition on {key} failed")]
    Conflict {
        /// The key.
        key: String,
        /// What is there.
        current: Box<Record>,
    },
    /// The revision is no longer retained; `oldest` is.
    #[error("revision {requested} is compacted, the oldest is {oldest}")]
    Expired {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can be watched or listed exactly.
        oldest: Revision,
    },
    /// The revision lies in the future.
    #[error("revision {requested} is ahead of {current}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// What there is.
        current: Revision,
    },
    /// The disk is full: writes are refused until space is made, reads and deletes go on.
    #[error("no space left for writes: {0}")]
    Full(String),
    /// The value is larger than the store takes.
    #[error("value of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Bytes offered.
        size: usize,
        /// Bytes accepted.
        limit: usize,
    },
    /// No leader, or no quorum; the same request may succeed later. Whether this one was applied
    /// is not known.
    #[error("store is unavailable: {0}")]
    Unavailable(String),
}

/// What a store operation returns.
pub type Result<T> = std::result::Result<T, Error>;

/// A revisioned key space. Every implementation passes [`crate::suite`].
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Creates an object; [`Error::Exists`] if the key is taken.
    async fn create(&self, key: &str, value: Value) -> Result<Record>;

    /// Reads one object.
    async fn get(&self, key: &str, read: Read) -> Result<Option<Record>>;

    /// Lists the objects whose keys begin with `prefix`.
    async fn list(&self, prefix: &str, options: ListOptions) -> Result<List>;

    /// Replaces an object if the precondition holds. Writing what is there already still
    /// advances the revision: whether to write is the caller's decision.
    async fn compare_and_swap(
        &self,
        key: &str,
        precondition: Precondition,
        value: Value,
    ) -> Result<Record>;

    /// Removes an object if the precondition holds. Returns its last state, with `revision` set
    /// to that of the removal.
    async fn delete(&self, key: &str, precondition: Precondition) -> Result<Record>;

    /// Changes to keys that begin with `prefix`, from just after revision `from`. With a `from`
    /// that is not retained: [`Error::Expired`].
    async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch>;

    /// The revision of the newest state at hand, without asking anyone.
    fn revision(&self) -> Revision;
}
