#![allow(clippy::unwrap_used)]

use axum::Router;
use parking_lot::Mutex;

use super::*;
use crate::push::{PushRequest, push};
use crate::registry::tests::{TestRegistry, serve};
use crate::{RegistryAuth, Reserve, SecretId};

mod broken;
mod hostile;
mod images;

pub(super) const MODULE: &[u8] = b"\0asm\x01\0\0\0";

pub(super) struct Node {
    _folder: tempfile::TempDir,
    pub(super) puller: Puller,
}

impl Node {
    pub(super) fn new(config: PullerConfig) -> Self {
        Self::keeping(config, Reserve::default())
    }

    /// A node that keeps that much of its disk free.
    pub(super) fn keeping(config: PullerConfig, reserve: Reserve) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ContentStore::open_keeping(folder.path(), reserve).unwrap();
        Self {
            _folder: folder,
            puller: Puller::new(store, config).unwrap(),
        }
    }

    /// A node whose pulls do not wait long.
    pub(super) fn hasty(limits: Limits) -> Self {
        Self::new(PullerConfig {
            embedded: None,
            limits: Limits {
                connect_timeout: Duration::from_secs(2),
                ..limits
            },
            ..PullerConfig::default()
        })
    }

    pub(super) async fn pull(&self, reference: &str) -> Result<Image, PullError> {
        let request = PullRequest {
            reference: reference.into(),
            ..PullRequest::default()
        };
        self.puller.pull(&request, &|_| {}).await
    }

    pub(super) fn module(&self, image: &Image) -> Vec<u8> {
        let stored = self.puller.store().image(&image.digest).unwrap();
        let ImageKind::Wasm { module, .. } = stored.kind else {
            panic!("{stored:?}");
        };
        std::fs::read(self.puller.store().blob_path(&module)).unwrap()
    }
}

async fn push_module(registry: &TestRegistry, reference: &str, wasm: &[u8]) -> String {
    let request = PushRequest {
        reference: reference.into(),
        wasm: wasm.to_vec().into(),
        title: "app.wasm".into(),
        embedded: Some(registry.embedded("admin")),
        credential: None,
    };
    push(request).await.unwrap().digest
}

fn node_of(registry: &TestRegistry) -> Node {
    Node::new(PullerConfig {
        embedded: Some(registry.embedded("node")),
        ..PullerConfig::default()
    })
}

#[tokio::test]
async fn what_was_pushed_is_pulled() {
    let registry = TestRegistry::start().await;
    let digest = push_module(&registry, "team/app:v1", MODULE).await;
    let node = node_of(&registry);
    assert_eq!(node.puller.resolve_local("team/app:v1"), None);
    let seen = Mutex::new(Vec::new());
    let request = PullRequest {
        reference: "team/app:v1".into(),
        ..PullRequest::default()
    };
    let image = node
        .puller
        .pull(&request, &|progress| seen.lock().push(progress))
        .await
        .unwrap();
    assert_eq!(image.digest, digest);
    let name = format!("{}/team/app", registry.host);
    assert_eq!(image.resolved_reference, format!("{name}:v1"));
    assert_eq!(image.id(), format!("{name}@{digest}"));
    assert_eq!(node.module(&image), MODULE);
    let last = *seen.lock().last().unwrap();
    assert_eq!(last.done_bytes, last.total_bytes);
    for reference in [
        "team/app:v1".into(),
        format!("{name}:v1"),
        format!("{name}@{digest}"),
        format!("team/app@{digest}"),
        format!("team/app:other@{digest}"),
        digest.clone(),
    ] {
        let found = node.puller.resolve_local(&reference).unwrap();
        assert_eq!(found.digest, digest, "{reference}");
    }
    assert_eq!(node.puller.resolve_local("team/app:v2"), None);
    assert_eq!(node.puller.resolve_local("docker.io/team/app:v1"), None);
    let stored = node.puller.store().image(&digest).unwrap();
    assert!(
        matches!(&stored.kind, ImageKind::Wasm { layers, .. } if layers.contains_key("app.wasm"))
    );
    // By digest, and through the registry's other name.
    let port = registry.host.rsplit_once(':').unwrap().1;
    let alias = format!("localhost:{port}/team/app@{digest}");
    assert_eq!(node.pull(&alias).await.unwrap().digest, digest);
}

