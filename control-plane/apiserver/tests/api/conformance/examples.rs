//! A plain object of each kind, that the server takes as it is.

use k8s_openapi::ByteString;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

/// An object of a resource (`apps/deployments`, `/pods`), the `number`-th of its kind here, with
/// a label of its own.
pub(crate) fn example(resource: &str, number: usize) -> Value {
    let mut object = body(resource, number);
    // Reviews have no names.
    if resource.starts_with("authorization.k8s.io/") || resource.ends_with("/tokenreviews") {
        return object;
    }
    object["metadata"]["name"] = json!(name(resource, number));
    object["metadata"]["labels"]["number"] = json!(number.to_string());
    object
}

/// Most names are free; these are made of what the object says.
fn name(resource: &str, number: usize) -> String {
    match resource {
        "apiregistration.k8s.io/apiservices" => format!("v{number}.example.com"),
        "networking.k8s.io/ipaddresses" => format!("10.44.{}.{}", number / 250, number % 250 + 1),
        _ => format!("e{number}"),
    }
}

fn pod_spec() -> Value {
    json!({"containers": [{"name": "c", "image": "app:v1", "resources": {"requests": {"cpu": "1m"}}}]})
}

/// What workloads make their Pods of.
fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": pod_spec()})
}

fn workload() -> Value {
    json!({"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template()}})
}

fn job_spec() -> Value {
    let mut template = json!({ "spec": pod_spec() });
    template["spec"]["restartPolicy"] = json!("Never");
    json!({ "template": template })
}

fn body(resource: &str, number: usize) -> Value {
    match resource {
        "/configmaps" | "/secrets" => json!({"data": {"a": "MQ=="}}),
        "/endpoints" => {
            json!({"subsets": [{"addresses": [{"ip": "10.42.0.9"}], "ports": [{"port": 80}]}]})
        }
        "/events" => json!({
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
            "reason": "Test", "type": "Normal",
        }),
        "/limitranges" => {
            json!({"spec": {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "9Gi"}}]}})
        }
        "/namespaces" | "/nodes" | "/serviceaccounts" => json!({}),
        "/persistentvolumeclaims" => json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }}),
        "/persistentvolumes" => json!({"spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "d.example.com", "volumeHandle": "h"},
        }}),
        "/pods" => json!({ "spec": pod_spec() }),
        "/podtemplates" => json!({ "template": template() }),
        "/replicationcontrollers" => {
            json!({"spec": {"selector": {"app": "web"}, "template": template()}})
        }
        "/resourcequotas" => json!({"spec": {"hard": {"count/widgets.example.com": "1"}}}),
        "/services" => json!({"spec": {"ports": [{"port": 80}]}}),
        _ => of_groups(resource, number),
    }
}

