//! Columns that every kind can use.

use coracle_apimachinery::table::{self, Cell, Column};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Name and Age: what kinds without columns of their own show.
#[must_use]
pub fn default_columns() -> Vec<Column> {
    vec![Column::name(), Column::age()]
}

/// The row for [`default_columns`].
#[must_use]
pub fn default_row(meta: &ObjectMeta, now: jiff::Timestamp) -> Vec<Cell> {
    vec![name(meta), age(meta, now)]
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
