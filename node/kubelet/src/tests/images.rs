//! Images that nothing uses any more.

use std::sync::Arc;
use std::time::Duration;

use coracle_images::Access;
use parking_lot::Mutex;
use serde_json::json;

use super::world::{FakeImages, World, is_ready, path};
use crate::images::{Claim, ImageKeeper, PullPolicy, progress};
use crate::{AccessPolicy, CredentialPolicy, ImageGcPolicy, PullProgress, Use};

/// Whoever runs the tests has used some of the disk.
fn always() -> ImageGcPolicy {
    ImageGcPolicy {
        high_threshold_percent: 0,
        low_threshold_percent: 0,
        minimum_age: Duration::ZERO,
        maximum_age: Duration::ZERO,
    }
}

#[tokio::test]
async fn images_that_a_runtime_has_by_itself_are_not_pulled() {
    let world = World::with_containers();
    world.containers.as_ref().unwrap().put_image("box:v1");
    let kubelet = world.start();
    for policy in ["Never", "IfNotPresent"] {
        let image = json!({"image": "box:v1", "imagePullPolicy": policy});
        let name = policy.to_lowercase();
        world.pod(&name, image, json!({}));
        let pod = world.api.object(&path(&name), "it runs", is_ready).await;
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!(status["imageID"], "own/box:v1@sha256:00");
    }
    assert!(world.images.pulls.lock().is_empty());
    kubelet.stop().await;
}

#[tokio::test]
async fn what_some_alone_may_use_is_open_by_no_other_name() {
    let images = Arc::new(FakeImages::default());
    for name in ["private:v1", "preloaded:v1", "public:v1"] {
        images.present.lock().insert(name.to_owned());
    }
    for (name, access) in [
        ("private:v1", Access::Secrets(Vec::new())),
        ("public:v1", Access::Everybody),
    ] {
        images.pulled.lock().insert(name.to_owned(), access);
    }
    let keeper = ImageKeeper::new(images, AccessPolicy::default());
    for (digest, open) in [
        ("sha256:private:v1", false),
        ("sha256:preloaded:v1", true),
        ("sha256:public:v1", true),
        ("sha256:unknown", true),
    ] {
        assert_eq!(keeper.is_open_as("another", digest).await, open, "{digest}");
    }
}

