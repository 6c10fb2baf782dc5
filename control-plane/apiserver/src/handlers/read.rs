//! get, list and watch.
//!
//! What is stored is JSON, and JSON is sent as it is stored. The other formats are made from it
//! when they are asked for.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use coracle_apimachinery::selector::FieldSelector;
use coracle_apimachinery::status::Status;
use coracle_apimachinery::table::Column;
use coracle_apimachinery::{cbor, protobuf};
use coracle_store::{Read, Record};
use futures::{StreamExt, stream};
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use rand::Rng;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::Call;
use super::encode::{accepted_of, object, protobuf_kind, respond, response, transcode};
use super::shapes::{self, Include};
use super::websocket;
use crate::registry::encoding::{SPLICED, Shown};
use crate::registry::erased::Kind;
use crate::registry::errors::internal;
use crate::registry::list::Page;
use crate::registry::watch::Change;
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
    let list_meta = ListMeta {
        resource_version: Some(page.revision.to_string()),
        continue_: Some(page.continue_token).filter(|token| !token.is_empty()),
        remaining_item_count: page.remaining.and_then(|n| i64::try_from(n).ok()),
        ..ListMeta::default()
    };
    if accepted.shape == Shape::Table {
        let json = shapes::table(&**kind, &page.records, list_meta, include)?;
        return respond(StatusCode::OK, accepted.format, json);
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
        }
        return respond(StatusCode::OK, accepted.format, whole.freeze());
    }
    // An object that does not encode breaks the response off: the client sees it is not whole.
    let rest = stream::unfold(chunks, |mut chunks| async {
        let chunk = chunks.next().transpose()?;
        Some((chunk, chunks))
    });
    let body = Body::from_stream(stream::iter([Ok(first)]).chain(rest));
    Ok(response(StatusCode::OK, accepted.format.media_type(), body))
}

