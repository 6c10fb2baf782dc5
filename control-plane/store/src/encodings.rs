//! What is made of a change for those who watch it, once for all of them.
//!
//! A thousand who watch are mostly sent the same bytes of a change. What they are the store does not
//! know: it has a place for them beside the change, in which whoever comes first puts them, under a
//! name that those who watch agree on. The place is shared by the queues in which the change waits,
//! and by nothing else: it goes when the last of them has told the change, and history has none.
//!
//! Who does not read keeps changes in its queue for as long as that holds them. What lies beside all
//! of them is bounded together: beyond that the oldest is dropped, and is made again by who still
//! comes for it.
//!
//! Deliberately absent: what a watch begins with. It is told to one alone.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::state::Change;
use crate::types::{Event, Revision};

/// Bytes that lie beside changes, at most. Who keeps up leaves next to nothing there.
const MOST: usize = 16 << 20;

/// What it takes to remember that something lies there, roughly.
const OVERHEAD: usize = 160;

/// What has been made of a change, shared by all who are told of it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Encodings(Option<Arc<Told>>);

/// A change on its way to those who watch.
pub(crate) struct Told {
    change: Arc<Change>,
    made: Mutex<Vec<Made>>,
    recent: Arc<Recent>,
}

struct Made {
    event: &'static str,
    form: Arc<str>,
    bytes: Bytes,
}

impl Encodings {
    /// The bytes of an event in a form: those that somebody made before, or what is made now, which
    /// is kept for the others who are yet to be told. Who comes meanwhile waits, and does not make
    /// it twice. `event` is what the change is to who asks; `form` names all else that goes into the
    /// bytes beside the change.
    ///
    /// # Errors
    /// Those of `make`, of which nothing is kept.
    pub fn get_or_make<E>(
        &self,
        event: &'static str,
        form: &Arc<str>,
        make: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let Some(told) = &self.0 else {
            return make();
        };
        let mut made = told.made.lock();
        let mut all = made.iter();
        if let Some(there) = all.find(|made| made.event == event && made.form == *form) {
            return Ok(there.bytes.clone());
        }
        let bytes = make()?;
        // The last who is told has nobody to keep it for, and so has the only one.
        if Arc::strong_count(told) > 1 {
            made.push(Made {
                event,
                form: form.clone(),
                bytes: bytes.clone(),
            });
            drop(made);
            told.recent.add(told, bytes.len());
        }
        Ok(bytes)
    }
}

impl fmt::Debug for Encodings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Encodings")
    }
}

impl Told {
    pub(crate) fn new(change: Arc<Change>, recent: Arc<Recent>) -> Arc<Self> {
        Arc::new(Self {
            change,
            made: Mutex::default(),
            recent,
        })
    }

    pub(crate) fn revision(&self) -> Revision {
        self.change.revision
    }

    /// The change as a watch tells it.
    pub(crate) fn event(self: Arc<Self>) -> Event {
        let change = self.change.clone();
        change.event(Encodings(Some(self)))
    }
}

/// What lies beside the changes of one store, in the order in which it was made.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    /// What goes before it is dropped leaves its entry behind until that is the oldest.
    entries: VecDeque<(Weak<Told>, usize)>,
    size: usize,
}

