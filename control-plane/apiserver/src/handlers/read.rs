//! get and list.
//!
//! What is stored is JSON, and JSON is sent as it is stored. The other formats are made from it
//! when they are asked for.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use coracle_apimachinery::protobuf;
use coracle_apimachinery::status::Status;
use coracle_store::{Read, Record};
use futures::{StreamExt, stream};
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;

use super::Call;
use super::encode::{accepted_of, object, respond, response, transcode};
use super::shapes::{self, Include};
use crate::registry::encoding::SPLICED;
use crate::registry::erased::Kind;
use crate::registry::errors::internal;
use crate::registry::list::Page;
use crate::request::media::{Accepted, Format, Shape};
use crate::request::options::{ListOptions, resource_version};

/// Lists are sent in chunks of about this size.
const CHUNK: usize = 64 * 1024;

pub(super) async fn get(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let read = resource_version(call.query)?.map_or(Read::Latest, Read::AtLeast);
    let record = call.server.registry.get(call.target(), read).await?;
    object(call, StatusCode::OK, &record)
}

pub(super) async fn list(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let accepted = accepted_of(call, false)?;
    let options = ListOptions::parse(call.query, false)?;
    let page = call
        .server
        .registry
        .list(&**call.kind, call.namespace(), &options)
        .await?;
    let include = Include::parse(call.query, accepted.shape)?;
    respond_page(call.kind, page, accepted, include).await
}

/// A page of objects as a list in the shape that the client wants.
pub(super) async fn respond_page(
    kind: &Arc<dyn Kind>,
    page: Page,
    accepted: Accepted,
    include: Include,
) -> Result<Response<Body>, Status> {
    if matches!(accepted.shape, Shape::Metadata(_)) {
        let kind = &kind.descriptor().kind;
        return Err(Status::no_such_form(format!(
            "you requested PartialObjectMetadata, but the requested object is a list ({kind}List)"
        )));
    }
    let list_meta = ListMeta {
        resource_version: Some(page.revision.to_string()),
        continue_: Some(page.continue_token).filter(|token| !token.is_empty()),
        remaining_item_count: page.remaining.and_then(|n| i64::try_from(n).ok()),
        ..ListMeta::default()
    };
    if let Shape::Table(version) = accepted.shape {
        let rows = (include, version);
        let json = shapes::table(&**kind, &page.records, list_meta, rows).await?;
        return respond_list(accepted.format, json).await;
    }
    if accepted.format == Format::Protobuf {
        return protobuf_list(&**kind, page.records, accepted.shape, &list_meta).await;
    }
    let head = list_head(&**kind, accepted.shape, &list_meta)?;
    let mut chunks = Chunks {
        kind: kind.clone(),
        shape: accepted.shape,
        records: page.records.into_iter(),
        head: Some(head),
        done: false,
    };
    let first = chunks.next()?.unwrap_or_default();
    if chunks.done || accepted.format != Format::Json {
        let mut whole = BytesMut::from(first);
        while let Some(chunk) = chunks.next()? {
            whole.extend_from_slice(&chunk);
            tokio::task::yield_now().await;
        }
        return respond_list(accepted.format, whole.freeze()).await;
    }
    // An object that does not encode breaks the response off: the client sees it is not whole.
    let rest = stream::unfold(chunks, |mut chunks| async {
        let chunk = chunks.next().transpose()?;
        Some((chunk, chunks))
    });
    let body = Body::from_stream(stream::iter([Ok(first)]).chain(rest));
    Ok(response(StatusCode::OK, accepted.format.media_type(), body))
}

/// A list in its format. One that is long is no work for who serves others too.
async fn respond_list(format: Format, json: Bytes) -> Result<Response<Body>, Status> {
    if format == Format::Json || json.len() <= CHUNK {
        return respond(StatusCode::OK, format, json);
    }
    let made = tokio::task::spawn_blocking(move || transcode(format, json)).await;
    let body = made.map_err(|error| internal("encode a list", &error))??;
    Ok(response(
        StatusCode::OK,
        format.media_type(),
        Body::from(body),
    ))
}

/// apiVersion and kind of a list.
fn list_type(kind: &dyn Kind, shape: Shape) -> (String, String) {
    let descriptor = kind.descriptor();
    match shape {
        Shape::MetadataList(version) => (
            version.api_version().to_owned(),
            "PartialObjectMetadataList".to_owned(),
        ),
        _ => (descriptor.api_version(), format!("{}List", descriptor.kind)),
    }
}

fn list_head(kind: &dyn Kind, shape: Shape, meta: &ListMeta) -> Result<Bytes, Status> {
    let (api_version, name) = list_type(kind, shape);
    let meta = serde_json::to_string(meta).map_err(|error| internal("encode a list", &error))?;
    let head = format!(
        "{{\"kind\":\"{name}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":["
    );
    Ok(head.into())
}

/// A list in protobuf. Its length comes first, so that it is made whole before it is sent.
async fn protobuf_list(
    kind: &dyn Kind,
    records: Vec<Record>,
    shape: Shape,
    meta: &ListMeta,
) -> Result<Response<Body>, Status> {
    let failed = |error: &protobuf::Error| internal("encode protobuf", error);
    let (api_version, name) = list_type(kind, shape);
    let mut list = protobuf::List::new(&api_version, &name)
        .ok_or_else(|| Status::internal(format!("{name} has no protobuf form")))?;
    let (mut chunks, mut length) = (Vec::new(), 0);
    let mut item = BytesMut::new();
    for record in records {
        item.clear();
        shapes::write_item(kind, (&record).into(), shape, &mut item)?;
        list.push(&item).map_err(|error| failed(&error))?;
        if list.pending() >= CHUNK {
            length += list.pending();
            chunks.push(Bytes::from(list.take()));
            // A long list takes its time; others have theirs between its parts.
            tokio::task::yield_now().await;
        }
    }
    length += list.pending();
    chunks.push(list.take().into());
    let meta = serde_json::json!({ "metadata": meta }).to_string();
    let (head, tail) = list
        .close(meta.as_bytes(), length)
        .map_err(|error| failed(&error))?;
    let parts = std::iter::once(Bytes::from(head))
        .chain(chunks)
        .chain([Bytes::from_static(tail)]);
    let body = Body::from_stream(stream::iter(parts.map(Ok::<_, Infallible>)));
    Ok(response(StatusCode::OK, protobuf::MEDIA_TYPE, body))
}

/// A list in the making.
struct Chunks {
    kind: Arc<dyn Kind>,
    shape: Shape,
    records: std::vec::IntoIter<Record>,
    /// What comes before the first item, until it is sent.
    head: Option<Bytes>,
    done: bool,
}

impl Chunks {
    /// Bytes of the next chunk, of objects that are sent as they are stored: it is allocated once.
    fn size_of_next(&self) -> usize {
        let mut size = self.head.as_ref().map_or(0, Bytes::len) + 2;
        for record in self.records.as_slice() {
            if size >= CHUNK {
                break;
            }
            size += record.value().json().len() + SPLICED;
        }
        size
    }

    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if self.done {
            return Ok(None);
        }
        let mut out = BytesMut::with_capacity(self.size_of_next());
        let mut comma = true;
        if let Some(head) = self.head.take() {
            out.put_slice(&head);
            comma = false;
        }
        while out.len() < CHUNK {
            let Some(record) = self.records.next() else {
                out.put_slice(b"]}");
                self.done = true;
                break;
            };
            if comma {
                out.put_u8(b',');
            }
            comma = true;
            shapes::write_item(&*self.kind, (&record).into(), self.shape, &mut out)?;
        }
        Ok(Some(out.freeze()))
    }
}
