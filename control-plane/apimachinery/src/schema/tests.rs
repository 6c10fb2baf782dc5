//! Walks the OpenAPI schemas of all types beside the table: what is a list, a map or an object in
//! one is that in the other.

use std::collections::BTreeSet;

use k8s_openapi::{Resource, api};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Map;

use super::*;

struct Walk {
    definitions: Map<String, Value>,
    seen: BTreeSet<(String, TypeId)>,
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
    fn resolve(&self, schema: &Value) -> (String, Value) {
        let reference = schema
            .get("$ref")
            .or_else(|| schema.pointer("/allOf/0/$ref"))
            .and_then(Value::as_str);
        match reference {
            Some(reference) => {
                let name = reference.rsplit('/').next().unwrap();
                (name.to_owned(), self.definitions[name].clone())
            }
            None => (String::new(), schema.clone()),
        }
    }

    /// Compares a schema with a type of the table; `at` says where it was met.
    fn value(&mut self, at: &str, schema: &Value, node: Node<'_>) {
        if node.is_untyped() {
            return;
        }
        let (name, schema) = self.resolve(schema);
        let is = |what: &str| schema.get("type").and_then(Value::as_str) == Some(what);
        let values = schema.get("additionalProperties");
        match node.shape(None) {
            Shape::List { items, list } if is("array") => {
                self.keys(at, &schema["items"], list);
                self.value(at, &schema["items"], items);
            }
            Shape::Map { values: of, .. } if values.is_some() => {
                self.value(at, values.unwrap(), of);
            }
            Shape::Struct { .. } if is("object") && values.is_none() => {
                self.object(&name, &schema, node);
            }
            // FieldsV1 and the like say nothing of what is in them.
            Shape::Scalar
                if !is("array") && schema.get("properties").is_none() && values.is_none() => {}
            shape => self.faults.push(format!(
                "{at} is in the table as {shape:?}, and in the schema as {schema}"
            )),
        }
    }

    fn keys(&mut self, at: &str, items: &Value, list: &ListType) {
        let (_, items) = self.resolve(items);
        if let ListType::Map(keys) = list {
            for key in keys {
                if items
                    .pointer(&format!("/properties/{}", key.name))
                    .is_none()
                {
                    self.faults
                        .push(format!("{at}: items have no {}", key.name));
                }
            }
        }
    }

    fn object(&mut self, name: &str, schema: &Value, node: Node<'_>) {
        // Schemas are recursive; the same pair says nothing new.
        if !self.seen.insert((name.to_owned(), node.of)) {
            return;
        }
        if node.name() != name {
            let other = node.name();
            self.faults.push(format!("{name} is described by {other}"));
        }
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        let properties = properties.unwrap_or(&empty);
        let fields: Vec<&str> = node.named_fields().map(|(field, _)| field).collect();
        assert!(fields.is_sorted(), "{name} is not sorted");
        for field in fields
            .iter()
            .filter(|field| !properties.contains_key(**field))
        {
            self.faults
                .push(format!("{name}.{field} is in the table only"));
        }
        for (property, schema) in properties {
            let field = node.field(property);
            self.value(&format!("{name}.{property}"), schema, field.node);
            let Patch {
                merge, merge_key, ..
            } = field.patch;
            let is_list = matches!(field.node.shape(None), Shape::List { .. });
            assert!(is_list || !merge, "{name}.{property} is merged and no list");
            if let Some(key) = merge_key {
                let key = Key {
                    name: key.clone(),
                    default: None,
                };
                let (_, list) = self.resolve(schema);
                self.keys(property, &list["items"], &ListType::Map(vec![key]));
            }
        }
    }
}

fn check<K: Resource + JsonSchema>() -> Vec<String> {
    let mut walk = Walk::of::<K>();
    let kind = GroupVersionKind::of::<K>();
    let Some(node) = Schema::built_in().kind(&kind) else {
        return vec![format!("{kind} is not in the table")];
    };
    let name = K::schema_name().into_owned();
    assert!(
        Schema::built_in()
            .named(&name)
            .is_some_and(|named| named.of == node.of)
    );
    let schema = walk.definitions[&name].clone();
    walk.object(&name, &schema, node);
    walk.faults
}

