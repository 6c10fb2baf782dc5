//! Protection of blobs from removal.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::aside::Aside;
use super::{ContentStore, State};
use crate::Digest;

/// Keeps blobs from being removed, see [`ContentStore::lease`].
#[derive(Debug)]
pub struct Lease {
    pub(super) store: Arc<ContentStore>,
    pub(super) digests: BTreeSet<Digest>,
}

impl Lease {
    /// Protects one more blob.
    pub fn add(&mut self, digest: &Digest) {
        if self.digests.insert(digest.clone()) {
            let mut state = self.store.state.lock();
            *state.leased.entry(digest.clone()).or_default() += 1;
        }
    }

    /// Ends it, and removes those of its blobs that no image and no other lease needs. Returns the
    /// bytes freed. Blocks on the disk.
    pub(crate) fn discard(mut self) -> io::Result<u64> {
        let store = Arc::clone(&self.store);
        let digests = std::mem::take(&mut self.digests);
        let aside = {
            let mut state = store.state.lock();
            state.release(&digests);
            let needed = state.needed();
            let unneeded = digests.iter().filter(|digest| !needed.contains(digest));
            Aside::of(&store, unneeded)
        };
        aside.remove()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.state.lock().release(&self.digests);
    }
}

impl State {
    fn release(&mut self, digests: &BTreeSet<Digest>) {
        for digest in digests {
            if let Some(count) = self.leased.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    self.leased.remove(digest);
                }
            }
        }
    }
}
