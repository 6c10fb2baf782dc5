//! The status subresource.

use axum::body::Body;
use coracle_apimachinery::status::Status;
use http::Response;

use super::{Call, write};
use crate::registry::update::Part;

pub(super) async fn update(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    write::replace(call, body, Part::Status).await
}
