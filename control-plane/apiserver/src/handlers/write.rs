//! create, update, delete and deletecollection.

use axum::body::Body;
use coracle_apimachinery::status::Status;
use futures::{StreamExt, stream};
use http::{Response, StatusCode};

use super::encode::{accepted_of, object, outcome, value};
use super::read::respond_page;
use super::shapes::Include;
use super::{Call, decode};
use crate::registry::create::{check_name, match_namespace};
use crate::registry::delete::Deleted;
use crate::registry::erased::Object;
use crate::registry::update::Part;
use crate::registry::{Target, name_of};
use crate::request::options::{DeleteRequest, ListOptions, WriteOptions};

/// Objects of a collection that are deleted at the same time.
const DELETES_AT_ONCE: usize = 16;

/// How often an update tries to create its object, while others create and delete it. Few: what is
/// not found may also be something else, of which admission says so.
const CREATES: usize = 16;

pub(super) async fn create(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted_of(call, false)?;
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let decoded = decode::object(call, body, options.field_validation).await?;
    let caller = call.caller(options.dry_run);
    let mut created = call
        .server
        .registry
        .create(call.target(), decoded.object, caller)
        .await?;
    created.warnings.splice(0..0, decoded.warnings);
    outcome(call, created)
}

pub(super) async fn update(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    replace(call, body, Part::Main).await
}

/// Replaces a part of an object by that of the body.
pub(super) async fn replace(
    call: &Call<'_>,
    body: Body,
    part: Part,
) -> Result<Response<Body>, Status> {
    accepted_of(call, false)?;
    let options = WriteOptions::parse(call.query, &call.info.verb)?;
    let decoded = decode::object(call, body, options.field_validation).await?;
    let caller = call.caller(options.dry_run);
    let registry = &call.server.registry;
    let mut given = decoded.object;
    // Whether there is such an object or not: it is the request that is wrong.
    match_namespace(call.target(), &mut *given)?;
    check_name(call.target(), given.meta())?;
    let change = |_: &dyn Object| -> Result<Box<dyn Object>, Status> { Ok(given.boxed()) };
    let mut tries = 0;
    let mut updated = loop {
        let updated = registry.update(call.target(), part, &change, caller).await;
        let missing = match updated {
            Err(missing) if missing.code() == 404 && part == Part::Main => missing,
            done => break done?,
        };
        let object = creatable(call, &*given, missing)?;
        tries += 1;
        match registry.create(call.target(), object, caller).await {
            // Somebody was faster in creating it, and may have deleted it since.
            Err(status) if status.reason() == "AlreadyExists" && tries < CREATES => {}
            done => break done?,
        }
    };
    updated.warnings.splice(0..0, decoded.warnings);
    outcome(call, updated)
}

/// What an update of a missing object creates, if its kind is created so and the caller may create:
/// not if it is to be an object of a certain uid. The version of one that is gone does not count.
fn creatable(
    call: &Call<'_>,
    given: &dyn Object,
    missing: Status,
) -> Result<Box<dyn Object>, Status> {
    if !call.kind.descriptor().create_on_update {
        return Err(missing);
    }
    let uid = given.meta().uid.as_deref().unwrap_or_default();
    if !uid.is_empty() {
        return Err(call.target().conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: "
        )));
    }
    call.may_create()?;
    let mut object = given.boxed();
    object.meta_mut().resource_version = None;
    Ok(object)
}

pub(super) async fn delete(call: &Call<'_>, body: Body) -> Result<Response<Body>, Status> {
    accepted_of(call, false)?;
    let options = decode::delete_options(call, body).await?;
    let request = DeleteRequest::parse(call.query, options)?;
    let caller = call.caller(request.dry_run);
    match call
        .server
        .registry
        .delete(call.target(), &request, caller)
        .await?
    {
        Deleted::Pending(record) if request.cascades => object(call, StatusCode::ACCEPTED, &record),
        Deleted::Pending(record) => object(call, StatusCode::OK, &record),
        Deleted::Removed(record) if call.kind.descriptor().returns_deleted => {
            object(call, StatusCode::OK, &record)
        }
        Deleted::Removed(record) => {
            let resource = call.kind.descriptor().group_resource();
            let uid = record.value().uid();
            let status = Status::success(&resource, &call.info.name, Some(uid));
            value(&call.parts.headers, StatusCode::OK, &status)
        }
    }
}

pub(super) async fn delete_collection(
    call: &Call<'_>,
    body: Body,
) -> Result<Response<Body>, Status> {
    let accepted = accepted_of(call, false)?;
    let options = decode::delete_options(call, body).await?;
    let request = DeleteRequest::parse(call.query, options)?;
    let caller = call.caller(request.dry_run);
    let registry = &call.server.registry;
    let list_options = ListOptions::parse(call.query, false)?;
    let page = registry
        .list(&**call.kind, call.namespace(), &list_options)
        .await?;
    let request = &request;
    let selected = page.records.clone().into_iter();
    let deletes = selected.map(|record| async move {
        let target = Target {
            name: name_of(record.key()),
            ..call.target()
        };
        match registry.delete(target, request, caller).await {
            // Somebody else was faster.
            Err(status) if status.code() != 404 => Err(status),
            _ => Ok(()),
        }
    });
    let done: Vec<Result<(), Status>> = stream::iter(deletes)
        .buffered(DELETES_AT_ONCE)
        .collect()
        .await;
    done.into_iter().collect::<Result<(), Status>>()?;
    // The answer has what was selected, as it was.
    respond_page(
        call.kind,
        page,
        accepted,
        Include::parse(call.query, accepted.shape)?,
    )
    .await
}
