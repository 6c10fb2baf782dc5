//! PriorityLevelConfiguration: how many requests of a level are served at once, and what becomes
//! of the others.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfiguration;

use super::super::workload::spec_and_status;
use super::{mandatory, set_where_zero};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::flow_control::{validate_conditions, validate_level};
use crate::validation::{equality, items, shown, text};

const SHARES: i32 = 30;
const QUEUES: i32 = 64;
const HAND: i32 = 8;
const QUEUE_LENGTH: i32 = 50;

pub(in super::super) struct PriorityLevelStrategy;

impl Strategy for PriorityLevelStrategy {
    type Object = PriorityLevelConfiguration;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<PriorityLevelConfiguration>()
            .subresources(&[Subresource::Status])
            .generation()
    }

    fn set_defaults(&self, object: &mut PriorityLevelConfiguration) {
        if let Some(exempt) = &mut object.spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        if let Some(limited) = &mut object.spec.limited {
            limited.nominal_concurrency_shares.get_or_insert(SHARES);
            limited.lendable_percent.get_or_insert(0);
            if let Some(queuing) = &mut limited.limit_response.queuing {
                set_where_zero(&mut queuing.queues, QUEUES);
                set_where_zero(&mut queuing.hand_size, HAND);
                set_where_zero(&mut queuing.queue_length_limit, QUEUE_LENGTH);
            }
        }
        object.status.get_or_insert_default();
    }

    spec_and_status!(PriorityLevelConfiguration, without metadata);

    fn validate(&self, object: &PriorityLevelConfiguration) -> ErrorList {
        let mut errors = ErrorList::default();
        let name = text(&object.metadata.name);
        validate_level(&object.spec, name, &mut errors);
        // What the exempt ones lend may be changed.
        if name == mandatory::CATCH_ALL {
            let fixed = mandatory::levels().into_iter();
            let mut fixed = fixed.filter(|fixed| text(&fixed.metadata.name) == name);
            if fixed.any(|fixed| !equality::semantic(&fixed.spec, &object.spec)) {
                let detail = format!("spec of '{name}' must equal the fixed value");
                errors.push(Error::invalid(
                    &Path::new("spec"),
                    shown(&object.spec),
                    detail,
                ));
            }
        }
        errors
    }

    fn validate_update(
        &self,
        new: &PriorityLevelConfiguration,
        _old: &PriorityLevelConfiguration,
    ) -> ErrorList {
        self.validate(new)
    }

    fn validate_status_update(
        &self,
        new: &PriorityLevelConfiguration,
        _old: &PriorityLevelConfiguration,
    ) -> ErrorList {
        let mut errors = ErrorList::default();
        let status = new.status.clone().unwrap_or_default();
        let conditions = items(&status.conditions).iter();
        validate_conditions(conditions.map(|c| &*c.type_), &mut errors);
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Type", "Whether the requests are limited."),
            Column::text(
                "NominalConcurrencyShares",
                "The level's share of all places.",
            ),
            Column::text("Queues", "In how many queues requests wait."),
            Column::text("HandSize", "In how many of them those of one flow."),
            Column::text("QueueLengthLimit", "How many wait in one queue."),
            Column::age(),
        ]
    }

    fn row(&self, object: &PriorityLevelConfiguration, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = &object.spec;
        let limited = spec.limited.as_ref();
        let queuing = limited.and_then(|limited| limited.limit_response.queuing.as_ref());
        let number = |number: Option<i32>| number.map_or_else(|| Cell::from("<none>"), Cell::from);
        vec![
            printing::name(&object.metadata),
            Cell::from(spec.type_.as_str()),
            number(limited.and_then(|limited| limited.nominal_concurrency_shares)),
            number(queuing.and_then(|queuing| queuing.queues)),
            number(queuing.and_then(|queuing| queuing.hand_size)),
            number(queuing.and_then(|queuing| queuing.queue_length_limit)),
            printing::age(&object.metadata, now),
        ]
    }
}
