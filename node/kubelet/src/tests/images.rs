//! Images that nothing uses any more.

use std::time::Duration;

use serde_json::json;

use super::world::{World, is_ready, path};
use crate::ImageGcPolicy;

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
