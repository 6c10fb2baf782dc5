//! Columns that every kind can use.

use coracle_apimachinery::table::{self, Cell, Column};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Name and Age: what is shown of a kind of which nothing else matters.
#[must_use]
pub fn default_columns() -> Vec<Column> {
    vec![Column::name(), Column::age()]
}

/// The row for [`default_columns`].
#[must_use]
pub fn default_row(meta: &ObjectMeta, now: jiff::Timestamp) -> Vec<Cell> {
    vec![name(meta), age(meta, now)]
}

/// Name and the moment of creation: what Kubernetes shows of kinds that it has no columns for.
#[must_use]
pub fn created_columns() -> Vec<Column> {
    let created = Column {
        kind: "date".into(),
        ..Column::text("Created At", "When the object was created.")
    };
    vec![Column::name(), created]
}

/// The row for [`created_columns`].
#[must_use]
pub fn created_row(meta: &ObjectMeta) -> Vec<Cell> {
    let created = meta.creation_timestamp.as_ref();
    vec![
        name(meta),
        Cell::from(created.map_or_else(String::new, |time| time.0.to_string())),
    ]
}

/// The cell of a Name column.
#[must_use]
pub fn name(meta: &ObjectMeta) -> Cell {
    Cell::from(meta.name.clone().unwrap_or_default())
}

/// The cell of an Age column.
#[must_use]
pub fn age(meta: &ObjectMeta, now: jiff::Timestamp) -> Cell {
    Cell::from(table::age(meta.creation_timestamp.as_ref(), now))
}
