//! What is made of stored objects before they are sent: themselves, their metadata alone, or
//! rows of a table.

use bytes::{BufMut, Bytes, BytesMut};
use coracle_apimachinery::status::Status;
use coracle_apimachinery::table::{Cell, Column, Row, Table};
use coracle_store::Record;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::registry::encoding::{Shown, decode_shown, json, write_json, write_metadata};
use crate::registry::erased::Kind;
use crate::registry::errors::internal;
use crate::request::media::{MetaVersion, Shape};
use crate::request::options::Query;

/// How much of the object a row carries (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Include {
    /// Nothing.
    Nothing,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// What the query says; it is asked only for tables.
    pub(super) fn parse(query: &Query, shape: Shape) -> Result<Self, Status> {
        if !matches!(shape, Shape::Table(_)) {
            return Ok(Self::default());
        }
        match query.get("includeObject").unwrap_or_default() {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::Nothing),
            "Object" => Ok(Self::Object),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// What rows carry, and the version of their table.
pub(super) type Rows = (Include, MetaVersion);

/// One object in a shape.
pub(super) fn single(
    kind: &dyn Kind,
    shown: Shown<'_>,
    shape: Shape,
    include: Include,
) -> Result<Bytes, Status> {
    match shape {
        Shape::Whole => json(kind, shown),
        Shape::Metadata(version) => metadata(kind, shown, version),
        Shape::MetadataList(_) => Err(no_list(&kind.descriptor().kind)),
        Shape::Table(version) => one_row(kind, shown, (include, version), kind.columns()),
    }
}

/// 406: a list of metadata is wanted of one object. As upstream, it is found when all is done.
fn no_list(kind: &str) -> Status {
    Status::no_such_form(format!(
        "you requested PartialObjectMetadataList, but the requested object is not a list ({kind})"
    ))
}

/// One object as a table with these columns.
pub(super) fn one_row(
    kind: &dyn Kind,
    shown: Shown<'_>,
    rows: Rows,
    columns: Vec<Column>,
) -> Result<Bytes, Status> {
    let mut table = Table::new(columns).in_version(rows.1.api_version());
    table.metadata.resource_version = shown.version();
    table.rows.push(row(kind, shown, rows)?);
    to_bytes(&table)
}

/// Bytes of objects that are decoded before others have their turn.
const AT_A_TIME: usize = 64 * 1024;

/// A list as a table.
pub(super) async fn table(
    kind: &dyn Kind,
    records: &[Record],
    list_meta: ListMeta,
    rows: Rows,
) -> Result<Bytes, Status> {
    let mut table = Table::new(kind.columns()).in_version(rows.1.api_version());
    table.metadata = list_meta;
    let empty = to_bytes(&table)?;
    let Some(head) = empty.strip_suffix(END_OF_ROWS) else {
        return Err(Status::internal("a table does not end with its rows"));
    };
    let mut out = BytesMut::from(head);
    let mut work = 0;
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        serde_json::to_writer((&mut out).writer(), &row(kind, record.into(), rows)?)
            .map_err(|error| internal("encode a table", &error))?;
        work += record.value().json().len();
        if work >= AT_A_TIME {
            work = 0;
            tokio::task::yield_now().await;
        }
    }
    out.put_slice(END_OF_ROWS);
    Ok(out.freeze())
}

const END_OF_ROWS: &[u8] = b"]}";

fn to_bytes(table: &Table) -> Result<Bytes, Status> {
    serde_json::to_vec(table)
        .map(Bytes::from)
        .map_err(|error| internal("encode a table", &error))
}

fn row(kind: &dyn Kind, shown: Shown<'_>, (include, version): Rows) -> Result<Row, Status> {
    let object = decode_shown(kind, shown)?;
    let cells = kind.row(&*object, jiff::Timestamp::now());
    let included = match include {
        Include::Nothing => None,
        Include::Metadata => Some(metadata(kind, shown, version)?),
        Include::Object => Some(json(kind, shown)?),
    };
    row_of(cells, included)
}

/// A row with what is included of the object.
fn row_of(cells: Vec<Cell>, included: Option<Bytes>) -> Result<Row, Status> {
    let raw = included.map(|bytes| {
        let text = String::from_utf8(bytes.into()).unwrap_or_default();
        RawValue::from_string(text).map_err(|error| internal("encode a row", &error))
    });
    Ok(Row {
        cells,
        object: raw.transpose()?,
        ..Row::default()
    })
}

/// An object that is not stored, in a shape: its JSON, and the columns and cells of a table.
pub(super) fn computed(
    whole: Bytes,
    meta: &ObjectMeta,
    shape: Shape,
    include: Include,
    (columns, cells): (Vec<Column>, Vec<Cell>),
) -> Result<Bytes, Status> {
    match shape {
        Shape::Whole => Ok(whole),
        Shape::Metadata(version) => only_metadata(&whole, version),
        Shape::MetadataList(_) => Err(no_list("Scale")),
        Shape::Table(version) => {
            let mut table = Table::new(columns).in_version(version.api_version());
            table
                .metadata
                .resource_version
                .clone_from(&meta.resource_version);
            let included = match include {
                Include::Nothing => None,
                Include::Metadata => Some(only_metadata(&whole, version)?),
                Include::Object => Some(whole),
            };
            table.rows.push(row_of(cells, included)?);
            to_bytes(&table)
        }
    }
}

#[derive(Deserialize)]
struct OnlyMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// What a PartialObjectMetadata has before its version, and then before its metadata.
const PARTIAL: &[u8] = b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"";
const METADATA: &[u8] = b"\",\"metadata\":";

/// The object as PartialObjectMetadata.
fn metadata(kind: &dyn Kind, shown: Shown<'_>, version: MetaVersion) -> Result<Bytes, Status> {
    let mut out = BytesMut::new();
    write_partial(kind, shown, version, &mut out)?;
    Ok(out.freeze())
}

fn write_partial(
    kind: &dyn Kind,
    shown: Shown<'_>,
    version: MetaVersion,
    out: &mut BytesMut,
) -> Result<(), Status> {
    out.put_slice(PARTIAL);
    out.put_slice(version.api_version().as_bytes());
    out.put_slice(METADATA);
    write_metadata(kind, shown, out)?;
    out.put_u8(b'}');
    Ok(())
}

/// The same of the JSON of an object that is not stored.
fn only_metadata(whole: &[u8], version: MetaVersion) -> Result<Bytes, Status> {
    let only: OnlyMetadata<'_> = serde_json::from_slice(whole)
        .map_err(|error| internal("read an object's metadata", &error))?;
    let only = only.metadata.get().as_bytes();
    let version = version.api_version().as_bytes();
    Ok([PARTIAL, version, METADATA, only, b"}"].concat().into())
}

/// Appends an object in a shape that is not a table: an item of a list, or what an event tells of.
pub(super) fn write_item(
    kind: &dyn Kind,
    shown: Shown<'_>,
    shape: Shape,
    out: &mut BytesMut,
) -> Result<(), Status> {
    match shape {
        Shape::Metadata(version) | Shape::MetadataList(version) => {
            write_partial(kind, shown, version, out)
        }
        _ => write_json(kind, shown, out),
    }
}