#[tokio::test]
async fn a_tag_that_moves_is_followed() {
    let registry = TestRegistry::start().await;
    let node = node_of(&registry);
    push_module(&registry, "app:v1", MODULE).await;
    let old = node.pull("app:v1").await.unwrap();
    assert_eq!(node.pull("app:v1").await.unwrap(), old);
    let other = wat::parse_str("(module (func))").unwrap();
    push_module(&registry, "app:v1", &other).await;
    let new = node.pull("app:v1").await.unwrap();
    assert_ne!(new.digest, old.digest);
    let local = node.puller.resolve_local("app:v1").unwrap();
    assert_eq!(local.digest, new.digest);
    assert_eq!(node.puller.store().images().len(), 2);
}

#[tokio::test]
async fn many_pulls_of_one_image_at_once() {
    let registry = TestRegistry::start().await;
    push_module(&registry, "app:v1", MODULE).await;
    let node = node_of(&registry);
    let pulls = (0..40).map(|_| node.pull("app:v1"));
    let images = futures::future::join_all(pulls).await;
    assert!(images.iter().all(|image| image.is_ok()), "{images:?}");
    assert_eq!(node.puller.store().images().len(), 1);
}

#[tokio::test]
async fn pulls_of_many_images_at_once() {
    let registry = TestRegistry::start().await;
    let node = node_of(&registry);
    let names: Vec<String> = (0..10).map(|number| format!("app-{number}:v1")).collect();
    let module = |name: &str| {
        let text = format!("(module (func (export \"{name}\")))");
        wat::parse_str(text).unwrap()
    };
    for name in &names {
        push_module(&registry, name, &module(name)).await;
    }
    let pulls = names.iter().map(|name| node.pull(name));
    let images = futures::future::join_all(pulls).await;
    for (name, image) in names.iter().zip(images) {
        assert_eq!(node.module(&image.unwrap()), module(name), "{name}");
    }
    assert_eq!(node.puller.store().images().len(), names.len());
}

#[tokio::test]
async fn errors_say_the_cause() {
    let registry = TestRegistry::start().await;
    push_module(&registry, "app:v1", MODULE).await;
    let node = node_of(&registry);
    let host = &registry.host;
    for (reference, kind, causes) in [
        (
            "App:v1",
            PullErrorKind::InvalidImageName,
            vec!["must be lowercase"],
        ),
        (
            "app:v2",
            PullErrorKind::ErrImagePull,
            vec!["not found", "/app:v2", "app has no tag v2"],
        ),
        (
            &format!("{host}/nope:v1"),
            PullErrorKind::ErrImagePull,
            vec!["not found", "nope:v1"],
        ),
        (
            "127.0.0.1:1/app:v1",
            PullErrorKind::RegistryUnavailable,
            vec!["127.0.0.1:1/app:v1", "refused"],
        ),
    ] {
        let error = node.pull(reference).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        for cause in causes {
            assert!(error.message.contains(cause), "{error} lacks {cause}");
        }
    }
    let mut stranger = registry.embedded("node");
    stranger.credential = Some(("node".into(), "wrong".into()));
    let stranger = Node::new(PullerConfig {
        embedded: Some(stranger),
        ..PullerConfig::default()
    });
    let error = stranger.pull("app:v1").await.unwrap_err();
    assert_eq!(error.reason(), "ErrImagePull");
    assert!(error.message.contains("access denied"), "{error}");
}

