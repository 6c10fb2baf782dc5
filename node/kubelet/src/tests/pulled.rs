//! Who may use an image that another Pod has had pulled.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::world::{PASSWORD, World, is_ready, path, waiting};

const PRIVATE: &str = "private.example/app:v1";

fn secret_path(name: &str) -> String {
    format!("/api/v1/namespaces/ns/secrets/{name}")
}

/// Puts a Secret with that password for the registry that wants one.
fn put_secret(world: &World, name: &str, password: &str) {
    let config = json!({"auths": {"private.example": {"username": "u", "password": password}}});
    let config = ByteString(config.to_string().into_bytes());
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("ns".to_owned()),
            uid: Some(format!("uid-{name}")),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
        data: Some(BTreeMap::from([(".dockerconfigjson".to_owned(), config)])),
        ..Secret::default()
    };
    let secret = serde_json::to_value(secret).unwrap();
    world.api.put(&secret_path(name), secret);
}

/// Puts a Pod of the private image.
fn put_pod(world: &World, name: &str, policy: &str, secret: Option<&str>) {
    let spec = match secret {
        Some(secret) => json!({"imagePullSecrets": [{"name": secret}]}),
        None => json!({}),
    };
    let container = json!({"image": PRIVATE, "imagePullPolicy": policy});
    world.pod(name, container, spec);
}

async fn runs(world: &World, name: &str) {
    world.api.object(&path(name), "it runs", is_ready).await;
}

/// Waits until the Pod waits for that reason, and returns what is said of it.
async fn waits(world: &World, name: &str, reason: &str) -> String {
    let waits = |pod: &Value| waiting(pod) == reason;
    let pod = world.api.object(&path(name), reason, waits).await;
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    waiting["message"].as_str().unwrap().to_owned()
}

/// Pulls that had credentials.
fn pulls(world: &World) -> usize {
    let pulls = world.images.pulls.lock();
    pulls.iter().filter(|(_, auths)| *auths > 0).count()
}

#[tokio::test]
async fn what_was_pulled_with_a_secret_is_for_those_who_have_it() {
    let world = World::new();
    put_secret(&world, "own", PASSWORD);
    put_secret(&world, "same", PASSWORD);
    put_secret(&world, "wrong", "x");
    let kubelet = world.start();
    put_pod(&world, "owner", "IfNotPresent", Some("own"));
    runs(&world, "owner").await;
    assert_eq!(pulls(&world), 1);

    // Whoever has none pulls without, or is not told that it is here.
    put_pod(&world, "none", "IfNotPresent", None);
    let said = waits(&world, "none", "ErrImagePull").await;
    assert_eq!(said, "access denied");
    let absent = format!("Container image \"{PRIVATE}\" is not present with pull policy of Never");
    for (name, secret) in [("never", None), ("wrong", Some("wrong"))] {
        put_pod(&world, name, "Never", secret);
        assert_eq!(waits(&world, name, "ErrImageNeverPull").await, absent);
    }

    // The same credential is as good, and is good still when it has changed.
    put_pod(&world, "same", "Never", Some("same"));
    runs(&world, "same").await;
    let present = format!(
        "Pulled: Container image \"{PRIVATE}\" already present on machine and can be accessed by \
         the pod"
    );
    let told = |api: &super::api::FakeApi| api.events().contains(&present);
    world.api.until("that is told", told).await;
    kubelet.stop().await;
    let kubelet = world.start();
    put_secret(&world, "same", "changed");
    put_pod(&world, "changed", "Never", Some("same"));
    runs(&world, "changed").await;
    assert_eq!(pulls(&world), 1);
    kubelet.stop().await;
}

#[tokio::test]
async fn what_took_no_secret_is_for_everybody() {
    let world = World::new();
    world.images.present.lock().insert(PRIVATE.to_owned());
    let kubelet = world.start();
    for (name, policy) in [("first", "IfNotPresent"), ("second", "Never")] {
        world.pod(name, json!({"imagePullPolicy": policy}), json!({}));
        runs(&world, name).await;
    }
    assert_eq!(world.images.pulls.lock().len(), 1);
    // What nobody here has pulled is too.
    put_pod(&world, "preloaded", "Never", None);
    runs(&world, "preloaded").await;
    kubelet.stop().await;
}

#[tokio::test]
async fn all_images_are_verified_where_the_node_says_so() {
    let mut world = World::with_containers();
    world.policy.access.verification = "AlwaysVerify".parse().unwrap();
    world.images.present.lock().insert(PRIVATE.to_owned());
    let of_others = "container-of-others:v1";
    world.containers.as_ref().unwrap().put_image(of_others);
    put_secret(&world, "own", PASSWORD);
    let kubelet = world.start();
    put_pod(&world, "never", "Never", Some("own"));
    waits(&world, "never", "ErrImageNeverPull").await;
    let container = json!({"image": of_others, "imagePullPolicy": "Never"});
    world.pod("others", container, json!({}));
    waits(&world, "others", "ErrImageNeverPull").await;
    put_pod(&world, "owner", "IfNotPresent", Some("own"));
    runs(&world, "owner").await;
    assert_eq!(pulls(&world), 1);
    kubelet.stop().await;
}

#[tokio::test]
async fn a_container_starts_again_while_nobody_can_read_its_secret() {
    let world = World::new();
    put_secret(&world, "own", PASSWORD);
    let kubelet = world.start();
    put_pod(&world, "owner", "IfNotPresent", Some("own"));
    runs(&world, "owner").await;
    world.api.refuse(&secret_path("own"), Some(500));
    let container = world.runtime.container("main").unwrap();
    world.runtime.exit(&container.id, 1, "Error", "");
    let again = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && !status["state"]["running"].is_null()
    };
    world
        .api
        .object(&path("owner"), "it runs again", again)
        .await;
    assert_eq!(world.images.pulls.lock().len(), 1);
    kubelet.stop().await;
}
