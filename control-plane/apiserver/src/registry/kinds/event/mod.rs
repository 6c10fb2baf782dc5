//! Event: something that happened to an object, for people to read. It is served in v1 and in
//! events.k8s.io/v1; the store has it in v1, and the other is a view of that.

mod core_v1;
mod events_v1;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use coracle_apimachinery::table;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::registry::strategy::{Cell, Column};
use crate::validation::{faults, text};

pub(super) use core_v1::EventStrategy;
pub(super) use events_v1::EventView;

/// Longest reason, action and reporting instance.
const MAX_WORD: usize = 128;
/// Longest message.
const MAX_NOTE: usize = 1024;

/// What is checked of an Event of either version, in the terms of v1. `controller` is what the
/// version calls the reporting component.
fn validate(event: &Event, controller: &str, errors: &mut ErrorList) {
    if event.event_time.is_some() {
        validate_modern(event, controller, errors);
    }
    let namespace = text(&event.metadata.namespace);
    let involved = text(&event.involved_object.namespace);
    // Events about objects of the cluster are in the default namespace.
    let matches = match involved {
        "" => matches!(namespace, "" | "default"),
        involved => involved == namespace,
    };
    if !matches {
        let at = Path::new("involvedObject").child("namespace");
        errors.push(Error::invalid(
            &at,
            involved,
            "does not match event.namespace",
        ));
    }
}

fn validate_modern(event: &Event, controller: &str, errors: &mut ErrorList) {
    let reporting = text(&event.reporting_component);
    if reporting.is_empty() {
        errors.push(Error::required(&Path::new(controller), ""));
    } else {
        faults(
            reporting,
            names::qualified_name(reporting),
            &Path::new(controller),
            errors,
        );
    }
    let words = [
        ("reportingInstance", text(&event.reporting_instance)),
        ("action", text(&event.action)),
        ("reason", text(&event.reason)),
    ];
    for (field, word) in words {
        if word.is_empty() {
            errors.push(Error::required(&Path::new(field), ""));
        }
        if word.len() > MAX_WORD {
            let detail = format!("can have at most {MAX_WORD} characters");
            errors.push(Error::invalid(&Path::new(field), "", detail));
        }
    }
    if text(&event.message).len() > MAX_NOTE {
        let detail = format!("can have at most {MAX_NOTE} characters");
        errors.push(Error::invalid(&Path::new("message"), "", detail));
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::text(
            "Last Seen",
            "The time at which the most recent occurrence was recorded.",
        ),
        Column::text(
            "Type",
            "Type of this event (Normal, Warning), new types could be added in the future.",
        ),
        Column::text(
            "Reason",
            "A short, machine understandable string that gives the reason.",
        ),
        Column::text("Object", "The object that this event is about."),
        Column::text(
            "Subobject",
            "The part of the object that this event is about.",
        )
        .wide(),
        Column::text("Source", "The component reporting this event.").wide(),
        Column::text(
            "Message",
            "A human-readable description of the status of this operation.",
        ),
        Column::text(
            "First Seen",
            "The time at which the event was first recorded.",
        )
        .wide(),
        Column::text("Count", "The number of times this event has occurred.").wide(),
        Column {
            priority: 1,
            ..Column::name()
        },
    ]
}

fn row(event: &Event, now: jiff::Timestamp) -> Vec<Cell> {
    let happened = event.event_time.as_ref().map(|time| Time(time.0));
    let first = event.first_timestamp.clone().or(happened);
    let mut last = event.last_timestamp.clone().or_else(|| first.clone());
    let mut count = event.count.unwrap_or(0);
    if let Some(series) = &event.series {
        last = series.last_observed_time.as_ref().map(|time| Time(time.0));
        count = series.count.unwrap_or(0);
    }
    let kind = text(&event.involved_object.kind).to_lowercase();
    let object = match text(&event.involved_object.name) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        Cell::from(table::age(last.as_ref(), now)),
        Cell::from(text(&event.type_)),
        Cell::from(text(&event.reason)),
        Cell::from(object),
        Cell::from(text(&event.involved_object.field_path)),
        Cell::from(source(event)),
        Cell::from(text(&event.message).trim()),
        Cell::from(table::age(first.as_ref(), now)),
        // An event that is not counted has happened.
        Cell::from(count.max(1)),
        crate::registry::printing::name(&event.metadata),
    ]
}

/// `kubelet, node-1`: the component, and where it runs.
fn source(event: &Event) -> String {
    let source = event.source.as_ref();
    let part = |old: Option<&Option<String>>, new: &Option<String>| {
        let old = old.map_or("", text);
        if old.is_empty() {
            text(new).to_owned()
        } else {
            old.to_owned()
        }
    };
    let component = part(
        source.map(|source| &source.component),
        &event.reporting_component,
    );
    let host = part(source.map(|source| &source.host), &event.reporting_instance);
    if host.is_empty() {
        component
    } else {
        format!("{component}, {host}")
    }
}

/// Fields that are selectable in v1.
const FIELDS: [&str; 11] = [
    "involvedObject.apiVersion",
    "involvedObject.fieldPath",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.resourceVersion",
    "involvedObject.uid",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

/// Fields that are selectable in events.k8s.io/v1.
const VIEW_FIELDS: [&str; 10] = [
    "reason",
    "regarding.apiVersion",
    "regarding.fieldPath",
    "regarding.kind",
    "regarding.name",
    "regarding.namespace",
    "regarding.resourceVersion",
    "regarding.uid",
    "reportingController",
    "type",
];

/// The selectable fields of both versions: an Event that is written in one is selected in the
/// other, too.
fn selectable_fields(event: &Event) -> Vec<(&'static str, String)> {
    let object = &event.involved_object;
    let reporting = text(&event.reporting_component);
    let component = event
        .source
        .as_ref()
        .map_or("", |source| text(&source.component));
    let values = [
        (
            "involvedObject.apiVersion",
            "regarding.apiVersion",
            text(&object.api_version),
        ),
        (
            "involvedObject.fieldPath",
            "regarding.fieldPath",
            text(&object.field_path),
        ),
        ("involvedObject.kind", "regarding.kind", text(&object.kind)),
        ("involvedObject.name", "regarding.name", text(&object.name)),
        (
            "involvedObject.namespace",
            "regarding.namespace",
            text(&object.namespace),
        ),
        (
            "involvedObject.resourceVersion",
            "regarding.resourceVersion",
            text(&object.resource_version),
        ),
        ("involvedObject.uid", "regarding.uid", text(&object.uid)),
        ("reportingComponent", "reportingController", reporting),
    ];
    let both = [
        ("reason", text(&event.reason)),
        (
            "source",
            if component.is_empty() {
                reporting
            } else {
                component
            },
        ),
        ("type", text(&event.type_)),
    ];
    let renamed = values
        .into_iter()
        .flat_map(|(old, new, value)| [(old, value), (new, value)]);
    renamed
        .chain(both)
        .map(|(field, value)| (field, value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
