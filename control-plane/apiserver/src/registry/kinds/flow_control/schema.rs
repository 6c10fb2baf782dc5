//! FlowSchema: which requests are of a flow, and of which level it is.

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::flowcontrol::v1::FlowSchema;

use super::super::workload::spec_and_status;
use super::{mandatory, set_where_zero};
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::flow_control::{validate_conditions, validate_flow_schema};
use crate::validation::{equality, items, shown, text};

const PRECEDENCE: i32 = 1000;

pub(in super::super) struct FlowSchemaStrategy;

impl Strategy for FlowSchemaStrategy {
    type Object = FlowSchema;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<FlowSchema>()
            .subresources(&[Subresource::Status])
            .generation()
    }

    fn set_defaults(&self, object: &mut FlowSchema) {
        set_where_zero(&mut object.spec.matching_precedence, PRECEDENCE);
        object.status.get_or_insert_default();
    }

    spec_and_status!(FlowSchema, without metadata);

    fn validate(&self, object: &FlowSchema) -> ErrorList {
        let mut errors = ErrorList::default();
        let name = text(&object.metadata.name);
        validate_flow_schema(&object.spec, name, &mut errors);
        let fixed = mandatory::schemas().into_iter();
        let mut fixed = fixed.filter(|fixed| text(&fixed.metadata.name) == name);
        if fixed.any(|fixed| !equality::semantic(&fixed.spec, &object.spec)) {
            let detail = format!("spec of '{name}' must equal the fixed value");
            errors.push(Error::invalid(
                &Path::new("spec"),
                shown(&object.spec),
                detail,
            ));
        }
        errors
    }

    fn validate_update(&self, new: &FlowSchema, _old: &FlowSchema) -> ErrorList {
        self.validate(new)
    }

    fn validate_status_update(&self, new: &FlowSchema, _old: &FlowSchema) -> ErrorList {
        let mut errors = ErrorList::default();
        let status = new.status.clone().unwrap_or_default();
        let conditions = items(&status.conditions).iter();
        validate_conditions(conditions.map(|c| &*c.type_), &mut errors);
        errors
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("PriorityLevel", "The level of the requests."),
            Column::text(
                "MatchingPrecedence",
                "The order in which schemas are tried.",
            ),
            Column::text("DistinguisherMethod", "What makes flows of the requests."),
            Column::age(),
            Column::text("MissingPL", "Whether the level does not exist."),
        ]
    }

    fn row(&self, object: &FlowSchema, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = &object.spec;
        let method = spec.distinguisher_method.as_ref();
        let status = object.status.clone().unwrap_or_default();
        let dangling = items(&status.conditions)
            .iter()
            .find(|condition| condition.type_ == "Dangling");
        vec![
            printing::name(&object.metadata),
            Cell::from(spec.priority_level_configuration.name.as_str()),
            Cell::from(spec.matching_precedence.unwrap_or_default()),
            Cell::from(method.map_or("<none>", |method| method.type_.as_str())),
            printing::age(&object.metadata, now),
            Cell::from(dangling.map_or("?", |condition| text(&condition.status))),
        ]
    }
}
