//! Requests that are to be treated as somebody else's.

use axum::body::Body;
use coracle_apiserver::UserInfo;
use http::Request;
use serde_json::json;

use crate::harness::{Answer, Api, CONFIG_MAPS};

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

async fn as_jane(api: &Api, path: &str) -> Answer {
    let request = Request::post(path)
        .header("content-type", "application/json")
        .header("impersonate-user", "jane")
        .header("impersonate-group", "writers");
    let body = Body::from(json!({"metadata": {"name": "a"}}).to_string());
    api.request(request.body(body).unwrap()).await
}

#[tokio::test]
async fn an_administrator_is_who_the_headers_say() {
    let api = Api::new().await;
    let seen = as_jane(&api, REVIEWS).await.ok(201);
    let user = &seen["status"]["userInfo"];
    assert_eq!(user["username"], "jane");
    assert_eq!(user["groups"], json!(["writers", "system:authenticated"]));
    // Who is treated as somebody else has no more rights than that one.
    let refused = as_jane(&api, CONFIG_MAPS).await;
    let message = refused.fails(403, "Forbidden");
    assert!(message.contains("User \"jane\" cannot create"), "{message}");
}

#[tokio::test]
async fn nobody_else_is() {
    let api = Api::new().await;
    for (name, groups) in [
        ("system:node:n1", &["system:nodes"][..]),
        ("jill", &["system:authenticated"]),
    ] {
        let other = api.user(Some(UserInfo::new(name, groups)));
        let message = as_jane(&other, REVIEWS).await.fails(403, "Forbidden");
        let want = format!("User \"{name}\" cannot impersonate resource \"users\"");
        assert!(message.contains(&want), "{message}");
    }
}
