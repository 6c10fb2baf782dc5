//! Which images are in use beyond those of containers that the runtimes have: of containers that
//! are being made. What is held is not removed, and what is being removed is not held.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

#[derive(Debug, Default)]
struct State {
    /// How often each image is held, by digest.
    held: HashMap<String, usize>,
    removing: HashSet<String>,
}

/// The images that somebody holds; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uses(Arc<Mutex<State>>);

impl Uses {
    /// Holds an image; none while it is being removed.
    pub(crate) fn hold(&self, digest: &str) -> Option<Held> {
        let mut state = self.0.lock();
        if state.removing.contains(digest) {
            return None;
        }
        *state.held.entry(digest.to_owned()).or_default() += 1;
        Some(Held {
            uses: self.clone(),
            digest: digest.to_owned(),
        })
    }

    /// Keeps others from holding an image while it is removed; none if somebody holds it.
    pub(super) fn remove(&self, digest: &str) -> Option<Removing> {
        let mut state = self.0.lock();
        if state.held.contains_key(digest) || !state.removing.insert(digest.to_owned()) {
            return None;
        }
        Some(Removing {
            uses: self.clone(),
            digest: digest.to_owned(),
        })
    }

    /// Digests of what is held now.
    pub(super) fn held(&self) -> Vec<String> {
        self.0.lock().held.keys().cloned().collect()
    }
}

/// Keeps an image on the node.
#[derive(Debug)]
pub(crate) struct Held {
    uses: Uses,
    digest: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.uses.0.lock();
        if let Some(count) = state.held.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(&self.digest);
            }
        }
    }
}

/// An image goes.
pub(super) struct Removing {
    uses: Uses,
    digest: String,
}

impl Drop for Removing {
    fn drop(&mut self) {
        self.uses.0.lock().removing.remove(&self.digest);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_held_or_removed() {
        let uses = Uses::default();
        let (one, two) = (uses.hold("a").unwrap(), uses.hold("a").unwrap());
        drop(one);
        assert!(uses.remove("a").is_none());
        assert_eq!(uses.held(), ["a"]);
        drop(two);
        let removing = uses.remove("a").unwrap();
        assert!(uses.hold("a").is_none() && uses.hold("b").is_some());
        drop(removing);
        assert!(uses.hold("a").is_some());
    }
}