#[test]
fn every_list_map_and_object_of_the_api_is_in_the_table() {
    let mut faults = [
        check::<api::admissionregistration::v1::MutatingAdmissionPolicy>(),
        check::<api::admissionregistration::v1::MutatingAdmissionPolicyBinding>(),
        check::<api::admissionregistration::v1::MutatingWebhookConfiguration>(),
        check::<api::admissionregistration::v1::ValidatingAdmissionPolicy>(),
        check::<api::admissionregistration::v1::ValidatingAdmissionPolicyBinding>(),
        check::<api::admissionregistration::v1::ValidatingWebhookConfiguration>(),
        check::<api::admissionregistration::v1alpha1::MutatingAdmissionPolicy>(),
        check::<api::admissionregistration::v1alpha1::MutatingAdmissionPolicyBinding>(),
        check::<api::admissionregistration::v1beta1::MutatingAdmissionPolicy>(),
        check::<api::admissionregistration::v1beta1::MutatingAdmissionPolicyBinding>(),
        check::<api::apiserverinternal::v1alpha1::StorageVersion>(),
        check::<api::apps::v1::ControllerRevision>(),
        check::<api::apps::v1::DaemonSet>(),
        check::<api::apps::v1::Deployment>(),
        check::<api::apps::v1::ReplicaSet>(),
        check::<api::apps::v1::StatefulSet>(),
        check::<api::authentication::v1::SelfSubjectReview>(),
        check::<api::authentication::v1::TokenRequest>(),
        check::<api::authentication::v1::TokenReview>(),
        check::<api::authorization::v1::LocalSubjectAccessReview>(),
        check::<api::authorization::v1::SelfSubjectAccessReview>(),
        check::<api::authorization::v1::SelfSubjectRulesReview>(),
        check::<api::authorization::v1::SubjectAccessReview>(),
        check::<api::autoscaling::v1::HorizontalPodAutoscaler>(),
        check::<api::autoscaling::v1::Scale>(),
        check::<api::autoscaling::v2::HorizontalPodAutoscaler>(),
        check::<api::batch::v1::CronJob>(),
        check::<api::batch::v1::Job>(),
        check::<api::certificates::v1::CertificateSigningRequest>(),
        check::<api::certificates::v1::ClusterTrustBundle>(),
        check::<api::certificates::v1::PodCertificateRequest>(),
        check::<api::certificates::v1beta1::ClusterTrustBundle>(),
        check::<api::certificates::v1beta1::PodCertificateRequest>(),
        check::<api::coordination::v1::Lease>(),
        check::<api::coordination::v1alpha2::LeaseCandidate>(),
        check::<api::coordination::v1beta1::LeaseCandidate>(),
        check::<api::core::v1::Binding>(),
        check::<api::core::v1::ComponentStatus>(),
        check::<api::core::v1::ConfigMap>(),
        check::<api::core::v1::Endpoints>(),
        check::<api::core::v1::Event>(),
        check::<api::core::v1::LimitRange>(),
        check::<api::core::v1::Namespace>(),
        check::<api::core::v1::Node>(),
        check::<api::core::v1::PersistentVolume>(),
        check::<api::core::v1::PersistentVolumeClaim>(),
        check::<api::core::v1::Pod>(),
        check::<api::core::v1::PodTemplate>(),
        check::<api::core::v1::ReplicationController>(),
        check::<api::core::v1::ResourceQuota>(),
        check::<api::core::v1::Secret>(),
        check::<api::core::v1::Service>(),
        check::<api::core::v1::ServiceAccount>(),
        check::<api::discovery::v1::EndpointSlice>(),
        check::<api::events::v1::Event>(),
        check::<api::flowcontrol::v1::FlowSchema>(),
        check::<api::flowcontrol::v1::PriorityLevelConfiguration>(),
        check::<api::lifecycle::v1alpha1::Eviction>(),
        check::<api::lifecycle::v1alpha1::EvictionRequest>(),
        check::<api::networking::v1::Ingress>(),
        check::<api::networking::v1::IngressClass>(),
        check::<api::networking::v1::IPAddress>(),
        check::<api::networking::v1::NetworkPolicy>(),
        check::<api::networking::v1::ServiceCIDR>(),
        check::<api::node::v1::RuntimeClass>(),
        check::<api::policy::v1::Eviction>(),
        check::<api::policy::v1::PodDisruptionBudget>(),
        check::<api::rbac::v1::ClusterRole>(),
        check::<api::rbac::v1::ClusterRoleBinding>(),
        check::<api::rbac::v1::Role>(),
        check::<api::rbac::v1::RoleBinding>(),
        check::<api::resource::v1::DeviceClass>(),
        check::<api::resource::v1::DeviceTaintRule>(),
        check::<api::resource::v1::ResourceClaim>(),
        check::<api::resource::v1::ResourceClaimTemplate>(),
        check::<api::resource::v1::ResourceSlice>(),
        check::<api::resource::v1alpha3::DeviceTaintRule>(),
        check::<api::resource::v1alpha3::ResourcePoolStatusRequest>(),
        check::<api::resource::v1beta1::DeviceClass>(),
        check::<api::resource::v1beta1::ResourceClaim>(),
        check::<api::resource::v1beta1::ResourceClaimTemplate>(),
        check::<api::resource::v1beta1::ResourceSlice>(),
        check::<api::resource::v1beta2::DeviceClass>(),
        check::<api::resource::v1beta2::DeviceTaintRule>(),
        check::<api::resource::v1beta2::ResourceClaim>(),
        check::<api::resource::v1beta2::ResourceClaimTemplate>(),
        check::<api::resource::v1beta2::ResourceSlice>(),
        check::<api::scheduling::v1::PriorityClass>(),
        check::<api::scheduling::v1alpha3::CompositePodGroup>(),
        check::<api::scheduling::v1alpha3::PodGroup>(),
        check::<api::scheduling::v1alpha3::Workload>(),
        check::<api::scheduling::v1beta1::PodGroup>(),
        check::<api::scheduling::v1beta1::Workload>(),
        check::<api::storage::v1::CSIDriver>(),
        check::<api::storage::v1::CSINode>(),
        check::<api::storage::v1::CSIStorageCapacity>(),
        check::<api::storage::v1::StorageClass>(),
        check::<api::storage::v1::VolumeAttachment>(),
        check::<api::storage::v1::VolumeAttributesClass>(),
        check::<api::storagemigration::v1::StorageVersionMigration>(),
        check::<api::storagemigration::v1beta1::StorageVersionMigration>(),
        check::<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>(),
        check::<k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService>(),
    ]
    .concat();
    faults.sort();
    faults.dedup();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_walk_sees_what_is_missing() {
    let schema = parse::parse("core.v1.Pod v1/Pod\n metadata _\n spec .Pod\n");
    let node = schema
        .kind(&GroupVersionKind::new("", "v1", "Pod"))
        .unwrap();
    let mut walk = Walk::of::<k8s_openapi::api::core::v1::Pod>();
    let pod = walk.definitions["io.k8s.api.core.v1.Pod"].clone();
    walk.object("io.k8s.api.core.v1.Pod", &pod, node);
    let faults = walk.faults.join("\n");
    for wanted in [
        "Pod.metadata is in the table as Scalar",
        "PodSpec is described by",
        "Pod.status",
    ] {
        assert!(faults.contains(wanted), "{wanted}: {faults}");
    }
}

fn kind(group: &'static str, version: &'static str, kind: &'static str) -> Node<'static> {
    let kind = GroupVersionKind::new(group, version, kind);
    Schema::built_in().kind(&kind).unwrap()
}

#[test]
fn looks_up() {
    let containers = kind("", "v1", "Pod").field("spec").node.field("containers");
    assert!(containers.patch.merge && !containers.patch.retain_keys);
    assert_eq!(containers.patch.merge_key.as_deref(), Some("name"));
    let ports = containers.node.inner().field("ports");
    let Shape::List {
        list: ListType::Map(keys),
        ..
    } = ports.node.shape(None)
    else {
        panic!("{ports:?}");
    };
    let keys: Vec<_> = keys
        .iter()
        .map(|key| (&*key.name, key.default.clone()))
        .collect();
    assert_eq!(
        keys,
        [
            ("containerPort", Some(0.into())),
            ("protocol", Some("TCP".into()))
        ]
    );
    assert_eq!(ports.patch.merge_key.as_deref(), Some("containerPort"));
    let rollout = kind("apps", "v1", "Deployment")
        .field("spec")
        .node
        .field("strategy");
    assert!(rollout.patch.retain_keys && rollout.always);
    let claim = kind("", "v1", "PersistentVolume")
        .field("spec")
        .node
        .field("claimRef")
        .node;
    assert!(matches!(claim.shape(None), Shape::Struct { atomic: false }));
    assert_eq!(claim.name(), "io.k8s.api.core.v1.ObjectReference");
    let target = kind("", "v1", "Endpoints")
        .field("subsets")
        .node
        .inner()
        .field("addresses");
    let target = target.node.inner().field("targetRef").node;
    assert!(matches!(target.shape(None), Shape::Struct { atomic: true }));
    let unknown = GroupVersionKind::new("example.com", "v1", "Pod");
    assert!(Schema::built_in().kind(&unknown).is_none());
}
