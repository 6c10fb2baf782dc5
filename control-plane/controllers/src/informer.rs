//! Shared informers: one reflector per kind and process.
//!
//! An [`Informer`] owns the watch of one kind and keeps its objects in a kube-rs [`Store`].
//! Whoever wants to know of changes subscribes to a bounded channel. What travels through it
//! is a hint, never the truth: an object whose key changed, as it is or as it last was; the
//! store says what is true now. When labels or owners of an object change, its earlier form is
//! sent first, so that a subscriber can tell whom the change concerns on either side.
//! A subscriber that falls behind is told so by the channel and looks at the whole store.
//!
//! The types handed out are those of kube-rs and tokio alone, so that the scheduler and the
//! kubelet can take them without knowing this crate.
//!
//! Deliberately absent: no controller opens a watch of its own.

mod kinds;

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::runtime::reflector::{ObjectRef, Store, store::Writer};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use kinds::Informers;

/// Changes that a slow subscriber may be behind before it is told to look at the whole store.
const CHANGES: usize = 2048;
/// The same for kinds of which most clusters have few: the channel's room is taken in advance.
const FEW_CHANGES: usize = 128;

/// The cache of one kind, fed by one watch.
pub struct Informer<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    store: Store<K>,
    changes: broadcast::Sender<Arc<K>>,
    revision: Arc<AtomicU64>,
    /// Whether the first list is in the cache. Not the store's own `wait_until_ready`: of several
    /// that wait there at once only the last is woken (kube-runtime 5.0, `DelayedInit`).
    ready: watch::Sender<bool>,
}

impl<K> Clone for Informer<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            changes: self.changes.clone(),
            revision: self.revision.clone(),
            ready: self.ready.clone(),
        }
    }
}

impl<K> Informer<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync,
{
    /// Starts the one watch of `api`; it ends when `cancel` does, and `tasks` owns it.
    pub fn start(
        api: Api<K>,
        kind: K::DynamicType,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        Self::with_room(
            CHANGES,
            watcher::Config::default(),
            api,
            kind,
            tasks,
            cancel,
        )
    }

    /// The same for a part of the kind's objects.
    pub(crate) fn start_with(
        part: watcher::Config,
        api: Api<K>,
        kind: K::DynamicType,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        Self::with_room(CHANGES, part, api, kind, tasks, cancel)
    }

    fn with_room(
        changes: usize,
        part: watcher::Config,
        api: Api<K>,
        kind: K::DynamicType,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        let writer = Writer::new(kind.clone());
        let informer = Self {
            store: writer.as_reader(),
            changes: broadcast::Sender::new(changes),
            revision: Arc::default(),
            ready: watch::Sender::new(false),
        };
        let feeder = Feeder {
            writer,
            informer: informer.clone(),
            kind,
            before: HashMap::new(),
        };
        tasks.spawn(feeder.run(api, part, cancel.clone()));
        informer
    }

    /// Waits for the first list. Should the watch end before, so do all its users.
    pub(crate) async fn wait_until_ready(&self) {
        let mut ready = self.ready();
        if ready.wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the first list is in the cache.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// The cache.
    pub fn store(&self) -> &Store<K> {
        &self.store
    }

    /// Objects that change from now on; see the module's documentation for what they mean.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<K>> {
        self.changes.subscribe()
    }

    /// The greatest resourceVersion that the cache has seen. A writer that remembers the version
    /// of what it wrote knows from this whether the cache shows it.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }
}

/// Watches one resource and tells `see` every event, until `cancel`. For resources that no
/// informer of this process holds.
pub(crate) async fn watch_events<K>(
    api: Api<K>,
    see: impl FnMut(watcher::Event<K>) + Send,
    cancel: CancellationToken,
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let resource = api.resource_url().to_owned();
    let events = watcher(api, watcher::Config::default());
    follow(events, &resource, see, cancel).await;
}

/// Hands over what a watch of a resource tells, until `cancel`; one that fails begins again.
async fn follow<K: Send>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send,
    resource: &str,
    mut see: impl FnMut(watcher::Event<K>) + Send,
    cancel: CancellationToken,
) {
    let mut events = std::pin::pin!(events);
    let mut retry = Retry::default();
    loop {
        let told = tokio::select! {
            () = cancel.cancelled() => return,
            told = events.next() => told,
        };
        let Some(told) = told else { return };
        let wait = retry.after(&told);
        match told {
            Ok(event) => see(event),
            Err(error) => tracing::warn!(resource, %error, "watch failed, will retry"),
        }
        if let Some(wait) = wait {
            let waited = cancel.run_until_cancelled(tokio::time::sleep(wait)).await;
            if waited.is_none() {
                return;
            }
        }
    }
}

