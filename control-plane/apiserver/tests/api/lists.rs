//! Lists: pages, selectors, versions.

use coracle_store::MemoryStore;
use serde_json::{Value, json};

use crate::harness::{Api, CONFIG_MAPS};

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["metadata"]["name"].as_str().unwrap())
        .collect()
}

fn version(list: &Value) -> u64 {
    list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn pages_are_of_one_state() {
    let api = Api::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        api.config_map(name).await;
    }
    let first = api.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["kind"], "ConfigMapList");
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    let token = first["metadata"]["continue"].as_str().unwrap();
    api.config_map("bb").await;
    let second = api
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .ok(200);
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(version(&second), version(&first));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let last = api
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .ok(200);
    assert_eq!(names(&last), ["e"]);
    assert!(last["metadata"].get("continue").is_none());
    assert!(last["metadata"].get("remainingItemCount").is_none());
}

#[tokio::test]
async fn a_token_that_is_too_old_comes_with_another() {
    let api = Api::over(MemoryStore::with_history(1), |_| {}).await;
    for name in ["a", "b", "c"] {
        api.config_map(name).await;
    }
    let first = api.get(&format!("{CONFIG_MAPS}?limit=1")).await.ok(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    api.config_map("aa").await;
    api.config_map("d").await;
    let gone = api
        .get(&format!("{CONFIG_MAPS}?limit=1&continue={token}"))
        .await;
    gone.fails(410, "Expired");
    let status = gone.json();
    let token = status["metadata"]["continue"].as_str().unwrap();
    let rest = api
        .get(&format!("{CONFIG_MAPS}?continue={token}"))
        .await
        .ok(200);
    assert_eq!(names(&rest), ["aa", "b", "c", "d"]);
    api.get(&format!(
        "{CONFIG_MAPS}?resourceVersion=1&resourceVersionMatch=Exact"
    ))
    .await
    .fails(410, "Expired");
}

#[tokio::test]
async fn selectors() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        api.config_map(name).await;
    }
    api.post(
        "/api/v1/namespaces",
        &json!({"metadata": {"name": "other"}}),
    )
    .await
    .ok(201);
    api.post(
        "/api/v1/namespaces/other/configmaps",
        &json!({"metadata": {"name": "a"}}),
    )
    .await
    .ok(201);
    let cases = [
        ("labelSelector=name%3Da", vec!["a"]),
        ("labelSelector=name%20in%20(a,c)", vec!["a", "c"]),
        ("labelSelector=name!%3Da", vec!["b", "c"]),
        ("labelSelector=!name", vec![]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=metadata.name!%3Db", vec!["a", "c"]),
        ("fieldSelector=metadata.namespace%3Dother", vec![]),
    ];
    for (query, want) in cases {
        let list = api.get(&format!("{CONFIG_MAPS}?{query}")).await.ok(200);
        assert_eq!(names(&list), want, "{query}");
    }
    let everywhere = api
        .get("/api/v1/configmaps?fieldSelector=metadata.name%3Da")
        .await
        .ok(200);
    assert_eq!(names(&everywhere), ["a", "a"]);
    let other = api
        .get("/api/v1/configmaps?fieldSelector=metadata.namespace%3Dother")
        .await
        .ok(200);
    assert_eq!(names(&other), ["a"]);
}

#[tokio::test]
async fn pages_of_a_selection_are_full() {
    let api = Api::new().await;
    for n in 0..10 {
        let body = json!({"metadata": {"name": format!("m{n}"), "labels": {"odd": (n % 2 == 1).to_string()}}});
        api.post(CONFIG_MAPS, &body).await.ok(201);
    }
    let path = format!("{CONFIG_MAPS}?labelSelector=odd%3Dtrue&limit=3");
    let first = api.get(&path).await.ok(200);
    assert_eq!(names(&first), ["m1", "m3", "m5"]);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let last = api.get(&format!("{path}&continue={token}")).await.ok(200);
    assert_eq!(names(&last), ["m7", "m9"]);
    assert!(last["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn a_long_list_is_sent_in_pieces_and_whole() {
    let api = Api::new().await;
    for n in 0..40 {
        let body =
            json!({"metadata": {"name": format!("m{n:02}")}, "data": {"x": "y".repeat(8000)}});
        api.post(CONFIG_MAPS, &body).await.ok(201);
    }
    let list = api.get(CONFIG_MAPS).await.ok(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 40);
    assert!(list["items"][39]["metadata"]["resourceVersion"].is_string());
}
