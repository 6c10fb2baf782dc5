//! Lists as long as a body can have them, in what kinds check themselves: `validation/large_inputs.rs`
//! has what they share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Node, NodeAddress, NodeStatus, ResourceQuota, ResourceQuotaSpec, ScopeSelector,
    ScopedResourceSelectorRequirement,
};
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::csi_node::CSINodeStrategy;
use super::node::NodeStrategy;
use super::resource_quota::ResourceQuotaStrategy;
use crate::registry::strategy::{ErrorList, Strategy};
use crate::validation::testing::{COUNT, assert_ends, many};

/// What is large, how many errors there are, and what finds them.
type Case = (&'static str, usize, fn() -> ErrorList);

#[test]
fn large_inputs_cost_what_they_are() {
    let table: [Case; 4] = [
        ("scopes", COUNT, scopes),
        ("selectors of scopes", COUNT * (COUNT + 1), scope_selectors),
        ("addresses", 0, addresses),
        ("drivers", COUNT, drivers),
    ];
    for (name, want, errors) in table {
        assert_ends(name, errors(), &(want..=want));
    }
}

fn quota(spec: ResourceQuotaSpec) -> ErrorList {
    let one = Quantity("1".to_owned());
    let hard = many(|name| (format!("hugepages-{name}"), one.clone()));
    let mut hard = BTreeMap::from_iter(hard);
    hard.insert("cpu".to_owned(), one);
    ResourceQuotaStrategy.validate(&ResourceQuota {
        spec: Some(ResourceQuotaSpec {
            hard: Some(hard),
            ..spec
        }),
        ..ResourceQuota::default()
    })
}

/// None is known, and all are shown with each.
fn scopes() -> ErrorList {
    quota(ResourceQuotaSpec {
        scopes: Some(many(|name| name)),
        ..ResourceQuotaSpec::default()
    })
}

/// None can count anything that is limited, and the selector is shown with each.
fn scope_selectors() -> ErrorList {
    let requirements = many(|_| ScopedResourceSelectorRequirement {
        scope_name: "BestEffort".to_owned(),
        operator: "Exists".to_owned(),
        values: None,
    });
    quota(ResourceQuotaSpec {
        scope_selector: Some(ScopeSelector {
            match_expressions: Some(requirements),
        }),
        ..ResourceQuotaSpec::default()
    })
}

fn addresses() -> ErrorList {
    let addresses = many(|address| NodeAddress {
        type_: "Hostname".to_owned(),
        address,
    });
    let node = Node {
        status: Some(NodeStatus {
            addresses: Some(addresses),
            ..NodeStatus::default()
        }),
        ..Node::default()
    };
    NodeStrategy.validate_update(&node, &node)
}

/// Each is another than before.
fn drivers() -> ErrorList {
    let node = |id: &str| CSINode {
        spec: CSINodeSpec {
            drivers: many(|name| CSINodeDriver {
                name,
                node_id: id.to_owned(),
                ..CSINodeDriver::default()
            }),
        },
        ..CSINode::default()
    };
    CSINodeStrategy.validate_update(&node("new"), &node("old"))
}