/// The numeric resourceVersion of an object; Kubernetes guarantees that versions of one kind
/// compare as integers (KEP-5504).
pub(crate) fn revision_of<K: Resource>(object: &K) -> u64 {
    let version = object.meta().resource_version.as_deref();
    version.and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// The task behind an [`Informer`].
struct Feeder<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    writer: Writer<K>,
    informer: Informer<K>,
    kind: K::DynamicType,
    /// What the cache held when a list began.
    before: HashMap<ObjectRef<K>, Arc<K>>,
}

impl<K> Feeder<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync,
{
    async fn run(mut self, api: Api<K>, part: watcher::Config, cancel: CancellationToken) {
        let resource = api.resource_url().to_owned();
        let events = watcher(api, part).modify(|object| object.meta_mut().managed_fields = None);
        follow(events, &resource, |event| self.apply(&event), cancel).await;
    }

    fn apply(&mut self, event: &watcher::Event<K>) {
        match event {
            watcher::Event::Init => {
                let state = self.informer.store.state();
                self.before = state.into_iter().map(|o| (self.key(&o), o)).collect();
                self.writer.apply_watcher_event(event);
            }
            watcher::Event::InitApply(_) => self.writer.apply_watcher_event(event),
            watcher::Event::InitDone => {
                self.writer.apply_watcher_event(event);
                self.announce_list();
                self.informer.ready.send_replace(true);
            }
            watcher::Event::Apply(object) => {
                let key = self.key(object);
                let old = self.informer.store.get(&key);
                self.writer.apply_watcher_event(event);
                self.seen(object);
                if let Some(new) = self.informer.store.get(&key) {
                    self.announce(old, new);
                }
            }
            watcher::Event::Delete(object) => {
                self.writer.apply_watcher_event(event);
                self.seen(object);
                self.send(Arc::new(object.clone()));
            }
        }
    }

    /// After a new list: what is new or different, and what vanished while nobody watched.
    fn announce_list(&mut self) {
        let mut before = std::mem::take(&mut self.before);
        for new in self.informer.store.state() {
            self.seen(&new);
            let old = before.remove(&self.key(&new));
            if old.as_ref().map(|o| revision_of(o.as_ref())) != Some(revision_of(new.as_ref())) {
                self.announce(old, new);
            }
        }
        before.into_values().for_each(|gone| self.send(gone));
    }

    fn announce(&self, old: Option<Arc<K>>, new: Arc<K>) {
        if let Some(old) = old.filter(|old| concerns_others(old.as_ref(), new.as_ref())) {
            self.send(old);
        }
        self.send(new);
    }

    fn send(&self, object: Arc<K>) {
        // Nobody listening is no error: the store is the truth.
        let _ = self.informer.changes.send(object);
    }

    fn seen(&self, object: &K) {
        let revision = revision_of(object);
        self.informer.revision.fetch_max(revision, Ordering::AcqRel);
    }

    fn key(&self, object: &K) -> ObjectRef<K> {
        ObjectRef::from_obj_with(object, self.kind.clone())
    }
}

/// Whether a change may concern somebody to whom the new form of the object says nothing.
fn concerns_others<K: Resource>(old: &K, new: &K) -> bool {
    let (old, new) = (old.meta(), new.meta());
    old.uid != new.uid || old.labels != new.labels || old.owner_references != new.owner_references
}

/// Waits between failed watches: soon at first, for a server that is just starting, then seldom. Not
/// by `WatchStreamExt::backoff`: to that a list that fails has begun well (kube-runtime 5.0), and is
/// tried again as soon each time.
struct Retry(Duration);

impl Retry {
    const FIRST: Duration = Duration::from_millis(20);
    const LAST: Duration = Duration::from_secs(10);

