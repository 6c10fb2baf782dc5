#![allow(clippy::unwrap_used)]
//! Walks the OpenAPI schemas of the served types beside the tables: what is a list in one is a
//! list in the other.

use std::collections::BTreeSet;

use k8s_openapi::Resource;
use k8s_openapi::api;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};

use super::*;

struct Walk {
    definitions: Map<String, Value>,
    seen: BTreeSet<(String, usize)>,
    faults: Vec<String>,
}

impl Walk {
    fn of<K: JsonSchema>() -> Self {
        let settings =
            SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = false);
        let mut generator = settings.into_generator();
        let root = generator.subschema_for::<K>();
        assert!(root.get("$ref").is_some());
        let definitions = generator.take_definitions(true);
        Self {
            definitions: definitions.into_iter().collect(),
            seen: BTreeSet::new(),
            faults: Vec::new(),
        }
    }

    /// The schema that a reference stands for, with its name.
    fn resolve<'a>(&'a self, schema: &'a Value) -> (String, &'a Value) {
        let reference = schema
            .get("$ref")
            .or_else(|| schema.pointer("/allOf/0/$ref"))
            .and_then(Value::as_str);
        match reference {
            Some(reference) => {
                let name = reference.rsplit('/').next().unwrap();
                (name.to_owned(), &self.definitions[name])
            }
            None => (String::new(), schema),
        }
    }

    fn walk(&mut self, name: &str, schema: &Value, table: &'static Struct) {
        // JSONSchemaProps and the like would recurse; the same pair says nothing new.
        if !self
            .seen
            .insert((name.to_owned(), std::ptr::from_ref(table) as usize))
        {
            return;
        }
        if !table.name.is_empty() && table.name != name {
            self.faults.push(format!(
                "{name} is described by the table of {}",
                table.name
            ));
        }
        if !table.fields.iter().map(|(field, _)| field).is_sorted() {
            self.faults.push(format!("{name}: the table is not sorted"));
        }
        let empty = Map::new();
        let properties = schema
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&empty)
            .clone();
        for (field, _) in table
            .fields
            .iter()
            .filter(|(field, _)| !properties.contains_key(*field))
        {
            self.faults
                .push(format!("{name}.{field} is in the table only"));
        }
        for (property, schema) in &properties {
            let field = table.field(property);
            let (type_name, schema) = {
                let (type_name, schema) = self.resolve(schema);
                (type_name, schema.clone())
            };
            let is_list = schema.get("type").and_then(Value::as_str) == Some("array");
            if is_list != field.list.is_some() {
                self.faults.push(format!(
                    "{name}.{property}: list in the schema: {is_list}, in the table: {:?}",
                    field.list
                ));
            }
            if let Some(values) = schema.get("additionalProperties") {
                let (_, values) = self.resolve(values);
                if values.get("type").and_then(Value::as_str) == Some("array") {
                    self.faults.push(format!(
                        "{name}.{property} is a map of lists, which no table can describe"
                    ));
                }
            }
            let (item_name, item) = match schema.get("items") {
                Some(items) => {
                    let (item_name, item) = self.resolve(items);
                    (item_name, item.clone())
                }
                None => (type_name, schema),
            };
            let keys: Vec<&str> = match (field.list, field.strategy) {
                (Some(ListType::Map(keys)), _) => keys.to_vec(),
                (_, Strategy::Merge(key)) => key.into_iter().collect(),
                _ => Vec::new(),
            };
            for key in keys {
                if item.pointer(&format!("/properties/{key}")).is_none() {
                    self.faults
                        .push(format!("{name}.{property}: items have no {key}"));
                }
            }
            self.walk(&item_name, &item, field.inner);
        }
    }
}

fn check<K: Resource + JsonSchema>() -> Vec<String> {
    let mut walk = Walk::of::<K>();
    let name = K::schema_name().into_owned();
    let schema = walk.definitions[&name].clone();
    walk.walk(
        &name,
        &schema,
        Struct::of(&GroupVersionKind::of::<K>()).unwrap(),
    );
    walk.faults
}

