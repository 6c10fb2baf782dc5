//! test/e2e/common/node: configmap.go, secrets.go, downwardapi.go, expansion.go and, of pods.go, the
//! variables of Services: what the environment of a container has.

use serde_json::{Value, json};

use super::{cluster_with, create, has_lines, shown, whole};
use crate::cluster::{Kubectl, eventually};

/// A kind of object whose keys become variables.
struct Source {
    kind: &'static str,
    /// The member that has its texts.
    data: &'static str,
    /// How a variable names a key of it, and a container all of them.
    key: &'static str,
    all: &'static str,
}

const CONFIG_MAP: Source = Source {
    kind: "ConfigMap",
    data: "data",
    key: "configMapKeyRef",
    all: "configMapRef",
};
const SECRET: Source = Source {
    kind: "Secret",
    data: "stringData",
    key: "secretKeyRef",
    all: "secretRef",
};

impl Source {
    fn make(&self, kubectl: &Kubectl) {
        let data = json!({"data-1": "value-1", "data_2": "value-2", "data_3": "value-3"});
        create(
            kubectl,
            &json!({"kind": self.kind, "metadata": {"name": "source"}, self.data: data}),
        );
    }

    /// A variable has the value of a key.
    fn gives_a_variable(&self) {
        let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
            return;
        };
        self.make(&kubectl);
        let key = json!({"name": "source", "key": "data-1"});
        let env = json!([from("DATA_1", self.key, key)]);
        let said = shown(&kubectl, json!({"env": env}), json!({}));
        has_lines(&said, &["DATA_1=value-1"]);
    }

    /// All keys are variables under each prefix.
    fn gives_variables(&self, prefixes: &[&str]) {
        let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
            return;
        };
        self.make(&kubectl);
        let source = |prefix: &&str| json!({"prefix": prefix, self.all: {"name": "source"}});
        let sources: Vec<Value> = prefixes.iter().map(source).collect();
        let said = shown(&kubectl, json!({"envFrom": sources}), json!({}));
        for prefix in prefixes {
            for key in ["data-1=value-1", "data_2=value-2", "data_3=value-3"] {
                has_lines(&said, &[&format!("{prefix}{key}")]);
            }
        }
    }
}

/// Digits, signs, letters.
const PREFIXES: [&str; 5] = ["", "1-", "$_-", "ABC_", "#@!"];

/// A variable whose value comes from elsewhere.
fn from(name: &str, source: &str, what: Value) -> Value {
    json!({"name": name, "valueFrom": {source: what}})
}

/// Must: a variable has the value of a key of a ConfigMap.
#[test]
fn configmap_should_be_consumable_via_environment_variable() {
    CONFIG_MAP.gives_a_variable();
}

/// Must: all keys of a ConfigMap are variables, with a prefix where one is asked for.
#[test]
fn configmap_should_be_consumable_via_the_environment() {
    CONFIG_MAP.gives_variables(&["", "p-"]);
}

/// Must: a variable has the value of a key of a Secret.
#[test]
fn secrets_should_be_consumable_from_pods_in_env_vars() {
    SECRET.gives_a_variable();
}

/// Must: all keys of a Secret are variables, with a prefix where one is asked for.
#[test]
fn secrets_should_be_consumable_via_the_environment() {
    SECRET.gives_variables(&["", "p-"]);
}

/// Must: the keys of a ConfigMap are variables with prefixes of printable characters.
#[test]
fn configmap_should_be_consumable_as_environment_variable_names_with_various_prefixes() {
    CONFIG_MAP.gives_variables(&PREFIXES);
}

/// Must: the keys of a Secret are variables with prefixes of printable characters.
#[test]
fn secrets_should_be_consumable_as_environment_variable_names_variable_names_with_various_prefixes()
{
    SECRET.gives_variables(&PREFIXES);
}

fn field(name: &str, path: &str) -> Value {
    from(
        name,
        "fieldRef",
        json!({"apiVersion": "v1", "fieldPath": path}),
    )
}

/// Must: variables have name, namespace and address of the Pod.
#[test]
fn downward_api_should_provide_pod_name_namespace_and_ip_address_as_env_vars() {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
        return;
    };
    let env = json!([
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
    ]);
    let said = shown(&kubectl, json!({"env": env}), json!({}));
    let ip = kubectl.value(&["pod", "inspect"], ".status.podIP");
    assert!(ip.parse::<std::net::IpAddr>().is_ok(), "{ip}");
    has_lines(
        &said,
        &[
            "POD_NAME=inspect",
            "POD_NAMESPACE=default",
            &format!("POD_IP={ip}"),
        ],
    );
}

/// Must: a variable has the address of the Pod's node.
#[test]
fn downward_api_should_provide_host_ip_as_an_env_var() {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
        return;
    };
    let env = json!([field("HOST_IP", "status.hostIP")]);
    let said = shown(&kubectl, json!({"env": env}), json!({}));
    let ip = kubectl.value(&["pod", "inspect"], ".status.hostIP");
    assert!(ip.parse::<std::net::IpAddr>().is_ok(), "{ip}");
    has_lines(&said, &[&format!("HOST_IP={ip}")]);
}

/// Must: a variable has all addresses of the Pod's node.
#[test]
fn downward_api_should_provide_hostips_as_an_env_var() {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
        return;
    };
    let env = json!([field("HOST_IPS", "status.hostIPs")]);
    let said = shown(&kubectl, json!({"env": env}), json!({}));
    let ips = kubectl.value(&["pod", "inspect"], ".status.hostIPs[*].ip");
    assert!(!ips.is_empty());
    has_lines(&said, &[&format!("HOST_IPS={}", ips.replace(' ', ","))]);
}

