//! Kinds of which nothing is stored: an object is made when it is asked for.

use axum::body::Body;
use coracle_apimachinery::status::Status;
use coracle_store::Record;
use http::{Response, StatusCode};
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::Binding;

use super::encode::{accepted_of, object};
use super::read::respond_page;
use super::shapes::Include;
use super::{Call, components, pods, reviews, usage};
use crate::registry::Target;
use crate::registry::encoding::encode;
use crate::registry::erased::Object;
use crate::registry::kinds::metrics::{NodeMetrics, PodMetrics};
use crate::registry::list::{Page, Selection};
use crate::request::options::ListOptions;

/// Answers a request for a kind whose objects are computed.
pub(super) async fn answer(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    let (info, descriptor) = (call.info, call.kind.descriptor());
    if !info.subresource.is_empty() {
        return Err(Status::unknown_path());
    }
    if !descriptor.verbs.contains(&info.verb) {
        return Err(call.refuse());
    }
    match info.verb.as_str() {
        "create" if !info.name.is_empty() => Err(call.refuse()),
        "create" if descriptor.is_namespaced() && info.namespace.is_empty() => Err(call.refuse()),
        "create" => match descriptor.kind.as_str() {
            Binding::KIND => pods::bind(call, body).await,
            _ => reviews::answer(call, body).await,
        },
        _ => match descriptor.kind.as_str() {
            NodeMetrics::KIND => usage::nodes(call).await,
            PodMetrics::KIND => usage::pods(call).await,
            _ => components::answer(call).await,
        },
    }
}

/// An object of the call's kind as if it were stored.
pub(super) fn record(
    call: &Call<'_>,
    namespace: &str,
    name: &str,
    made: &mut dyn Object,
) -> Result<Record, Status> {
    let value = encode(&**call.kind, made)?;
    let target = Target {
        kind: call.kind,
        namespace,
        name,
    };
    Ok(Record::new(&target.key(), 0, 0, value.get()))
}

/// Answers get with the one object, which may be none.
pub(super) fn one(call: &Call<'_>, record: Option<&Record>) -> Result<Response<Body>, Status> {
    let record = record.ok_or_else(|| call.target().not_found())?;
    object(call, StatusCode::OK, record)
}

/// What a list is to select.
pub(super) fn selection(call: &Call<'_>) -> Result<Selection, Status> {
    Selection::parse(&**call.kind, &ListOptions::parse(call.query, false)?)
}

/// Answers list with those of the objects that are selected.
pub(super) async fn some(
    call: &Call<'_>,
    selection: &Selection,
    mut records: Vec<Record>,
) -> Result<Response<Body>, Status> {
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