#[test]
fn every_list_of_the_served_types_is_in_the_tables() {
    let faults: Vec<String> = [
        check::<api::core::v1::Namespace>(),
        check::<api::core::v1::Node>(),
        check::<api::core::v1::Pod>(),
        check::<api::core::v1::Service>(),
        check::<api::core::v1::Endpoints>(),
        check::<api::core::v1::ConfigMap>(),
        check::<api::core::v1::Secret>(),
        check::<api::core::v1::ServiceAccount>(),
        check::<api::core::v1::Event>(),
        check::<api::apps::v1::Deployment>(),
        check::<api::apps::v1::ReplicaSet>(),
        check::<api::autoscaling::v1::Scale>(),
        check::<api::coordination::v1::Lease>(),
        check::<api::discovery::v1::EndpointSlice>(),
        check::<api::events::v1::Event>(),
        check::<api::node::v1::RuntimeClass>(),
        check::<api::scheduling::v1::PriorityClass>(),
        check::<api::core::v1::ReplicationController>(),
        check::<api::core::v1::PodTemplate>(),
        check::<api::apps::v1::StatefulSet>(),
        check::<api::apps::v1::DaemonSet>(),
        check::<api::apps::v1::ControllerRevision>(),
        check::<api::batch::v1::Job>(),
        check::<api::batch::v1::CronJob>(),
        check::<api::core::v1::ComponentStatus>(),
        check::<api::core::v1::LimitRange>(),
        check::<api::core::v1::ResourceQuota>(),
        check::<api::policy::v1::PodDisruptionBudget>(),
        check::<api::autoscaling::v1::HorizontalPodAutoscaler>(),
        check::<api::autoscaling::v2::HorizontalPodAutoscaler>(),
        check::<api::core::v1::PersistentVolume>(),
        check::<api::core::v1::PersistentVolumeClaim>(),
        check::<api::storage::v1::StorageClass>(),
        check::<api::storage::v1::VolumeAttachment>(),
        check::<api::storage::v1::CSIDriver>(),
        check::<api::storage::v1::CSINode>(),
        check::<api::storage::v1::CSIStorageCapacity>(),
        check::<api::storage::v1::VolumeAttributesClass>(),
        check::<api::networking::v1::Ingress>(),
        check::<api::networking::v1::IngressClass>(),
        check::<api::networking::v1::NetworkPolicy>(),
        check::<api::networking::v1::ServiceCIDR>(),
        check::<api::networking::v1::IPAddress>(),
    ]
    .concat();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_walk_sees_what_is_missing() {
    let mut walk = Walk::of::<api::core::v1::Pod>();
    let schema = walk.definitions["io.k8s.api.core.v1.Pod"].clone();
    walk.walk("io.k8s.api.core.v1.Pod", &schema, &LEAF);
    assert!(
        walk.faults
            .iter()
            .any(|fault| fault.contains("PodSpec.containers: list in the schema: true"))
    );
}

#[test]
fn looks_up() {
    let pod = Struct::of(&GroupVersionKind::new("", "v1", "Pod")).unwrap();
    let containers = pod.field("spec").inner.field("containers");
    assert_eq!(containers.strategy, Strategy::Merge(Some("name")));
    let ports = containers.inner.field("ports");
    assert_eq!(
        ports.list,
        Some(ListType::Map(&["containerPort", "protocol"]))
    );
    assert_eq!(ports.strategy, Strategy::Merge(Some("containerPort")));
    let deployment = Struct::of(&GroupVersionKind::new("apps", "v1", "Deployment")).unwrap();
    assert!(deployment.field("spec").inner.field("strategy").retain_keys);
    assert!(Struct::of(&GroupVersionKind::new("example.com", "v1", "Pod")).is_none());
}
