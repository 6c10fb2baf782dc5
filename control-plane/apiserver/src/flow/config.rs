//! The objects of flowcontrol.apiserver.k8s.io as what the queues work with: schemas in the order
//! in which they are tried, and the seats of each priority level.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
};

use super::classify::matches;
use crate::auth::UserInfo;
use crate::registry::kinds::flow_control;
use crate::request::info::RequestInfo;
use crate::validation::text;

/// Seats that one request takes at most, and what part of its level's.
const MAX_SEATS: usize = 100;
const MAX_SEATS_PART: f64 = 0.15;

/// What becomes of requests for which a level has no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// There is always a seat.
    Exempt,
    /// They are refused.
    Reject,
    /// They wait.
    Queue(Queuing),
}

/// The queues of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queuing {
    pub(super) queues: usize,
    /// Queues of one flow.
    pub(super) hand: usize,
    /// Requests in one queue.
    pub(super) length: usize,
}

/// A priority level.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Level {
    pub(super) uid: String,
    pub(super) shape: Shape,
    /// The seats that are its by its shares.
    pub(super) nominal: usize,
    /// Those of them that it never lends.
    pub(super) min: usize,
    /// Those that it has when it borrows all that it may.
    pub(super) max: usize,
    /// The widest request.
    pub(super) widest: usize,
}

/// A flow schema whose priority level exists.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) name: Arc<str>,
    pub(super) uid: String,
    pub(super) level: Arc<str>,
    pub(super) spec: FlowSchemaSpec,
}

/// What is configured.
#[derive(Debug)]
pub(super) struct Configuration {
    /// In the order in which they are tried.
    pub(super) schemas: Vec<Arc<Schema>>,
    pub(super) levels: BTreeMap<Arc<str>, Level>,
}

impl Configuration {
    /// Of these objects, for a server with so many seats. What is mandatory is there even if its
    /// object is not.
    pub(super) fn new(
        mut schemas: Vec<FlowSchema>,
        mut levels: Vec<PriorityLevelConfiguration>,
        seats: usize,
    ) -> Self {
        for level in flow_control::levels() {
            let there =
                |other: &PriorityLevelConfiguration| other.metadata.name == level.metadata.name;
            if !levels.iter().any(there) {
                levels.push(level);
            }
        }
        for schema in flow_control::schemas() {
            let there = |other: &FlowSchema| other.metadata.name == schema.metadata.name;
            if !schemas.iter().any(there) {
                schemas.push(schema);
            }
        }
        let all: f64 = levels.iter().map(|level| shares(&level.spec)).sum();
        let levels: BTreeMap<Arc<str>, Level> = levels
            .iter()
            .map(|level| (text(&level.metadata.name).into(), digest(level, all, seats)))
            .collect();
        schemas.sort_by_cached_key(|schema| {
            let precedence = schema.spec.matching_precedence.unwrap_or(i32::MAX);
            (precedence, schema.metadata.name.clone())
        });
        let schemas = schemas.into_iter().filter_map(|schema| {
            let level = schema.spec.priority_level_configuration.name.as_str();
            let (level, _) = levels.get_key_value(level)?;
            Some(Arc::new(Schema {
                name: text(&schema.metadata.name).into(),
                uid: schema.metadata.uid.unwrap_or_default(),
                level: level.clone(),
                spec: schema.spec,
            }))
        });
        Self {
            schemas: schemas.collect(),
            levels,
        }
    }

    /// The schema of a request: the first that matches. The mandatory ones match everybody who is
    /// known and everybody who is not; a user without either group is of the last one as well.
    pub(super) fn classify(&self, user: &UserInfo, info: &RequestInfo) -> Option<&Arc<Schema>> {
        let mut schemas = self.schemas.iter();
        schemas
            .find(|schema| matches(&schema.spec, user, info))
            .or(self.schemas.last())
    }
}

fn shares(spec: &PriorityLevelConfigurationSpec) -> f64 {
    let exempt = spec
        .exempt
        .as_ref()
        .and_then(|e| e.nominal_concurrency_shares);
    let limited = spec
        .limited
        .as_ref()
        .and_then(|l| l.nominal_concurrency_shares);
    f64::from(limited.or(exempt).unwrap_or(0))
}

