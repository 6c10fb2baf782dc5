//! Ingress: HTTP from outside to Services, by host and path.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, Path};
use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerStatus};

use super::first_and_more;
use super::workload::spec_and_status;
use crate::registry::printing;
use crate::registry::strategy::{Cell, Column, Descriptor, ErrorList, Strategy, Subresource};
use crate::validation::ingress::{validate_ingress_spec, validate_ingress_status};
use crate::validation::{items, text};

/// Where the class stood before it had a field.
pub(crate) const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Hosts that a row shows.
const SHOWN: usize = 3;

pub(super) struct IngressStrategy;

impl Strategy for IngressStrategy {
    type Object = Ingress;

    fn descriptor(&self) -> Descriptor {
        Descriptor::of::<Ingress>()
            .short_names(&["ing"])
            .subresources(&[Subresource::Status])
            .generation()
    }

    fn set_defaults(&self, object: &mut Ingress) {
        object.spec.get_or_insert_default();
        let status = object.status.get_or_insert_default();
        status.load_balancer.get_or_insert_default();
    }

    spec_and_status!(Ingress);

    fn validate(&self, object: &Ingress) -> ErrorList {
        let mut errors = self.validate_update(object, object);
        let annotations = object.metadata.annotations.as_ref();
        let annotated = annotations.and_then(|all| all.get(CLASS_ANNOTATION));
        let class = object
            .spec
            .as_ref()
            .and_then(|spec| spec.ingress_class_name.as_ref());
        if let (Some(annotated), Some(class)) = (annotated, class)
            && annotated != class
        {
            let at = Path::new("annotations").child(CLASS_ANNOTATION);
            let detail = "must match `ingressClassName` when both are specified";
            errors.push(Error::invalid(&at, annotated.as_str(), detail));
        }
        errors
    }

    fn validate_update(&self, new: &Ingress, _old: &Ingress) -> ErrorList {
        let mut errors = ErrorList::default();
        if let Some(spec) = &new.spec {
            validate_ingress_spec(spec, &Path::new("spec"), &mut errors);
        }
        errors
    }

    fn validate_status_update(&self, new: &Ingress, old: &Ingress) -> ErrorList {
        let mut errors = ErrorList::default();
        if let Some(balancer) = balancer(new) {
            let at = Path::new("status").child("loadBalancer");
            validate_ingress_status(balancer, self::balancer(old), &at, &mut errors);
        }
        errors
    }

    fn warnings(&self, object: &Ingress) -> Vec<String> {
        let annotations = object.metadata.annotations.as_ref();
        let annotated = annotations.is_some_and(|all| all.contains_key(CLASS_ANNOTATION));
        let spec = object.spec.as_ref();
        let old = annotated && spec.is_none_or(|spec| spec.ingress_class_name.is_none());
        let text = "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead";
        old.then(|| text.to_owned()).into_iter().collect()
    }

    fn warnings_on_update(&self, _new: &Ingress, _old: &Ingress) -> Vec<String> {
        Vec::new()
    }

    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::text("Class", "The class of the controller."),
            Column::text("Hosts", "The hosts that are routed."),
            Column::text("Address", "Where it can be reached."),
            Column::text("Ports", "The ports that are served."),
            Column::age(),
        ]
    }

    fn row(&self, object: &Ingress, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = object.spec.clone().unwrap_or_default();
        let hosts: Vec<String> = items(&spec.rules)
            .iter()
            .filter_map(|rule| rule.host.clone().filter(|host| !host.is_empty()))
            .collect();
        let hosts = if hosts.is_empty() {
            "*".to_owned()
        } else {
            first_and_more(&hosts, SHOWN)
        };
        let ports = if items(&spec.tls).is_empty() {
            "80"
        } else {
            "80, 443"
        };
        let class = spec.ingress_class_name.as_deref().unwrap_or("<none>");
        vec![
            printing::name(&object.metadata),
            Cell::from(class),
            Cell::from(hosts),
            Cell::from(addresses(balancer(object))),
            Cell::from(ports),
            printing::age(&object.metadata, now),
        ]
    }
}

fn balancer(object: &Ingress) -> Option<&IngressLoadBalancerStatus> {
    object.status.as_ref()?.load_balancer.as_ref()
}