/// Must: a variable has the UID of the Pod.
#[test]
fn downward_api_should_provide_pod_uid_as_env_vars() {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
        return;
    };
    let env = json!([field("POD_UID", "metadata.uid")]);
    let said = shown(&kubectl, json!({"env": env}), json!({}));
    let uid = kubectl.value(&["pod", "inspect"], ".metadata.uid");
    has_lines(&said, &[&format!("POD_UID={uid}")]);
}

fn resource(name: &str, of: &str) -> Value {
    from(name, "resourceFieldRef", json!({"resource": of}))
}

/// Must: variables have what the container requests of processors and memory, and its limits.
#[test]
fn downward_api_should_provide_container_s_limits_cpu_memory_and_requests_cpu_memory_as_env_vars() {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
        return;
    };
    let env = json!([
        resource("CPU_LIMIT", "limits.cpu"),
        resource("MEMORY_LIMIT", "limits.memory"),
        resource("CPU_REQUEST", "requests.cpu"),
        resource("MEMORY_REQUEST", "requests.memory"),
    ]);
    let resources = json!({
        "requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"},
    });
    let said = shown(
        &kubectl,
        json!({"env": env, "resources": resources}),
        json!({}),
    );
    let all = [
        "CPU_LIMIT=2",
        "MEMORY_LIMIT=67108864",
        "CPU_REQUEST=1",
        "MEMORY_REQUEST=33554432",
    ];
    has_lines(&said, &all);
}

/// Must: variables of limits that the container has not are what its node can give.
#[test]
fn downward_api_should_provide_default_limits_cpu_memory_from_node_allocatable() {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
        return;
    };
    let env = json!([
        resource("CPU_LIMIT", "limits.cpu"),
        resource("MEMORY_LIMIT", "limits.memory")
    ]);
    let said = shown(&kubectl, json!({"env": env}), json!({}));
    let of = |what: &str| {
        let path = format!(".items[0].status.allocatable.{what}");
        whole(&kubectl.value(&["nodes"], &path))
    };
    let cpu = format!("CPU_LIMIT={}", of("cpu"));
    has_lines(&said, &[&cpu, &format!("MEMORY_LIMIT={}", of("memory"))]);
}

fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

/// Must: variables that are made of others have what those have.
#[test]
fn variable_expansion_should_allow_composing_env_vars_into_new_env_vars() {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
        return;
    };
    let env = json!([
        variable("FOO", "foo-value"),
        variable("BAR", "bar-value"),
        variable("FOOBAR", "$(FOO);;$(BAR)"),
    ]);
    let said = shown(&kubectl, json!({"env": env}), json!({}));
    has_lines(
        &said,
        &[
            "FOO=foo-value",
            "BAR=bar-value",
            "FOOBAR=foo-value;;bar-value",
        ],
    );
}

/// Must: arguments that are made of variables have what those have.
#[test]
fn variable_expansion_should_allow_substituting_values_in_a_container_s_args() {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect"]) else {
        return;
    };
    CONFIG_MAP.make(&kubectl);
    let container = json!({
        "env": [variable("KEY", "data-1")],
        "args": ["/etc/config/$(KEY)"],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/config"}],
    });
    let spec = json!({"volumes": [{"name": "config", "configMap": {"name": "source"}}]});
    let said = shown(&kubectl, container, spec);
    has_lines(&said, &["/etc/config/data-1: value-1"]);
}

/// Must: a Pod that is made after a Service has the variables of the Service.
/// Must: they have its address, its port, and both as those of links do.
#[test]
fn pods_should_contain_environment_variables_for_services() {
    let Some((_cluster, kubectl)) = cluster_with(&["inspect", "hello-http"]) else {
        return;
    };
    let server = json!({
        "kind": "Pod", "metadata": {"name": "server-envvars", "labels": {"name": "server-envvars"}},
        "spec": {"containers": [{"name": "srv", "image": "hello-http:v1"}]},
    });
    create(&kubectl, &server);
    kubectl.wait_value(&["pod", "server-envvars"], ".status.phase", "Running");
    let spec = json!({
        "selector": {"name": "server-envvars"}, "ports": [{"port": 8765, "targetPort": 8080}],
    });
    create(
        &kubectl,
        &json!({"kind": "Service", "metadata": {"name": "fooservice"}, "spec": spec}),
    );
    let ip = kubectl.value(&["service", "fooservice"], ".spec.clusterIP");
    // The kubelet may hear of the Service after it has heard of the Pod.
    let said = eventually("a Pod with the variables", || {
        let said = shown(&kubectl, json!({}), json!({}));
        kubectl.ok(&["delete", "pod", "inspect", "--now"]);
        if said.contains("FOOSERVICE_") {
            Ok(said)
        } else {
            Err(said)
        }
    });
    let tcp = format!("tcp://{ip}:8765");
    has_lines(
        &said,
        &[
            &format!("FOOSERVICE_SERVICE_HOST={ip}"),
            "FOOSERVICE_SERVICE_PORT=8765",
            &format!("FOOSERVICE_PORT={tcp}"),
            "FOOSERVICE_PORT_8765_TCP_PORT=8765",
            "FOOSERVICE_PORT_8765_TCP_PROTO=tcp",
            &format!("FOOSERVICE_PORT_8765_TCP={tcp}"),
            &format!("FOOSERVICE_PORT_8765_TCP_ADDR={ip}"),
        ],
    );
}
