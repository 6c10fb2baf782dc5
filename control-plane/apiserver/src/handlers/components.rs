//! componentstatuses: computed from the health of what the API server stands on, which is its
//! store. Controllers and the scheduler are not among the components: they are clients, and the
//! API server does not know where they run.

use axum::body::Body;
use coracle_apimachinery::status::Status;
use coracle_store::Record;
use http::Response;
use k8s_openapi::api::core::v1::{ComponentCondition, ComponentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Call, computed};
use crate::health::store_answers;

/// The store, by the name that tools look for.
const STORE: &str = "etcd-0";

/// Answers get and list.
pub(super) async fn answer(call: &Call<'_>) -> Result<Response<Body>, Status> {
    match (call.info.verb.as_str(), call.info.name.as_str()) {
        ("get", STORE) => computed::one(call, Some(&store(call).await?)),
        ("get", _) => computed::one(call, None),
        ("list", _) => {
            let selection = computed::selection(call)?;
            computed::some(call, &selection, vec![store(call).await?]).await
        }
        _ => Err(call.refuse()),
    }
}

async fn store(call: &Call<'_>) -> Result<Record, Status> {
    let answers = store_answers(call.server).await;
    let condition = ComponentCondition {
        type_: "Healthy".to_owned(),
        status: if answers.is_ok() { "True" } else { "False" }.to_owned(),
        message: answers.is_ok().then(|| "ok".to_owned()),
        error: answers.err().map(str::to_owned),
    };
    let mut status = ComponentStatus {
        metadata: ObjectMeta {
            name: Some(STORE.to_owned()),
            ..ObjectMeta::default()
        },
        conditions: Some(vec![condition]),
    };
    computed::record(call, "", STORE, &mut status)
}
