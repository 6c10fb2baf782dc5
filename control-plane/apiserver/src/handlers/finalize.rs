//! namespaces/finalize: the namespace controller takes its finalizer away. It is an update of all but
//! the status, which alone may change the finalizers of the spec.

use axum::body::Body;
use coracle_apimachinery::status::Status;
use http::Response;
use k8s_openapi::api::core::v1::Namespace;

use super::encode::{accepted_of, outcome};
use super::{Call, decode};
use crate::registry::create::check_name;
use crate::registry::erased::Object;
use crate::registry::kinds::validate_finalize;
use crate::registry::typed;
use crate::registry::update::Part;
use crate::request::options::WriteOptions;

pub(super) async fn update(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted_of(call, false)?;
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let decoded = decode::object(call, body, options.field_validation).await?;
    let given: Namespace = typed(decoded.object)?;
    check_name(call.target(), &given.metadata)?;
    let errors = validate_finalize(&given);
    if !errors.is_empty() {
        let kind = call.kind.descriptor().group_kind();
        return Err(Status::invalid(&kind, call.target().name, errors));
    }
    let change = |current: &dyn Object| -> Result<Box<dyn Object>, Status> {
        let current: Namespace = typed(current.boxed())?;
        let mut namespace = given.clone();
        namespace.status = current.status;
        Ok(Box::new(namespace))
    };
    let part = Part::Internal("finalize");
    let caller = call.caller(options.dry_run);
    let updated = call
        .server
        .registry
        .update(call.target(), part, &change, caller)
        .await?;
    outcome(call, updated)
}