#[tokio::test]
async fn an_unreachable_registry_of_ours_is_no_reason_to_ask_docker_hub() {
    let node = Node::new(PullerConfig {
        embedded: Some(EmbeddedRegistry {
            name: "127.0.0.1:1".into(),
            endpoints: vec!["http://127.0.0.1:1".into()],
            ..Default::default()
        }),
        ..PullerConfig::default()
    });
    let error = node.pull("app:v1").await.unwrap_err();
    assert_eq!(error.kind, PullErrorKind::RegistryUnavailable, "{error}");
}

#[tokio::test]
async fn the_second_endpoint_serves_when_the_first_is_down() {
    let registry = TestRegistry::start().await;
    push_module(&registry, "app:v1", MODULE).await;
    let mut embedded = registry.embedded("node");
    embedded.endpoints.insert(0, "http://127.0.0.1:1".into());
    let node = Node::new(PullerConfig {
        embedded: Some(embedded),
        ..PullerConfig::default()
    });
    node.pull("app:v1").await.unwrap();
}

#[tokio::test]
async fn secrets_that_fit_are_tried_in_turn() {
    let registry = TestRegistry::start().await;
    push_module(&registry, "app:v1", MODULE).await;
    let node = Node::hasty(Limits::default());
    let auth = |pattern: &str, password: &str| RegistryAuth {
        pattern: pattern.into(),
        username: "node".into(),
        password: password.into(),
        secret: Some(SecretId {
            name: password.into(),
            ..SecretId::default()
        }),
    };
    let mut request = PullRequest {
        reference: format!("{}/app:v1", registry.host),
        auths: vec![auth("other.example", "node")],
        ..PullRequest::default()
    };
    let error = node.puller.pull(&request, &|_| {}).await.unwrap_err();
    assert!(error.message.contains("imagePullSecrets"), "{error}");
    request
        .auths
        .push(auth(&format!("{}/app", registry.host), "wrong"));
    request.auths.push(auth(&registry.host, "node"));
    let image = node.puller.pull(&request, &|_| {}).await.unwrap();

    // The one that did it is remembered, and what does it later.
    let repository = image.repository().unwrap();
    assert_eq!(repository, format!("{}/app", registry.host));
    let known = || node.puller.store().image(&image.digest).unwrap().pulled;
    let secrets = |secrets: &[PullSecret]| {
        let access = Access::Secrets(secrets.to_vec());
        BTreeMap::from([(repository.clone(), access)])
    };
    let used = request.auths[2].pull_secret().unwrap();
    assert_eq!(known(), secrets(std::slice::from_ref(&used)));
    let other = PullSecret {
        secret: SecretId::default(),
        ..used.clone()
    };
    let admitted = node
        .puller
        .admit(&image.digest, &repository, other.clone())
        .await;
    admitted.unwrap();
    assert_eq!(known(), secrets(&[used, other]));
    for auth in &mut request.auths {
        auth.secret = None;
    }
    node.puller.pull(&request, &|_| {}).await.unwrap();
    assert_eq!(known()[&repository], Access::Everybody);
}

#[tokio::test]
async fn what_the_node_may_pull_is_for_everybody() {
    let registry = TestRegistry::start().await;
    let digest = push_module(&registry, "app:v1", MODULE).await;
    let node = node_of(&registry);
    let request = PullRequest {
        reference: "app:v1".into(),
        auths: vec![RegistryAuth {
            pattern: registry.host.clone(),
            username: "node".into(),
            password: "node".into(),
            secret: Some(SecretId::default()),
        }],
        ..PullRequest::default()
    };
    node.puller.pull(&request, &|_| {}).await.unwrap();
    let pulled = node.puller.store().image(&digest).unwrap().pulled;
    let expected = BTreeMap::from([(format!("{}/app", registry.host), Access::Everybody)]);
    assert_eq!(pulled, expected);
}

/// A registry that answers every request by a function of its path.
async fn fake(
    answer: impl Fn(&str) -> http::Response<axum::body::Body> + Clone + Send + Sync + 'static,
) -> String {
    let router = Router::new().fallback(move |request: axum::extract::Request| {
        let response = answer(request.uri().path());
        async move { response }
    });
    serve(router).await
}