    /// How long to wait after what a watch has told.
    fn after<K>(&mut self, told: &watcher::Result<watcher::Event<K>>) -> Option<Duration> {
        match told {
            Err(_) => {
                let wait = self.0;
                self.0 = (wait * 2).min(Self::LAST);
                Some(wait)
            }
            // Told before a list is asked for.
            Ok(watcher::Event::Init) => None,
            Ok(_) => {
                *self = Self::default();
                None
            }
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    fn object(name: &str, version: u64, label: &str) -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns",
            "resourceVersion": version.to_string(), "labels": {"l": label}}}))
        .unwrap()
    }

    fn feeder() -> (Feeder<ConfigMap>, broadcast::Receiver<Arc<ConfigMap>>) {
        let writer = Writer::new(());
        let (changes, receiver) = broadcast::channel(16);
        let informer = Informer {
            store: writer.as_reader(),
            changes,
            revision: Arc::default(),
            ready: watch::Sender::new(false),
        };
        let before = HashMap::new();
        let kind = ();
        (
            Feeder {
                writer,
                informer,
                kind,
                before,
            },
            receiver,
        )
    }

    fn drain(receiver: &mut broadcast::Receiver<Arc<ConfigMap>>) -> Vec<(String, u64)> {
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|o| (o.metadata.name.clone().unwrap(), revision_of(o.as_ref())))
            .collect()
    }

    #[test]
    fn an_update_is_announced_once_unless_it_concerns_others() {
        let (mut feeder, mut changes) = feeder();
        feeder.apply(&watcher::Event::Apply(object("a", 1, "x")));
        feeder.apply(&watcher::Event::Apply(object("a", 2, "x")));
        assert_eq!(drain(&mut changes), [("a".into(), 1), ("a".into(), 2)]);
        feeder.apply(&watcher::Event::Apply(object("a", 3, "y")));
        assert_eq!(drain(&mut changes), [("a".into(), 2), ("a".into(), 3)]);
        assert_eq!(feeder.informer.revision(), 3);
    }

    #[test]
    fn a_list_that_keeps_failing_is_tried_ever_more_seldom() {
        let mut retry = Retry::default();
        let mut after = |told: watcher::Result<watcher::Event<ConfigMap>>| retry.after(&told);
        let mut waits = Vec::new();
        for _ in 0..12 {
            assert_eq!(after(Ok(watcher::Event::Init)), None);
            waits.extend(after(Err(watcher::Error::NoResourceVersion)));
        }
        assert_eq!(waits[..3], [20, 40, 80].map(Duration::from_millis));
        assert_eq!(waits[11], Retry::LAST);
        // One that does not fail makes it forget.
        for event in [watcher::Event::Init, watcher::Event::InitDone] {
            assert_eq!(after(Ok(event)), None);
        }
        let wait = after(Err(watcher::Error::NoResourceVersion));
        assert_eq!(wait, Some(Retry::FIRST));
    }

    #[tokio::test]
    async fn what_a_watch_tells_after_it_has_failed_is_seen() {
        let told = [
            Ok(watcher::Event::Init),
            Err(watcher::Error::NoResourceVersion),
            Ok(watcher::Event::Apply(object("a", 1, "x"))),
        ];
        let mut seen = 0;
        let events = futures::stream::iter(told);
        let cancel = CancellationToken::new();
        follow(events, "configmaps", |_| seen += 1, cancel.clone()).await;
        assert_eq!(seen, 2);
        // It ends at once although it waits.
        let failing = futures::stream::repeat_with(|| Err(watcher::Error::NoResourceVersion));
        let see = |_: watcher::Event<ConfigMap>| {};
        let following = follow(failing, "configmaps", see, cancel.clone());
        let ended = async { tokio::join!(following, async { cancel.cancel() }) };
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, ended).await.unwrap();
    }

    #[test]
    fn a_new_list_announces_what_differs_and_what_vanished() {
        let (mut feeder, mut changes) = feeder();
        for object in [
            object("same", 1, "x"),
            object("gone", 2, "x"),
            object("new", 3, "x"),
        ] {
            feeder.apply(&watcher::Event::Apply(object));
        }
        drain(&mut changes);
        feeder.apply(&watcher::Event::Init);
        feeder.apply(&watcher::Event::InitApply(object("same", 1, "x")));
        feeder.apply(&watcher::Event::InitApply(object("new", 7, "x")));
        feeder.apply(&watcher::Event::InitDone);
        let mut seen = drain(&mut changes);
        seen.sort();
        assert_eq!(seen, [("gone".into(), 2), ("new".into(), 7)]);
        assert_eq!(feeder.informer.revision(), 7);
        assert_eq!(feeder.informer.store.len(), 2);
    }
}