impl Recent {
    /// Notes what was put beside a change; drops the oldest where that is too much together.
    fn add(&self, told: &Arc<Told>, length: usize) {
        let mut dropped = Vec::new();
        let mut ring = self.0.lock();
        let size = length + OVERHEAD;
        ring.entries.push_back((Arc::downgrade(told), size));
        ring.size += size;
        while let Some((oldest, size)) = ring.entries.front() {
            let waits = oldest.strong_count() > 0;
            if waits && ring.size <= MOST {
                break;
            }
            let left = ring.size.saturating_sub(*size);
            ring.size = left;
            let oldest = ring.entries.pop_front();
            dropped.extend(oldest.filter(|_| waits));
        }
        // Who makes something holds the other lock, perhaps for long, and comes here after that.
        drop(ring);
        for told in dropped.iter().filter_map(|(told, _)| told.upgrade()) {
            drop(std::mem::take(&mut *told.made.lock()));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;

    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::state::Effect;
    use crate::types::{Attributes, Precondition, Record, Store, Value, Watch};
    use crate::{Error, MemoryStore};

    fn told(recent: &Arc<Recent>) -> Arc<Told> {
        let value = Value::new(b"{}", &Attributes::default());
        let effect = Effect::Delete {
            previous: Record::new("a", 1, 1, value.get()),
        };
        let change = Change {
            revision: 2,
            effect,
        };
        Told::new(Arc::new(change), recent.clone())
    }

    fn kept(told: &Told) -> usize {
        told.made.lock().iter().map(|made| made.bytes.len()).sum()
    }

    fn made(encodings: &Encodings, form: &str, bytes: &[u8]) -> Bytes {
        let make = || Ok::<_, Infallible>(Bytes::copy_from_slice(bytes));
        encodings.get_or_make("ADDED", &form.into(), make).unwrap()
    }

    /// What the next change has beside it.
    fn next(watch: &mut Watch) -> Encodings {
        loop {
            match watch.next().now_or_never().unwrap().unwrap().unwrap() {
                Event::Put { encodings, .. } | Event::Delete { encodings, .. } => return encodings,
                Event::Progress(_) => {}
            }
        }
    }

    #[tokio::test]
    async fn those_who_are_told_share_what_one_makes() {
        let store = MemoryStore::new();
        let value = || Value::new(b"{}", &Attributes::default());
        let mut early = store.watch("x/", 0).await.unwrap();
        let mut same = store.watch("x/", 0).await.unwrap();
        let mut one = store.watch("x/a", 0).await.unwrap();
        store.create("x/a", value()).await.unwrap();
        store.delete("x/a", Precondition::default()).await.unwrap();
        let mut late = store.watch("x/", 0).await.unwrap();
        for change in ["put", "delete"] {
            let first = made(&next(&mut early), "json", change.as_bytes());
            let last = next(&mut same);
            let other = made(&last, "protobuf", change.as_bytes());
            let make = || Ok::<_, Infallible>(Bytes::from_static(b"other event"));
            let event = last.get_or_make("MODIFIED", &"json".into(), make);
            assert_eq!(event.unwrap(), &b"other event"[..]);
            for shared in [
                made(&last, "json", b"again"),
                made(&next(&mut one), "json", b"again"),
            ] {
                assert_eq!((shared.as_ptr(), &*shared), (first.as_ptr(), &*first));
            }
            assert_ne!(first.as_ptr(), other.as_ptr());
            // What a watch begins with is its own.
            assert_eq!(made(&next(&mut late), "json", b"own"), &b"own"[..]);
        }
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let recent = Arc::new(Recent::default());
        let told = told(&recent);
        let two = [Encodings(Some(told.clone())), Encodings(Some(told.clone()))];
        let failed = || Err(Error::NotFound(String::new()));
        let result = two[0].get_or_make("ADDED", &"json".into(), failed);
        assert!(result.is_err());
        assert_eq!(kept(&told), 0);
        made(&two[0], "json", b"made");
        assert_eq!(kept(&told), 4);
        let last = Encodings(Some(told));
        drop(two);
        made(&last, "protobuf", b"made");
        assert!(last.0.as_ref().is_some_and(|told| kept(told) == 4));
        let gone = last.0.as_ref().map(Arc::downgrade).unwrap();
        drop(last);
        assert_eq!(gone.strong_count(), 0);
        // What is left of it goes with the next.
        let next = self::told(&recent);
        made(&Encodings(Some(next.clone())), "json", b"made");
        assert_eq!(recent.0.lock().entries.len(), 1);
    }

    #[test]
    fn who_does_not_read_keeps_no_more_than_the_bound() {
        const LARGE: usize = 1 << 20;
        let recent = Arc::new(Recent::default());
        let all: Vec<_> = (0..40).map(|_| told(&recent)).collect();
        let large = vec![0; LARGE];
        for told in &all {
            made(&Encodings(Some(told.clone())), "json", &large);
        }
        let sizes: Vec<usize> = all.iter().map(|told| kept(told)).collect();
        let most = (MOST - 1) / (LARGE + OVERHEAD);
        let mut want = vec![0; all.len() - most];
        want.resize(all.len(), LARGE);
        assert_eq!(sizes, want);
        // Who comes for the oldest makes it again, for those who come after.
        let oldest = Encodings(Some(all[0].clone()));
        let again = made(&oldest, "json", b"again");
        assert_eq!(made(&oldest, "json", b"").as_ptr(), again.as_ptr());
    }
}
