//! watch.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use coracle_apimachinery::selector::FieldSelector;
use coracle_apimachinery::status::Status;
use coracle_apimachinery::table::Column;
use coracle_apimachinery::{cbor, protobuf};
use futures::StreamExt;
use http::{Response, StatusCode};
use rand::Rng;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::encode::{accepted_of, protobuf_kind, response, transcode};
use super::shapes::{self, Include};
use super::{Call, websocket};
use crate::registry::encoding::Shown;
use crate::registry::erased::Kind;
use crate::registry::errors::internal;
use crate::registry::watch::Change;
use crate::request::media::{Accepted, Format, Shape};
use crate::request::options::ListOptions;

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
    use coracle_store::{Attributes, Record, Value as Stored};
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