fn of_groups(resource: &str, number: usize) -> Value {
    match resource {
        "apiregistration.k8s.io/apiservices" => json!({"spec": {
            "group": "example.com", "version": format!("v{number}"),
            "service": {"namespace": "default", "name": "sample"}, "caBundle": "YQ==",
            "groupPriorityMinimum": 2000, "versionPriority": 200,
        }}),
        "authentication.k8s.io/tokenreviews" => json!({"spec": {"token": "unknown"}}),
        "apps/controllerrevisions" => json!({"data": {"a": 1}, "revision": 1}),
        "apps/daemonsets" | "apps/deployments" | "apps/replicasets" | "apps/statefulsets" => {
            workload()
        }
        "authorization.k8s.io/localsubjectaccessreviews" => json!({
            "metadata": {"namespace": "default"},
            "spec": {"user": "jane", "resourceAttributes": {
                "namespace": "default", "verb": "get", "resource": "pods",
            }},
        }),
        "authorization.k8s.io/selfsubjectaccessreviews" => {
            json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}})
        }
        "authorization.k8s.io/subjectaccessreviews" => json!({"spec": {
            "user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods"},
        }}),
        "batch/cronjobs" => {
            json!({"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job_spec()}}})
        }
        "batch/jobs" => json!({ "spec": job_spec() }),
        "certificates.k8s.io/certificatesigningrequests" => json!({"spec": {
            "request": signing_request(), "signerName": "example.com/e2e",
            "usages": ["digital signature", "client auth"],
        }}),
        "coordination.k8s.io/leases" => json!({"spec": {"holderIdentity": "h"}}),
        "discovery.k8s.io/endpointslices" => json!({
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.42.0.9"]}],
        }),
        "events.k8s.io/events" => json!({
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c",
            "reportingInstance": "i", "action": "Test", "reason": "Test", "type": "Normal",
            "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
        }),
        "flowcontrol.apiserver.k8s.io/flowschemas" => json!({"spec": {
            "matchingPrecedence": 9000, "priorityLevelConfiguration": {"name": "catch-all"},
        }}),
        "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations" => json!({"spec": {
            "type": "Limited",
            "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}},
        }}),
        "networking.k8s.io/ingressclasses" => json!({"spec": {"controller": "example.com/c"}}),
        "networking.k8s.io/ingresses" => json!({"spec": {
            "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
        }}),
        "networking.k8s.io/ipaddresses" => json!({"spec": {
            "parentRef": {"resource": "services", "namespace": "default", "name": "web"},
        }}),
        "networking.k8s.io/servicecidrs" => {
            json!({"spec": {"cidrs": [format!("10.{}.0.0/16", 100 + number % 150)]}})
        }
        "node.k8s.io/runtimeclasses" => json!({"handler": "wasm"}),
        "policy/poddisruptionbudgets" => {
            json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}})
        }
        "rbac.authorization.k8s.io/clusterroles" | "rbac.authorization.k8s.io/roles" => {
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
        }
        "rbac.authorization.k8s.io/clusterrolebindings" => binding("ClusterRole"),
        "rbac.authorization.k8s.io/rolebindings" => binding("Role"),
        "scheduling.k8s.io/priorityclasses" => json!({"value": 1000}),
        _ => of_storage(resource),
    }
}

fn of_admission(resource: &str) -> Value {
    let rule = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
    });
    let matched = json!({"resourceRules": [rule]});
    let mutation = json!({
        "patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"},
    });
    match resource {
        "admissionregistration.k8s.io/mutatingadmissionpolicies" => json!({"spec": {
            "matchConstraints": matched, "reinvocationPolicy": "Never", "mutations": [mutation],
        }}),
        "admissionregistration.k8s.io/validatingadmissionpolicies" => json!({"spec": {
            "matchConstraints": matched, "validations": [{"expression": "true"}],
        }}),
        "admissionregistration.k8s.io/mutatingadmissionpolicybindings" => {
            json!({"spec": {"policyName": "p"}})
        }
        "admissionregistration.k8s.io/validatingadmissionpolicybindings" => {
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}})
        }
        "admissionregistration.k8s.io/mutatingwebhookconfigurations"
        | "admissionregistration.k8s.io/validatingwebhookconfigurations" => {
            json!({ "webhooks": [] })
        }
        _ => panic!("no example of {resource}"),
    }
}

fn of_devices(resource: &str) -> Value {
    match resource {
        "resource.k8s.io/deviceclasses" | "resource.k8s.io/resourceclaims" => json!({"spec": {}}),
        "resource.k8s.io/resourceclaimtemplates" => json!({"spec": {"spec": {}}}),
        "resource.k8s.io/resourceslices" => json!({"spec": {
            "driver": "d.example.com", "nodeName": "n1",
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        }}),
        _ => of_admission(resource),
    }
}

fn of_storage(resource: &str) -> Value {
    match resource {
        "storage.k8s.io/csidrivers" => json!({"spec": {}}),
        "storage.k8s.io/csinodes" => {
            json!({"spec": {"drivers": [{"name": "d.example.com", "nodeID": "id"}]}})
        }
        "storage.k8s.io/csistoragecapacities" => json!({"storageClassName": "gold"}),
        "storage.k8s.io/storageclasses" => json!({"provisioner": "d.example.com"}),
        "storage.k8s.io/volumeattachments" => json!({"spec": {
            "attacher": "d.example.com", "nodeName": "n1",
            "source": {"persistentVolumeName": "vol"},
        }}),
        "storage.k8s.io/volumeattributesclasses" => {
            json!({"driverName": "d.example.com", "parameters": {"iops": "5000"}})
        }
        _ => of_devices(resource),
    }
}

fn binding(role: &str) -> Value {
    json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": "r"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}],
    })
}

fn signing_request() -> ByteString {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    ByteString(request.pem().unwrap().into_bytes())
}
