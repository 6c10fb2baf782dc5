//! Watch: what is told, as frames.
//!
//! What becomes of an object is sent to many, and mostly as the same bytes. One of them makes the
//! frame, the others find it beside the change ([`Encodings`]), and each is sent a reference to it.
//! Not so tables, whose cells tell of ages, and not what a watch begins with.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use coracle_apimachinery::selector::FieldSelector;
use coracle_apimachinery::status::Status;
use coracle_apimachinery::table::Column;
use coracle_apimachinery::{cbor, protobuf};
use coracle_store::Encodings;
use futures::StreamExt;
use http::{Response, StatusCode};
use rand::Rng;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::encode::{accepted_of, protobuf_kind, response, transcode};
use super::shapes::{self, Include};
use super::{Call, websocket};
use crate::registry::encoding::{SPLICED, Shown};
use crate::registry::erased::Kind;
use crate::registry::errors::internal;
use crate::registry::watch::Change;
use crate::request::media::{Accepted, Format, Shape};
use crate::request::options::ListOptions;

pub(super) async fn watch(call: &Call<'_>) -> Result<Response<Body>, Status> {
    let mut accepted = accepted_of(call, true)?;
    if let Shape::MetadataList(version) = accepted.shape {
        // Nothing that is watched is a list: what is meant is clear.
        accepted.shape = Shape::Metadata(version);
    }
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

/// What a line has around an object, at most.
const AROUND: usize = 40;

/// How the events of a watch are written.
struct Frames {
    accepted: Accepted,
    /// All that goes into the frame of an object, beside the event.
    form: Arc<str>,
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
        let descriptor = kind.descriptor();
        let protobuf = protobuf_kind(descriptor).filter(|_| wanted);
        // Of one object there may be views in several versions.
        let (version, name) = (descriptor.api_version(), &descriptor.kind);
        let Accepted { format, shape } = accepted;
        Self {
            accepted,
            form: format!("{version} {name} {format:?} {shape:?}").into(),
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

    fn event(&mut self, kind: &dyn Kind, change: &Change, include: Include) -> Bytes {
        let frame = match change {
            Change::Object {
                became,
                record,
                revision,
                encodings,
            } => {
                let shown = Shown {
                    record,
                    revision: *revision,
                };
                self.object(became.event(), kind, shown, encodings, include)
            }
            Change::Bookmark {
                revision,
                initial_events_end,
            } => {
                let object = self.bookmark(kind, *revision, *initial_events_end);
                self.transcoded("BOOKMARK", object)
            }
            Change::Error(status) => Err(status.clone()),
        };
        let mut frame = frame.unwrap_or_else(|status| self.error(&status));
        if self.as_messages && self.accepted.format == Format::Protobuf {
            frame.advance(protobuf::FRAME_LENGTH);
        }
        frame
    }

    /// The frame of what becomes of an object.
    fn object(
        &mut self,
        event: &'static str,
        kind: &dyn Kind,
        shown: Shown<'_>,
        encodings: &Encodings,
        include: Include,
    ) -> Result<Bytes, Status> {
        if let Shape::Table(version) = self.accepted.shape {
            let columns = self.columns(kind);
            let table = shapes::one_row(kind, shown, (include, version), columns)?;
            return self.transcoded(event, table);
        }
        encodings.get_or_make(event, &self.form, || self.made(event, kind, shown))
    }

    /// The same, made now.
    fn made(&self, event: &str, kind: &dyn Kind, shown: Shown<'_>) -> Result<Bytes, Status> {
        let Accepted { format, shape } = self.accepted;
        let size = match shape {
            Shape::Whole => shown.record.value().json().len() + SPLICED,
            _ => 0,
        };
        if format == Format::Json {
            // It is copied once, into its line.
            let mut line = begin_line(event, size);
            shapes::write_item(kind, shown, shape, &mut line)?;
            return Ok(end_line(line));
        }
        let mut object = BytesMut::with_capacity(size);
        shapes::write_item(kind, shown, shape, &mut object)?;
        self.transcoded(event, object.freeze())
    }

    /// The frame of an object that is still JSON.
    fn transcoded(&self, event: &str, json: Bytes) -> Result<Bytes, Status> {
        let object = match &self.protobuf {
            Some(kind) => kind
                .encode(&json)
                .map(Bytes::from)
                .map_err(|error| internal("encode protobuf", &error))?,
            None => transcode(self.accepted.format, json)?,
        };
        Ok(self.frame(event, &object))
    }

    fn error(&self, status: &Status) -> Bytes {
        let json = Bytes::from(status.to_json());
        // A Status has every form.
        let object = transcode(self.accepted.format, json).unwrap_or_default();
        self.frame("ERROR", &object)
    }

    fn frame(&self, event: &str, object: &[u8]) -> Bytes {
        match self.accepted.format {
            Format::Protobuf => protobuf::watch_frame(event, object).into(),
            Format::Cbor => cbor::watch_event(event, object).into(),
            Format::Json | Format::Yaml => {
                let mut line = begin_line(event, object.len());
                line.put_slice(object);
                end_line(line)
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
            Shape::Table(of) | Shape::Metadata(of) | Shape::MetadataList(of) => {
                (of.api_version(), "PartialObjectMetadata")
            }
        };
        let object = json!({"kind": name, "apiVersion": api_version, "metadata": meta});
        if !matches!(self.accepted.shape, Shape::Table(_)) {
            return object.to_string().into();
        }
        let cells = vec![""; kind.columns().len()];
        let columns = Some(self.columns(kind)).filter(|columns| !columns.is_empty());
        let table = json!({
            "kind": "Table", "apiVersion": api_version,
            "metadata": {"resourceVersion": version},
            "columnDefinitions": columns,
            "rows": [{"cells": cells, "object": object}],
        });
        table.to_string().into()
    }
}

/// The line of an event up to its object, of which so many bytes are to come.
fn begin_line(event: &str, size: usize) -> BytesMut {
    let mut line = BytesMut::with_capacity(size + AROUND);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(event.as_bytes());
    line.put_slice(b"\",\"object\":");
    line
}

fn end_line(mut line: BytesMut) -> Bytes {
    line.put_slice(b"}\n");
    line.freeze()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use coracle_store::{Attributes, MemoryStore, Precondition, Record, Store, Value as Stored};
    use futures::stream::BoxStream;
    use serde_json::Value;

    use super::*;
    use crate::registry::encoding::{SCHEMA, encode};
    use crate::registry::lookup::Kinds;
    use crate::registry::service_addresses::ServiceAddresses;
    use crate::registry::watch::Became;
    use crate::registry::{Registry, key, kinds};
    use crate::request::media::MetaVersion::{V1, V1beta1};

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
            let gone = Change::Object {
                became: Became::Deleted,
                record: Record::new("/registry/configmaps/default/a", 7, 7, stored.get()),
                revision: 9,
                encodings: Encodings::default(),
            };
            for (format, shape, versions) in [
                (Format::Json, Shape::Whole, whole),
                (Format::Json, Shape::Metadata(V1), whole),
                (Format::Json, Shape::Table(V1), table),
                (Format::Protobuf, Shape::Whole, whole),
                (Format::Protobuf, Shape::Metadata(V1), whole),
                (Format::Cbor, Shape::Whole, whole),
                (Format::Cbor, Shape::Metadata(V1), whole),
                (Format::Cbor, Shape::Table(V1), table),
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

    /// A watch from a version on, and how it writes what it is told.
    struct Watcher {
        changes: BoxStream<'static, Change>,
        frames: Frames,
    }

    impl Watcher {
        async fn next(&mut self, kind: &dyn Kind) -> Bytes {
            let change = self.changes.next().await.unwrap();
            self.frames.event(kind, &change, Include::default())
        }
    }

    #[tokio::test]
    async fn watchers_are_sent_the_same_frames() {
        let store = MemoryStore::new();
        let services = ServiceAddresses {
            cluster_ips: "10.43.0.0/16".parse().unwrap(),
            node_ports: 30000..=32767,
        };
        let kinds = Kinds::new(kinds::all());
        let registry = Registry::new(store.clone(), kinds, Vec::new(), services);
        let kind = registry.kinds().resource("", "v1", "configmaps").unwrap();
        let kind = &**kind;
        let value = |app: &str| {
            let body =
                json!({"metadata": {"name": "a", "labels": {"app": app}}, "data": {"k": app}});
            let mut made = kind.decode(body.to_string().as_bytes()).unwrap();
            encode(kind, &mut *made).unwrap()
        };
        let key = key(kind.descriptor(), "default", "a");
        let from = store.create(&key, value("x")).await.unwrap().revision();
        let watch = async |format, shape, selector: &str| {
            let options = ListOptions {
                label_selector: selector.to_owned(),
                resource_version: Some(from),
                ..ListOptions::default()
            };
            let ends = Instant::now() + LONGEST_WATCH;
            let watched = registry.watch(kind, "default", &options, ends);
            Watcher {
                changes: watched.await.unwrap().changes,
                frames: Frames::new(kind, Accepted { format, shape }),
            }
        };
        let mut pairs = Vec::new();
        for (format, shape) in [
            (Format::Json, Shape::Whole),
            (Format::Json, Shape::Metadata(V1)),
            (Format::Json, Shape::Table(V1)),
            (Format::Protobuf, Shape::Whole),
            (Format::Protobuf, Shape::Metadata(V1)),
            (Format::Cbor, Shape::Whole),
            (Format::Json, Shape::Metadata(V1beta1)),
        ] {
            pairs.push([
                watch(format, shape, "").await,
                watch(format, shape, "").await,
            ]);
        }
        let mut selecting = watch(Format::Json, Shape::Whole, "app=y").await;
        let mut messages = watch(Format::Protobuf, Shape::Whole, "").await;
        messages.frames.as_messages = true;

        let any = Precondition::default;
        let changed = store.compare_and_swap(&key, any(), value("y")).await;
        let removed = store.delete(&key, any()).await;
        for (name, record) in [("MODIFIED", changed), ("DELETED", removed)] {
            let version = record.unwrap().revision().to_string();
            let mut sent: Vec<Bytes> = Vec::new();
            for [first, second] in &mut pairs {
                let (first, accepted) = (first.next(kind).await, first.frames.accepted);
                let second = second.next(kind).await;
                let what = format!("{name} {accepted:?}");
                let shared = first.as_ptr() == second.as_ptr();
                assert_eq!(shared, accepted.shape != Shape::Table(V1), "{what}");
                assert!(sent.iter().all(|other| *other != first), "{what}");
                let object = object(accepted.format, &first);
                assert_eq!(object["metadata"]["resourceVersion"], version, "{what}");
                let typed = memchr::memmem::find(&first, name.as_bytes());
                assert!(typed.is_some(), "{what}");
                sent.push(first);
            }
            // What is a change to others is the first that this one sees of the object.
            let selected = selecting.next(kind).await;
            let event: Value = serde_json::from_slice(&selected).unwrap();
            let gone = name == "DELETED";
            assert_eq!(event["type"], if gone { name } else { "ADDED" });
            assert_eq!(selected.as_ptr() == sent[0].as_ptr(), gone);
            // A message is the frame without its length.
            let message = messages.next(kind).await;
            let frame = &sent[3][protobuf::FRAME_LENGTH..];
            assert_eq!((message.as_ptr(), &*message), (frame.as_ptr(), frame));
        }
    }
}