/// apiVersion and kind of a list.
fn list_type(kind: &dyn Kind, shape: Shape) -> (String, String) {
    let descriptor = kind.descriptor();
    match shape {
        Shape::Metadata => (
            "meta.k8s.io/v1".to_owned(),
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

pub(super) async fn watch(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let accepted = accepted_of(call, true)?;
    let mut options = ListOptions::parse(call.query, true)?;
    if !call.info.name.is_empty() {
        select_name(&mut options, &call.info.name)?;
    }
    let include = Include::parse(call.query, accepted.shape)?;
    let ends = Instant::now() + lasts(&options, call.server.timeouts.watch);
    let watched = call
        .server
        .registry
        .watch(&**call.kind, call.namespace(), &options, ends)
        .await?;
    let kind = call.kind.clone();
    let as_messages = websocket::is_asked(&call.parts.headers);
    let mut frames = Frames {
        as_messages,
        ..Frames::new(&*kind, accepted)
    };
    let counter = call.server.metrics.requests.watch(kind.descriptor());
    let mut initial = watched.initial;
    let mut seats = call.seats.lock().take().filter(|_| initial > 0);
    let changes = watched.changes.map(move |change| {
        let begins = initial > 0;
        initial = initial.saturating_sub(1);
        if initial == 0 {
            drop(seats.take());
        }
        let event = frames.event(&*kind, &change, include);
        counter.event(event.len(), begins);
        event
    });
    let events = changes.take_until(Box::pin(sleep_until(ends)));
    if as_messages {
        return websocket::answer(call, accepted.format.into(), events);
    }
    Ok(response(
        StatusCode::OK,
        accepted.format.watch_media_type(),
        Body::from_stream(events.map(Ok::<_, Infallible>)),
    ))
}

/// Confines a watch to the object that its path names.
fn select_name(options: &mut ListOptions, name: &str) -> Result<(), Status> {
    if options.field_selector.is_empty() {
        options.field_selector = FieldSelector::name(name).to_string();
        return Ok(());
    }
    let given = FieldSelector::parse(&options.field_selector).unwrap_or_default();
    if given.exact("metadata.name") == Some(name) {
        return Ok(());
    }
    Err(Status::bad_request(
        "fieldSelector metadata.name doesn't match requested name",
    ))
}

/// Nobody sees the end of a watch that is to last longer, and no clock overflows.
const LONGEST_WATCH: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long a watch lasts: as long as was asked for, or a time that spreads the return of clients
/// that came together.
fn lasts(options: &ListOptions, least: Duration) -> Duration {
    match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds).min(LONGEST_WATCH),
        _ => least.mul_f64(rand::rng().random_range(1.0..2.0)),
    }
}

/// How the events of a watch are written.
struct Frames {
    accepted: Accepted,
    /// Whether each event is a message already, and needs no length before it.
    as_messages: bool,
    /// Whether a table has been sent: only the first has columns.
    has_columns: bool,
    /// The protobuf form of the objects, where that is wanted of them whole.
    protobuf: Option<protobuf::Kind>,
}

impl Frames {
    fn new(kind: &dyn Kind, accepted: Accepted) -> Self {
        let wanted = accepted.format == Format::Protobuf && accepted.shape == Shape::Whole;
        let protobuf = protobuf_kind(kind.descriptor()).filter(|_| wanted);
        Self {
            accepted,
            as_messages: false,
            has_columns: false,
            protobuf,
        }
    }

    /// The columns of the table that is sent now.
    fn columns(&mut self, kind: &dyn Kind) -> Vec<Column> {
        let sent = std::mem::replace(&mut self.has_columns, true);
        if sent { Vec::new() } else { kind.columns() }
    }

    fn object(
        &mut self,
        kind: &dyn Kind,
        shown: Shown<'_>,
        include: Include,
    ) -> Result<Bytes, Status> {
        match self.accepted.shape {
            Shape::Table => shapes::one_row(kind, shown, include, self.columns(kind)),
            shape => shapes::single(kind, shown, shape, include),
        }
    }

    fn event(&mut self, kind: &dyn Kind, change: &Change, include: Include) -> Bytes {
        let (name, object) = match change {
            Change::Added(record) => ("ADDED", self.object(kind, record.into(), include)),
            Change::Modified(record) => ("MODIFIED", self.object(kind, record.into(), include)),
            Change::Deleted { record, revision } => {
                let shown = Shown {
                    record,
                    revision: *revision,
                };
                ("DELETED", self.object(kind, shown, include))
            }
            Change::Bookmark {
                revision,
                initial_events_end,
            } => {
                let object = self.bookmark(kind, *revision, *initial_events_end);
                ("BOOKMARK", Ok(object))
            }
            Change::Error(status) => ("ERROR", Err(status.clone())),
        };
        let encoded = object.and_then(|object| match &self.protobuf {
            Some(kind) => kind
                .encode(&object)
                .map(Bytes::from)
                .map_err(|error| internal("encode protobuf", &error)),
            None => transcode(self.accepted.format, object),
        });
        match encoded {
            Ok(object) => self.frame(name, &object),
            Err(status) => self.error(&status),
        }
    }

    fn error(&self, status: &Status) -> Bytes {
        let json = Bytes::from(status.to_json());
        // A Status has every form.
        let object = transcode(self.accepted.format, json).unwrap_or_default();
        self.frame("ERROR", &object)
    }

    fn frame(&self, name: &str, object: &[u8]) -> Bytes {
        match self.accepted.format {
            Format::Protobuf => {
                let mut frame = Bytes::from(protobuf::watch_frame(name, object));
                if self.as_messages {
                    frame.advance(protobuf::FRAME_LENGTH);
                }
                frame
            }
            Format::Cbor => cbor::watch_event(name, object).into(),
            Format::Json | Format::Yaml => {
                let mut line = BytesMut::with_capacity(object.len() + 40);
                line.put_slice(b"{\"type\":\"");
                line.put_slice(name.as_bytes());
                line.put_slice(b"\",\"object\":");
                line.put_slice(object);
                line.put_slice(b"}\n");
                line.freeze()
            }
        }
    }

    fn bookmark(&mut self, kind: &dyn Kind, revision: u64, initial_events_end: bool) -> Bytes {
        let descriptor = kind.descriptor();
        let version = revision.to_string();
        let mut meta = json!({ "resourceVersion": version });
        if initial_events_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let own = descriptor.api_version();
        let (api_version, name) = match self.accepted.shape {
            Shape::Whole => (own.as_str(), descriptor.kind.as_str()),
            _ => ("meta.k8s.io/v1", "PartialObjectMetadata"),
        };
        let object = json!({"kind": name, "apiVersion": api_version, "metadata": meta});
        if self.accepted.shape != Shape::Table {
            return object.to_string().into();
        }
        let cells = vec![""; kind.columns().len()];
        let columns = Some(self.columns(kind)).filter(|columns| !columns.is_empty());
        let table = json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"resourceVersion": version},
            "columnDefinitions": columns,
            "rows": [{"cells": cells, "object": object}],
        });
        table.to_string().into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use coracle_store::{Attributes, Value as Stored};
    use serde_json::Value;

    use super::*;
    use crate::registry::encoding::{SCHEMA, encode};
    use crate::registry::kinds;
    use crate::registry::lookup::Kinds;

    const LIMIT: usize = 1 << 20;

    /// The object of an event.
    fn object(format: Format, event: &[u8]) -> Value {
        let parsed = |json: &[u8]| serde_json::from_slice::<Value>(json).unwrap();
        match format {
            Format::Protobuf => {
                let start = event.windows(4).position(|four| four == b"k8s\0").unwrap();
                parsed(&protobuf::to_json(&event[start..], LIMIT).unwrap())
            }
            Format::Cbor => parsed(&cbor::to_json(event, LIMIT).unwrap())["object"].clone(),
            Format::Json | Format::Yaml => parsed(event)["object"].clone(),
        }
    }

    #[test]
    fn an_object_goes_at_the_version_of_its_end_in_every_form() {
        let kinds = Kinds::new(kinds::all());
        let kind = &**kinds.resource("", "v1", "configmaps").unwrap();
        let body = json!({"metadata": {"name": "a", "namespace": "default"}}).to_string();
        let mut made = kind.decode(body.as_bytes()).unwrap();
        let encoded = encode(kind, &mut *made).unwrap();
        let whole: &[&str] = &["/metadata/resourceVersion"];
        let table: &[&str] = &[
            "/metadata/resourceVersion",
            "/rows/0/object/metadata/resourceVersion",
        ];
        // As it is stored, and decoded to be served.
        for schema in [SCHEMA, SCHEMA - 1] {
            let attributes = Attributes {
                schema,
                splice: u32::try_from(encoded.get().splice()).unwrap(),
                ..Attributes::default()
            };
            let stored = Stored::new(encoded.get().json(), &attributes);
            let gone = Change::Deleted {
                record: Record::new("/registry/configmaps/default/a", 7, 7, stored.get()),
                revision: 9,
            };
            for (format, shape, versions) in [
                (Format::Json, Shape::Whole, whole),
                (Format::Json, Shape::Metadata, whole),
                (Format::Json, Shape::Table, table),
                (Format::Protobuf, Shape::Whole, whole),
                (Format::Protobuf, Shape::Metadata, whole),
                (Format::Cbor, Shape::Whole, whole),
                (Format::Cbor, Shape::Metadata, whole),
                (Format::Cbor, Shape::Table, table),
            ] {
                let mut frames = Frames::new(kind, Accepted { format, shape });
                let event = frames.event(kind, &gone, Include::default());
                let object = object(format, &event);
                for version in versions {
                    let shown = object.pointer(version).and_then(Value::as_str);
                    assert_eq!(shown, Some("9"), "{format:?} {shape:?}: {object}");
                }
            }
        }
    }
}
