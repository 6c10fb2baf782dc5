//! componentstatuses: computed from the health of what the API server stands on, which is its
//! store. Controllers and the scheduler are not among the components: they are clients, and the
//! API server does not know where they run.

use axum::body::Body;
use coracle_apimachinery::status::Status;
use coracle_store::{Record, Stored};
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::{ComponentCondition, ComponentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Call;
use super::encode::{accepted_of, object};
use super::read::respond_page;
use super::shapes::Include;
use crate::health::store_answers;
use crate::registry::encoding::encode;
use crate::registry::list::{Page, Selection};
use crate::request::options::ListOptions;

/// The store, by the name that tools look for.
const STORE: &str = "etcd-0";

/// Answers get and list.
pub(super) async fn answer(call: &Call<'_>) -> Result<Response<Body>, Status> {
    match (call.info.verb.as_str(), call.info.name.as_str()) {
        ("get", STORE) => object(call, StatusCode::OK, &store(call).await?),
        ("get", _) => Err(call.target().not_found()),
        ("list", "") => {
            let options = ListOptions::parse(call.query, false)?;
            let selection = Selection::parse(&**call.kind, &options)?;
            let mut records = vec![store(call).await?];
            records.retain(|record| selection.matches(record));
            let page = Page {
                records,
                revision: 0,
                continue_token: String::new(),
                remaining: None,
            };
            let accepted = accepted_of(call, false)?;
            let include = Include::parse(call.query, accepted.shape)?;
            respond_page(call.kind, page, accepted, include).await
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
    let value = encode(&**call.kind, &mut status)?;
    let key = call.target().key();
    Ok(Stored {
        key: key.into(),
        revision: 0,
        created: 0,
        value,
    }
    .into())
}
