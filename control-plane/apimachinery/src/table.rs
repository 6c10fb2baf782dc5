//! Tables: objects as rows of cells, which is how `kubectl get` shows them
//! (`application/json;as=Table;v=v1;g=meta.k8s.io`), and ages as people read them.
//!
//! Which columns a kind has is the business of its strategy in the registry.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Time};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// A list of objects as rows. It serializes as `meta.k8s.io/v1` Table, or of another version.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    kind: &'static str,
    api_version: &'static str,
    /// Resource version, continue token and remaining count, as of a list.
    pub metadata: ListMeta,
    /// The columns. In a watch only the first table carries them; null stands for them in others.
    #[serde(serialize_with = "or_null")]
    pub column_definitions: Cow<'static, [Column]>,
    /// A row for each object.
    pub rows: Vec<Row>,
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new(columns: impl Into<Cow<'static, [Column]>>) -> Self {
        Self {
            kind: "Table",
            api_version: "meta.k8s.io/v1",
            metadata: ListMeta::default(),
            column_definitions: columns.into(),
            rows: Vec::new(),
        }
    }

    /// The table in another group-version, in which it is the same.
    #[must_use]
    pub fn in_version(self, api_version: &'static str) -> Self {
        Self {
            api_version,
            ..self
        }
    }
}

fn or_null<S: Serializer>(columns: &[Column], serializer: S) -> Result<S::Ok, S::Error> {
    let columns = Some(columns).filter(|columns| !columns.is_empty());
    columns.serialize(serializer)
}

/// The definition of a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The heading, in words: `Restart Policy`.
    pub name: Cow<'static, str>,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// `name` for the column that holds the name of the object; else as in OpenAPI.
    pub format: Cow<'static, str>,
    /// What the column shows.
    pub description: Cow<'static, str>,
    /// 0: always shown; above: only by `-o wide`.
    pub priority: i32,
}

impl Column {
    /// A column of text.
    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "string", "", description)
    }

    /// A column of integers.
    pub const fn integer(name: &'static str, description: &'static str) -> Self {
        Self::new(name, "integer", "", description)
    }

    /// The column of the object's name.
    pub const fn name() -> Self {
        Self::new(
            "Name",
            "string",
            "name",
            "Name must be unique within a namespace.",
        )
    }

    /// The column of the object's age.
    pub const fn age() -> Self {
        Self::text("Age", "The time since the object was created.")
    }

    /// The same, shown only by `-o wide`.
    #[must_use]
    pub const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }

    const fn new(
        name: &'static str,
        kind: &'static str,
        format: &'static str,
        description: &'static str,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            kind: Cow::Borrowed(kind),
            format: Cow::Borrowed(format),
            description: Cow::Borrowed(description),
            priority: 0,
        }
    }
}

/// What stands in one column of one row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Any other JSON, as columns of custom resources yield it.
    Json(serde_json::Value),
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<i32> for Cell {
    fn from(number: i32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// One object: a cell for each column, and as much of the object as was asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// In the order of the columns.
    pub cells: Vec<Cell>,
    /// Says for instance that a Pod has completed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<RowCondition>,
    /// The object, or its metadata as PartialObjectMetadata, or nothing (`includeObject`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<Box<RawValue>>,
}

/// A remark on a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowCondition {
    /// `Completed`: the object has run to its end.
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    /// `True`, as a rule.
    pub status: Cow<'static, str>,
    /// Why, in one word.
    pub reason: Cow<'static, str>,
    /// Why, in a sentence.
    pub message: Cow<'static, str>,
}

/// How long ago something was, as kubectl prints it; `<unknown>` where it is not known.
pub fn age(since: Option<&Time>, now: Timestamp) -> String {
    since.map_or_else(
        || "<unknown>".to_owned(),
        |since| human_duration(now.duration_since(since.0)),
    )
}

/// A duration in at most two units, coarser the longer it is: `119s`, `9m59s`, `7h`, `2d3h`.
/// A clock that is ahead by less than two seconds is forgiven.
pub fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, large_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    };
    match () {
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 2 * 60 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 3 * 60 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 2 * 365 => format!("{days}d"),
        () if days < 8 * 365 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn durations() {
        let (m, h, d) = (60, 3600, 86_400);
        let table = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (10 * m - 1, "9m59s"),
            (10 * m, "10m"),
            (3 * h - 1, "179m"),
            (3 * h, "3h"),
            (3 * h + 59 * m, "3h59m"),
            (8 * h, "8h"),
            (48 * h - 1, "47h"),
            (48 * h, "2d"),
            (49 * h, "2d1h"),
            (8 * d, "8d"),
            (2 * 365 * d - 1, "729d"),
            (2 * 365 * d, "2y"),
            (2 * 365 * d + 3 * d, "2y3d"),
            (8 * 365 * d, "8y"),
        ];
        for (seconds, want) in table {
            assert_eq!(
                human_duration(SignedDuration::from_secs(seconds)),
                want,
                "{seconds}"
            );
        }
        assert_eq!(human_duration(SignedDuration::from_millis(-1500)), "0s");
        assert_eq!(age(None, Timestamp::UNIX_EPOCH), "<unknown>");
        assert_eq!(
            age(
                Some(&Time(Timestamp::UNIX_EPOCH)),
                Timestamp::from_second(61).unwrap()
            ),
            "61s"
        );
    }

    #[test]
    fn serializes() {
        const COLUMNS: &[Column] = &[Column::name(), Column::integer("Count", "How many.").wide()];
        let mut table = Table::new(COLUMNS);
        table.metadata.resource_version = Some("7".into());
        table.rows.push(Row {
            cells: vec!["a".into(), 3.into()],
            ..Row::default()
        });
        assert_eq!(
            serde_json::to_value(&table).unwrap(),
            json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": "7"},
                "columnDefinitions": [
                    {"name": "Name", "type": "string", "format": "name", "description": "Name must be unique within a namespace.", "priority": 0},
                    {"name": "Count", "type": "integer", "format": "", "description": "How many.", "priority": 1},
                ],
                "rows": [{"cells": ["a", 3]}],
            })
        );
    }
}