fn addresses(balancer: Option<&IngressLoadBalancerStatus>) -> String {
    let ingress = balancer.map(|balancer| items(&balancer.ingress));
    let addresses: BTreeSet<&str> = ingress
        .unwrap_or_default()
        .iter()
        .map(|ingress| match text(&ingress.ip) {
            "" => text(&ingress.hostname),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn ingress(spec: Value) -> Ingress {
        let mut ingress =
            serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": spec})).unwrap();
        IngressStrategy.set_defaults(&mut ingress);
        ingress
    }

    fn service() -> Value {
        json!({"service": {"name": "web", "port": {"number": 80}}})
    }

    fn paths(paths: Value) -> Value {
        json!({"rules": [{"host": "a.example.com", "http": {"paths": paths}}]})
    }

    #[test]
    fn validation() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"defaultBackend": service()}), vec![]),
            (
                json!({"defaultBackend": {"service": {"name": "1a", "port": {"number": 80}}}}),
                vec![],
            ),
            (
                paths(json!([{"path": "/", "pathType": "Prefix", "backend": service()}])),
                vec![],
            ),
            (
                json!({}),
                vec!["spec FieldValueInvalid either `defaultBackend` or `rules` must be specified"],
            ),
            (
                json!({"rules": [{"host": "1.2.3.4"}, {"host": "*a.com", "http": {"paths": []}}], "tls": [{"hosts": ["*.com", "A"], "secretName": "_"}], "ingressClassName": "_"}),
                vec![
                    "spec.rules[0].host FieldValueInvalid must be a DNS name, not an IP address",
                    "spec.rules[1].host FieldValueInvalid a wildcard DNS-1123 subdomain must start with",
                    "spec.rules[1].http.paths FieldValueRequired",
                    "spec.tls[0].hosts[1] FieldValueInvalid",
                    "spec.tls[0].secretName FieldValueInvalid",
                    "spec.ingressClassName FieldValueInvalid",
                ],
            ),
            (
                paths(json!([
                    {"path": "a//b/.", "pathType": "Exact", "backend": {}},
                    {"path": "/", "pathType": "Odd", "backend": {"service": {"name": "", "port": {"name": "http", "number": 80}}}},
                    {"path": "/", "pathType": "", "backend": {}},
                    {"pathType": "ImplementationSpecific", "backend": {"resource": {"kind": "", "name": "x"}}},
                    {"pathType": "ImplementationSpecific", "backend": {"service": {"name": "x"}}},
                ])),
                vec![
                    "spec.rules[0].http.paths[0].path FieldValueInvalid must be an absolute path",
                    "spec.rules[0].http.paths[0].path FieldValueInvalid must not contain '//'",
                    "spec.rules[0].http.paths[0].path FieldValueInvalid cannot end with '/.'",
                    "spec.rules[0].http.paths[0].backend FieldValueInvalid resource or service backend is required",
                    "spec.rules[0].http.paths[1].pathType FieldValueNotSupported",
                    "spec.rules[0].http.paths[1].backend.service.name FieldValueRequired",
                    "spec.rules[0].http.paths[1].backend FieldValueInvalid cannot set both port name",
                    "spec.rules[0].http.paths[2].pathType FieldValueRequired pathType must be specified",
                    "spec.rules[0].http.paths[3].backend.resource.kind FieldValueRequired",
                    "spec.rules[0].http.paths[4].backend FieldValueRequired port name or number is required",
                ],
            ),
        ];
        for (spec, want) in table {
            assert_causes(&IngressStrategy.validate(&ingress(spec)), &want);
        }
    }

    #[test]
    fn statuses_and_warnings() {
        let with = |ip: &str| {
            let mut object = ingress(json!({"defaultBackend": service()}));
            let status = json!({"loadBalancer": {"ingress": [{"ip": ip}]}});
            object.status = serde_json::from_value(status).unwrap();
            object
        };
        let (plain, odd) = (with("10.0.0.1"), with("010.0.0.1"));
        assert_causes(
            &IngressStrategy.validate_status_update(&odd, &plain),
            &["status.loadBalancer.ingress[0].ip FieldValueInvalid must not have leading 0s"],
        );
        assert_causes(&IngressStrategy.validate_status_update(&odd, &odd), &[]);

        let mut old = plain;
        assert!(IngressStrategy.warnings(&old).is_empty());
        let annotations = old.metadata.annotations.get_or_insert_default();
        annotations.insert(CLASS_ANNOTATION.to_owned(), "a".to_owned());
        assert_eq!(IngressStrategy.warnings(&old).len(), 1);
        assert!(IngressStrategy.warnings_on_update(&old, &old).is_empty());
        old.spec.as_mut().unwrap().ingress_class_name = Some("a".to_owned());
        assert!(IngressStrategy.warnings(&old).is_empty());
    }

    #[test]
    fn rows() {
        let mut object = ingress(
            json!({"rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}], "tls": [{}]}),
        );
        object.status = serde_json::from_value(
            json!({"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}, {"hostname": "lb"}, {"ip": "1.1.1.1"}]}}),
        )
        .unwrap();
        let row = IngressStrategy.row(&object, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(
            row[1..5],
            [
                Cell::from("<none>"),
                "a,b,c + 1 more...".into(),
                "1.1.1.1,2.2.2.2,lb".into(),
                "80, 443".into()
            ]
        );
    }
}
