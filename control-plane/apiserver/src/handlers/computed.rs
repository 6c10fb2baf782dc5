//! Kinds of which nothing is stored: an object is made when it is asked for.

use axum::body::Body;
use coracle_apimachinery::status::Status;
use http::Response;

use super::{Call, components, reviews};

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
        "create" => reviews::answer(call, body).await,
        _ => components::answer(call).await,
    }
}