fn digest(level: &PriorityLevelConfiguration, all: f64, seats: usize) -> Level {
    let spec = &level.spec;
    let of = |count: f64| count.clamp(0.0, f64::from(u32::MAX)) as usize;
    let nominal = if all > 0.0 {
        of((seats as f64 * shares(spec) / all).ceil())
    } else {
        0
    };
    let percent = |percent: Option<i32>| {
        percent.map(|percent| of((nominal as f64 * f64::from(percent) / 100.0).round()))
    };
    let (exempt, limited) = (spec.exempt.as_ref(), spec.limited.as_ref());
    let lendable = limited.map_or_else(
        || exempt.and_then(|e| e.lendable_percent),
        |l| l.lendable_percent,
    );
    let borrowing = limited.and_then(|l| l.borrowing_limit_percent);
    let queuing = limited.and_then(|l| l.limit_response.queuing.as_ref());
    let at_least_one = |n: Option<i32>| usize::try_from(n.unwrap_or(1)).unwrap_or(1).max(1);
    let shape = match (limited, queuing) {
        (None, _) => Shape::Exempt,
        (Some(_), None) => Shape::Reject,
        (Some(_), Some(queuing)) => Shape::Queue(Queuing {
            queues: at_least_one(queuing.queues),
            hand: at_least_one(queuing.hand_size),
            length: at_least_one(queuing.queue_length_limit),
        }),
    };
    let widest = match shape {
        // With queues, a request that takes all seats would have to wait for all others.
        Shape::Queue(queuing) => of((nominal as f64 * MAX_SEATS_PART).ceil())
            .min(nominal / queuing.hand)
            .clamp(1, MAX_SEATS),
        _ => MAX_SEATS,
    };
    Level {
        uid: level.metadata.uid.clone().unwrap_or_default(),
        shape,
        nominal,
        min: nominal.saturating_sub(percent(lendable).unwrap_or(0)),
        max: nominal + percent(borrowing).unwrap_or(seats),
        widest,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::request::info::request_info;

    fn level(name: &str, limited: &Value) -> PriorityLevelConfiguration {
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": format!("uid-{name}")},
            "spec": {"type": "Limited", "limited": limited},
        }))
        .unwrap()
    }

    fn schema(name: &str, precedence: i32, level: &str) -> FlowSchema {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "matchingPrecedence": precedence,
                "priorityLevelConfiguration": {"name": level},
                "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": "jane"}}],
                    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
                }],
            },
        }))
        .unwrap()
    }

    #[test]
    fn seats_are_shared_lent_and_borrowed() {
        let queue = json!({"type": "Queue", "queuing": {"queues": 64, "handSize": 6, "queueLengthLimit": 50}});
        let levels = vec![
            level(
                "a",
                &json!({"nominalConcurrencyShares": 35, "lendablePercent": 33, "limitResponse": queue}),
            ),
            level(
                "b",
                &json!({"nominalConcurrencyShares": 60, "borrowingLimitPercent": 50, "limitResponse": {"type": "Reject"}}),
            ),
        ];
        // The mandatory catch-all has five shares: one hundred in all.
        let configuration = Configuration::new(Vec::new(), levels, 600);
        let of = |name: &str| {
            let level = &configuration.levels[name];
            (level.nominal, level.min, level.max, level.widest)
        };
        assert_eq!(of("a"), (210, 141, 810, 32));
        assert_eq!(of("b"), (360, 360, 540, 100));
        assert_eq!(of("catch-all"), (30, 30, 630, 100));
        assert_eq!(of("exempt"), (0, 0, 600, 100));
        assert_eq!(configuration.levels["exempt"].shape, Shape::Exempt);
        // A request of a small level cannot take more than its part.
        let levels = vec![level(
            "a",
            &json!({"nominalConcurrencyShares": 95, "limitResponse": queue}),
        )];
        assert_eq!(
            Configuration::new(Vec::new(), levels, 20).levels["a"].widest,
            3
        );
    }

    #[test]
    fn the_first_schema_that_matches_counts_and_those_that_dangle_do_not() {
        let reject = json!({"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}});
        let configuration = Configuration::new(
            vec![
                schema("late", 700, "a"),
                schema("dangling", 300, "none"),
                schema("b", 500, "a"),
                schema("a", 500, "a"),
            ],
            vec![level("a", &reject)],
            100,
        );
        let names: Vec<_> = configuration
            .schemas
            .iter()
            .map(|schema| &*schema.name)
            .collect();
        assert_eq!(names, ["exempt", "a", "b", "late", "catch-all"]);
        let info = request_info(&Method::GET, "/api/v1/namespaces/x/pods", false);
        let of = |name: &str, groups: &[&str]| {
            let user = UserInfo::new(name, groups);
            configuration
                .classify(&user, &info)
                .unwrap()
                .name
                .to_string()
        };
        assert_eq!(of("jane", &["system:authenticated"]), "a");
        assert_eq!(of("jane", &["system:masters"]), "exempt");
        assert_eq!(of("joe", &["system:authenticated"]), "catch-all");
        assert_eq!(of("joe", &[]), "catch-all");
    }
}
