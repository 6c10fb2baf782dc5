//! Tables of what has no rows.

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::harness::Api;

/// Must: a table of a review, which is no object that is kept, is refused with 406
#[tokio::test]
async fn servers_with_support_for_table_transformation_should_return_a_406_for_a_backend_which_does_not_implement_metadata()
 {
    let api = Api::new().await;
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .header("content-type", "application/json")
        .body(Body::from(review.to_string()))
        .unwrap();
    api.request(request).await.fails(406, "NotAcceptable");
}
