//! Event in events.k8s.io/v1: the same objects under newer names.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::events::v1::{Event, EventSeries};

use super::EventStrategy;
use crate::registry::kinds::versions::View;
use crate::registry::strategy::{ErrorList, NameRule};
use crate::validation::{immutable, text};

/// Event as events.k8s.io has it.
pub(in crate::registry::kinds) struct EventView;

impl View for EventView {
    type Stored = EventStrategy;
    type Served = Event;

    fn stored(&self) -> &EventStrategy {
        &EventStrategy
    }

    fn to_stored(served: Event) -> core::Event {
        to_core(served)
    }

    fn from_stored(stored: core::Event) -> Event {
        from_core(stored)
    }

    fn fields(&self) -> Option<&'static [&'static str]> {
        Some(&super::VIEW_FIELDS)
    }

    fn names(&self) -> Option<NameRule> {
        Some(NameRule::DnsSubdomain)
    }

    fn validate(&self, object: &Event) -> ErrorList {
        let mut errors = ErrorList::default();
        super::validate(&to_core(object.clone()), "reportingController", &mut errors);
        validate_series(object, &mut errors);
        if object.event_time.is_none() {
            errors.push(Error::required(&Path::new("eventTime"), ""));
        }
        let kind = text(&object.type_);
        if !matches!(kind, "Normal" | "Warning") {
            errors.push(Error::invalid(
                &Path::new("type"),
                "",
                format!("has invalid value: {kind}"),
            ));
        }
        let deprecated = [
            (
                "firstTimestamp",
                object.deprecated_first_timestamp.is_some(),
            ),
            ("lastTimestamp", object.deprecated_last_timestamp.is_some()),
            ("count", object.deprecated_count.unwrap_or(0) != 0),
            (
                "source",
                object
                    .deprecated_source
                    .as_ref()
                    .is_some_and(|source| *source != Default::default()),
            ),
        ];
        for (field, set) in deprecated {
            if set {
                errors.push(Error::invalid(&Path::new(field), "", "needs to be unset"));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Event, old: &Event) -> ErrorList {
        let mut errors = ErrorList::default();
        super::validate(&to_core(new.clone()), "reportingController", &mut errors);
        if new.series != old.series {
            validate_series(new, &mut errors);
        }
        immutable(
            &new.regarding,
            &old.regarding,
            &Path::new("involvedObject"),
            &mut errors,
        );
        immutable(&new.reason, &old.reason, &Path::new("reason"), &mut errors);
        immutable(&new.note, &old.note, &Path::new("message"), &mut errors);
        immutable(&new.action, &old.action, &Path::new("action"), &mut errors);
        immutable(
            &new.related,
            &old.related,
            &Path::new("related"),
            &mut errors,
        );
        immutable(
            &new.reporting_controller,
            &old.reporting_controller,
            &Path::new("reportingController"),
            &mut errors,
        );
        immutable(
            &new.reporting_instance,
            &old.reporting_instance,
            &Path::new("reportingInstance"),
            &mut errors,
        );
        immutable(&new.type_, &old.type_, &Path::new("type"), &mut errors);
        // Not every client keeps more than microseconds.
        let micros = |event: &Event| event.event_time.as_ref().map(|t| t.0.as_microsecond());
        if micros(new) != micros(old) {
            let at = Path::new("eventTime");
            let shown = crate::validation::shown(&new.event_time);
            errors.push(Error::invalid(&at, shown, crate::validation::IMMUTABLE));
        }
        immutable(
            &new.deprecated_source,
            &old.deprecated_source,
            &Path::new("source"),
            &mut errors,
        );
        immutable(
            &new.deprecated_first_timestamp,
            &old.deprecated_first_timestamp,
            &Path::new("firstTimestamp"),
            &mut errors,
        );
        immutable(
            &new.deprecated_last_timestamp,
            &old.deprecated_last_timestamp,
            &Path::new("lastTimestamp"),
            &mut errors,
        );
        immutable(
            &new.deprecated_count,
            &old.deprecated_count,
            &Path::new("count"),
            &mut errors,
        );
        errors
    }
}

fn validate_series(object: &Event, errors: &mut ErrorList) {
    let Some(series) = &object.series else {
        return;
    };
    let at = Path::new("series");
    if series.count < 2 {
        errors.push(Error::invalid(
            &at.child("count"),
            "",
            "should be at least 2",
        ));
    }
    if series.last_observed_time.0 == jiff::Timestamp::UNIX_EPOCH {
        errors.push(Error::required(&at.child("lastObservedTime"), ""));
    }
}

/// The event as v1 has it.
pub(super) fn to_core(event: Event) -> core::Event {
    core::Event {
        metadata: event.metadata,
        involved_object: event.regarding.unwrap_or_default(),
        related: event.related,
        reason: event.reason,
        message: event.note,
        type_: event.type_,
        action: event.action,
        event_time: event.event_time,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        source: event.deprecated_source,
        first_timestamp: event.deprecated_first_timestamp,
        last_timestamp: event.deprecated_last_timestamp,
        count: event.deprecated_count,
        series: event.series.map(|series| core::EventSeries {
            count: Some(series.count),
            last_observed_time: Some(series.last_observed_time),
        }),
    }
}

/// The event as events.k8s.io/v1 has it.
pub(super) fn from_core(event: core::Event) -> Event {
    let epoch =
        k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(jiff::Timestamp::UNIX_EPOCH);
    Event {
        metadata: event.metadata,
        regarding: Some(event.involved_object).filter(|object| *object != Default::default()),
        related: event.related,
        reason: event.reason,
        note: event.message,
        type_: event.type_,
        action: event.action,
        event_time: event.event_time,
        reporting_controller: event.reporting_component,
        reporting_instance: event.reporting_instance,
        deprecated_source: event.source,
        deprecated_first_timestamp: event.first_timestamp,
        deprecated_last_timestamp: event.last_timestamp,
        deprecated_count: event.count,
        series: event.series.map(|series| EventSeries {
            count: series.count.unwrap_or(0),
            last_observed_time: series.last_observed_time.unwrap_or(epoch),
        }),
    }
}