#[tokio::test]
async fn what_a_container_is_made_of_stays_and_the_rest_goes() {
    let mut world = World::new();
    let kubelet = world.start();
    for (name, image) in [("web", "app:v1"), ("gone", "other:v1")] {
        world.pod(name, json!({"image": image}), json!({}));
        world.api.object(&path(name), "it runs", is_ready).await;
    }
    world.api.delete_gracefully(&path("gone"), 0);
    let gone = |api: &super::api::FakeApi| api.get(&path("gone")).is_none();
    world.api.until("it has gone", gone).await;
    let there = || {
        world
            .images
            .present
            .lock()
            .clone()
            .into_iter()
            .collect::<Vec<_>>()
    };
    assert_eq!(there(), ["app:v1", "other:v1"]);
    kubelet.stop().await;

    world.policy.images = always();
    let kubelet = world.start();
    let node = "/api/v1/nodes/n1";
    let event = |api: &super::api::FakeApi| {
        let events = api.events();
        events.iter().any(|event| event.starts_with("FreeDiskSpaceFailed: Failed to garbage collect required amount of images. Attempted to free "))
    };
    world
        .api
        .until("it says that this was too little", event)
        .await;
    assert_eq!(
        world.images.present.lock().iter().collect::<Vec<_>>(),
        ["app:v1"]
    );
    let listed =
        |node: &serde_json::Value| node["status"]["images"].as_array().map(Vec::len) == Some(1);
    world
        .api
        .object(node, "its status has what is there", listed)
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn nothing_goes_while_there_is_room() {
    let mut world = World::new();
    world.images.present.lock().insert("old:v1".to_owned());
    world.policy.images = ImageGcPolicy {
        high_threshold_percent: 100,
        ..always()
    };
    let kubelet = world.start();
    world.pod("web", json!({}), json!({}));
    world.api.object(&path("web"), "it runs", is_ready).await;
    assert!(world.images.present.lock().contains("old:v1"));
    kubelet.stop().await;
}

#[tokio::test]
async fn a_pull_that_takes_long_is_told_of_until_it_ends() {
    let images = Arc::new(FakeImages::default());
    let keeper = ImageKeeper::new(images.clone(), AccessPolicy::default());
    let progress = PullProgress::default();
    let wanted = ("slow:v1", Use::Run);
    let pull = keeper.obtain(
        wanted,
        PullPolicy::Always,
        Claim::new(Vec::new(), async { Vec::new() }),
        &progress,
        || {},
    );
    let (waits, told) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    // No time passes: what is waited for is there at once.
    let sleep = |wait: Duration| {
        waits.lock().push(wait.as_secs());
        tokio::task::yield_now()
    };
    let tell = |fetched| {
        let mut told = told.lock();
        told.push(progress::text("slow:v1", fetched));
        if told.len() == 5 {
            images.released.notify_one();
        }
    };
    let obtained = progress::telling(pull, &progress, sleep, tell).await;
    assert!(obtained.unwrap().pulled.is_some());
    assert_eq!(waits.lock()[..5], [10, 20, 40, 60, 60]);
    let said = "Pulling image \"slow:v1\": 120 MiB of 300 MiB";
    assert!(told.lock().iter().all(|text| text == said), "{told:?}");
}

#[tokio::test]
async fn a_plugin_gives_credentials_for_a_pull() {
    let mut world = World::new();
    let at = |name: &str| world.root.path().join(name);
    let answer = r#"{"apiVersion": "credentialprovider.kubelet.k8s.io/v1",
        "kind": "CredentialProviderResponse", "cacheKeyType": "Image",
        "auth": {"r.example": {"username": "u", "password": "p"}}}"#;
    std::os::unix::fs::symlink("/bin/sh", at("helper")).unwrap();
    let script = format!("echo '{answer}'");
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
        "providers": [{
            "name": "helper", "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "matchImages": ["r.example"], "defaultCacheDuration": "1m", "args": ["-c", script],
        }],
    });
    std::fs::write(at("config.json"), config.to_string()).unwrap();
    let mut credentials = CredentialPolicy {
        config: Some(at("config.json")),
        bin_dir: Some(world.root.path().to_owned()),
        ..CredentialPolicy::default()
    };
    credentials.load().unwrap();
    world.policy.credentials = credentials;
    let secret = "eyJhdXRocyI6eyJyLmV4YW1wbGUiOnsidXNlcm5hbWUiOiJ1IiwicGFzc3dvcmQiOiJwIn19fQ==";
    let secret = json!({
        "metadata": {"name": "own", "namespace": "ns"}, "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": secret},
    });
    world.api.put("/api/v1/namespaces/ns/secrets/own", secret);
    let kubelet = world.start();
    let own = json!({"imagePullSecrets": [{"name": "own"}]});
    for (name, image, spec) in [
        ("none", "elsewhere.example/app:v1", json!({})),
        ("node", "r.example/app:v1", json!({})),
        ("both", "r.example/other:v1", own),
    ] {
        world.pod(name, json!({"image": image}), spec);
        world.api.object(&path(name), "it runs", is_ready).await;
    }
    let pulls = world.images.pulls.lock().clone();
    let pull = |image: &str, auths| (image.to_owned(), auths);
    let expected = [
        pull("elsewhere.example/app:v1", 0),
        pull("r.example/app:v1", 1),
        pull("r.example/other:v1", 2),
    ];
    assert_eq!(pulls, expected);
    kubelet.stop().await;
}
