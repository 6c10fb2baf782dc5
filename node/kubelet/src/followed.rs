//! Follows the ConfigMaps and Secrets that volumes are made of, so that a change of them is in the
//! volumes at once.
//!
//! One watch for each object, by its name, which all Pods of the node share that have it in a
//! volume; it ends with the last of them. A watch knows which version each of its Pods has, and
//! wakes those for which there is a newer one:
//!
//! ```text
//! follow ──► fetch ──► has(version) ──► sleep ─┐
//!               ▲                              │ the newest version is another one
//!               └──────────────────────────────┘
//! ```
//!
//! A Pod follows before it fetches, so that no change is lost between the two. Should a watch be
//! silent, or one too many for a node, volumes are brought up to date at times anyhow.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::objects::ROOT_CERTIFICATES;
use crate::pod;
use crate::pod::env::{References, Sources};
use crate::worker::inbox::Handle;

/// Watches at once.
const MAX_WATCHES: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    ConfigMap,
    Secret,
}

/// Kind and name of an object.
type Name = (Kind, String);

/// What tells a state of an object from any other; none is that there is no object.
type Version = Option<(String, String)>;

fn version(of: &ObjectMeta) -> Version {
    Some((of.uid.clone()?, of.resource_version.clone()?))
}

/// The watches of a node.
pub(crate) struct Followed {
    client: kube::Client,
    watches: Mutex<HashMap<(String, Name), Weak<Watch>>>,
}

struct Watch {
    state: Arc<Mutex<State>>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct State {
    /// None while nothing is known.
    newest: Option<Version>,
    /// By UID.
    readers: HashMap<String, Reader>,
}

/// A Pod that has the object in a volume.
struct Reader {
    handle: Arc<Handle>,
    /// None while it is being fetched for the first time.
    has: Option<Version>,
}

impl State {
    fn learn(&mut self, version: Version) {
        for reader in self.readers.values() {
            if reader.has.as_ref().is_some_and(|has| *has != version) {
                reader.handle.hint();
            }
        }
        self.newest = Some(version);
    }

    fn is_stale(&self, uid: &str) -> bool {
        let has = self.readers.get(uid).map(|reader| &reader.has);
        self.newest.is_some() && has.is_some_and(|has| has.is_some() && *has != self.newest)
    }
}

/// What one Pod follows.
#[derive(Default)]
pub(crate) struct Following {
    uid: String,
    of: BTreeMap<Name, Arc<Watch>>,
}

impl Followed {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self {
            client,
            watches: Mutex::default(),
        }
    }

    /// Has a Pod, whose worker has that handle, follow these objects and no others any more.
    pub(crate) fn follow(
        &self,
        pod: &Pod,
        handle: &Arc<Handle>,
        wanted: &References,
        following: &mut Following,
    ) {
        pod::uid(pod).clone_into(&mut following.uid);
        // The one that nearly all Pods have is read once for all of a namespace.
        let maps = wanted
            .config_maps
            .iter()
            .filter(|name| *name != ROOT_CERTIFICATES);
        let maps = maps.map(|name| (Kind::ConfigMap, name.clone()));
        let secrets = wanted.secrets.iter();
        let secrets = secrets.map(|name| (Kind::Secret, name.clone()));
        let wanted: Vec<Name> = maps.chain(secrets).collect();
        following.keep(|name| wanted.contains(name));
        for name in wanted {
            if following.of.contains_key(&name) {
                continue;
            }
            let Some(watch) = self.watch(pod::namespace(pod), &name) else {
                continue;
            };
            let reader = Reader {
                handle: handle.clone(),
                has: None,
            };
            let mut state = watch.state.lock();
            state.readers.insert(following.uid.clone(), reader);
            drop(state);
            following.of.insert(name, watch);
        }
    }

