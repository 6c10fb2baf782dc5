//! An API server with its controllers, which end with the test.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use coracle_apiserver::{ApiServer, Config, SigningKey, TokenConfig, UserInfo, bootstrap};
use coracle_controllers::informer::Informers;
use coracle_controllers::{ControllersConfig, TokenOwner, run};
use coracle_store::MemoryStore;
use futures::TryStreamExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Everything that is waited for comes within this time.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    _end: DropGuard,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with a change to what the controllers are told.
    pub(crate) async fn with(change: impl FnOnce(&mut ControllersConfig)) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let public = rcgen::PublicKeyData::subject_public_key_info(&pair);
        let mut config = Config::new(MemoryStore::new(), "10.43.0.0/16".parse().unwrap());
        config.advertise = Some("192.0.2.1:6443".parse().unwrap());
        config.tokens = Some(TokenConfig {
            issuers: vec!["https://kubernetes.default.svc.cluster.local".to_owned()],
            audiences: Vec::new(),
            signing: SigningKey::from_der(&pair.serialize_der(), &public).unwrap(),
            verifying: Vec::new(),
        });
        let advertise = config.advertise;
        let server = ApiServer::new(config);
        bootstrap::make(server.registry(), advertise).await.unwrap();
        let admin = UserInfo::new("admin", &["system:masters"]);
        let client = Client::new(server.service().with_identity(admin), "default");
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let informers = Informers::start(&client, &tasks, &cancel);
        let mut config = ControllersConfig::new(informers);
        config.token_signer = Some(Arc::new(move |of: TokenOwner<'_>| {
            server
                .secret_token(of.namespace, (of.account, of.account_uid), of.secret)
                .map_err(|error| error.to_string())
        }));
        change(&mut config);
        tokio::spawn(run(client.clone(), config, cancel.clone()));
        let cluster = Self {
            client,
            _end: cancel.drop_guard(),
        };
        // Pods need it; its controller makes it.
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            cluster.namespaced("default");
        until(&accounts, "default", |account| account.is_some()).await;
        cluster
    }

    /// A namespace of this name in which Pods can be made.
    pub(crate) async fn namespace(&self, name: &str) {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = self.all();
        create(&namespaces, serde_json::json!({"metadata": {"name": name}})).await;
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = self.namespaced(name);
        until(&accounts, "default", |account| account.is_some()).await;
    }

    pub(crate) fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    pub(crate) fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}

pub(crate) async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

pub(crate) async fn delete<K>(api: &Api<K>, name: &str)
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    api.delete(name, &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
}

/// Merges something into an object's status.
pub(crate) async fn set_status<K>(api: &Api<K>, name: &str, status: Value) -> K
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let patch = Patch::Merge(serde_json::json!({ "status": status }));
    api.patch_status(name, &PatchParams::default(), &patch)
        .await
        .unwrap()
}

/// Waits until the object of this name is, or is gone, as wanted.
#[track_caller]
pub(crate) fn until<K>(
    api: &Api<K>,
    name: &str,
    wanted: impl Fn(Option<&K>) -> bool + Send,
) -> impl Future<Output = Option<K>>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let caller = std::panic::Location::caller();
    async move {
        let mut last = None;
        let wait = async {
            let selected = watcher::Config::default().fields(&format!("metadata.name={name}"));
            let mut events = std::pin::pin!(watcher(api.clone(), selected).default_backoff());
            let mut listed = None;
            while let Some(event) = events.try_next().await.unwrap() {
                match event {
                    watcher::Event::Init => continue,
                    watcher::Event::InitApply(object) => {
                        listed = Some(object);
                        continue;
                    }
                    watcher::Event::InitDone => last = listed.take(),
                    watcher::Event::Apply(object) => last = Some(object),
                    watcher::Event::Delete(_) => last = None,
                }
                if wanted(last.as_ref()) {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, wait).await;
        assert!(in_time.is_ok(), "{caller}: not in time; last: {last:#?}");
        last
    }
}

/// Waits until the objects with these labels (all, of none) are as wanted.
#[track_caller]
pub(crate) fn until_all<K>(
    api: &Api<K>,
    labels: &str,
    wanted: impl Fn(&[&K]) -> bool + Send,
) -> impl Future<Output = Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let caller = std::panic::Location::caller();
    async move {
        let mut objects: BTreeMap<String, K> = BTreeMap::new();
        let wait = async {
            let selected = watcher::Config::default().labels(labels);
            let mut events = std::pin::pin!(watcher(api.clone(), selected).default_backoff());
            let mut listed = false;
            while let Some(event) = events.try_next().await.unwrap() {
                match event {
                    watcher::Event::Init => objects.clear(),
                    watcher::Event::InitDone => listed = true,
                    watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                        objects.insert(object.name_any(), object);
                    }
                    watcher::Event::Delete(object) => {
                        objects.remove(&object.name_any());
                    }
                }
                if listed && wanted(&objects.values().collect::<Vec<_>>()) {
                    return;
                }
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, wait).await;
        assert!(in_time.is_ok(), "{caller}: not in time; last: {objects:#?}");
        objects.into_values().collect()
    }
}