    /// The watch of an object; none where there are too many.
    fn watch(&self, namespace: &str, name: &Name) -> Option<Arc<Watch>> {
        let mut watches = self.watches.lock();
        let key = (namespace.to_owned(), name.clone());
        if let Some(watch) = watches.get(&key).and_then(Weak::upgrade) {
            return Some(watch);
        }
        watches.retain(|_, watch| watch.strong_count() > 0);
        if watches.len() >= MAX_WATCHES {
            tracing::debug!(namespace, ?name, "not followed: there are too many watches");
            return None;
        }
        let state = Arc::<Mutex<State>>::default();
        let (client, of) = (self.client.clone(), state.clone());
        let config = watcher::Config::default().fields(&format!("metadata.name={}", name.1));
        // Of a Secret nothing else is to be seen by whoever only waits for it.
        let task = match name.0 {
            Kind::ConfigMap => {
                let api = Api::<PartialObjectMeta<ConfigMap>>::namespaced(client, namespace);
                tokio::spawn(run(watcher::watcher(api, config), of))
            }
            Kind::Secret => {
                let api = Api::<PartialObjectMeta<Secret>>::namespaced(client, namespace);
                tokio::spawn(run(watcher::watcher(api, config), of))
            }
        };
        let watch = Arc::new(Watch {
            state,
            _task: AbortOnDropHandle::new(task),
        });
        watches.insert(key, Arc::downgrade(&watch));
        Some(watch)
    }
}

impl Following {
    /// Notes what the Pod's volumes are made of now.
    pub(crate) fn has(&self, sources: &Sources) {
        for ((kind, name), watch) in &self.of {
            let has = match kind {
                Kind::ConfigMap => sources
                    .config_map(name)
                    .and_then(|map| version(&map.metadata)),
                Kind::Secret => sources
                    .secret(name)
                    .and_then(|secret| version(&secret.metadata)),
            };
            if let Some(reader) = watch.state.lock().readers.get_mut(&self.uid) {
                reader.has = Some(has);
            }
        }
    }

    /// Whether what the volumes are made of is not what is known to be the newest.
    pub(crate) fn is_stale(&self) -> bool {
        let mut watches = self.of.values();
        watches.any(|watch| watch.state.lock().is_stale(&self.uid))
    }

    fn keep(&mut self, wanted: impl Fn(&Name) -> bool) {
        let uid = &self.uid;
        self.of.retain(|name, watch| {
            let keep = wanted(name);
            if !keep {
                watch.state.lock().readers.remove(uid);
            }
            keep
        });
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.keep(|_| false);
    }
}

/// Tells `state` of every version of an object.
async fn run<K>(
    events: impl Stream<Item = watcher::Result<Event<PartialObjectMeta<K>>>>,
    state: Arc<Mutex<State>>,
) {
    let mut events = std::pin::pin!(events.default_backoff());
    let mut listed = None;
    while let Some(event) = events.next().await {
        match event {
            Err(error) => tracing::debug!(%error, "the watch of an object broke; it begins anew"),
            Ok(Event::Init) => listed = None,
            Ok(Event::InitApply(object)) => listed = version(&object.metadata),
            Ok(Event::InitDone) => state.lock().learn(listed.take()),
            Ok(Event::Apply(object)) => state.lock().learn(version(&object.metadata)),
            Ok(Event::Delete(_)) => state.lock().learn(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_another_version_is_woken() {
        let version = |number: u32| Some(("uid".to_owned(), number.to_string()));
        // What the Pod has, what is learnt, and whether it is woken and has something old.
        for (has, learnt, woken) in [
            (None, version(1), false),
            (Some(version(1)), version(1), false),
            (Some(version(1)), version(2), true),
            (Some(version(1)), None, true),
            (Some(None), version(1), true),
            (Some(None), None, false),
        ] {
            let (handle, inbox) = Handle::new(Arc::default());
            let handle = Arc::new(handle);
            let mut state = State::default();
            let reader = Reader {
                handle,
                has: has.clone(),
            };
            state.readers.insert("u".to_owned(), reader);
            assert!(!state.is_stale("u"), "nothing is known");
            state.learn(learnt.clone());
            let was_woken = inbox.has_changed().unwrap_or_default();
            assert_eq!(
                (was_woken, state.is_stale("u")),
                (woken, woken),
                "{has:?} {learnt:?}"
            );
            assert!(!state.is_stale("other"));
        }
    }
}
