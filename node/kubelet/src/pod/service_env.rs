//! Environment variables that name the Services of a namespace.
//!
//! Source of the rule: the Kubernetes documentation, "Discovering services". The Service
//! `kubernetes` of `default` is always there; the others where `enableServiceLinks` is not
//! false.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// The variables for a Pod in `namespace`, sorted by Service.
pub(crate) fn service_env(
    services: &[std::sync::Arc<Service>],
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut visible = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let of = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = of == "default" && name == "kubernetes";
        if (of == namespace && links) || master {
            // One of the own namespace hides the master's of the same name.
            if of == namespace || !visible.contains_key(name) {
                visible.insert(name.to_owned(), service.as_ref());
            }
        }
    }
    let mut env = Vec::new();
    for (name, service) in visible {
        variables(&name, service, &mut env);
    }
    env
}

fn variables(name: &str, service: &Service, env: &mut Vec<(String, String)>) {
    let Some(spec) = &service.spec else { return };
    let ip = match spec.cluster_ip.as_deref() {
        None | Some("" | "None") => return,
        Some(ip) => ip,
    };
    let Some(ports) = spec.ports.as_deref().filter(|ports| !ports.is_empty()) else {
        return;
    };
    let prefix = name.to_uppercase().replace('-', "_");
    let mut add = |suffix: String, value: String| env.push((format!("{prefix}_{suffix}"), value));
    add("SERVICE_HOST".to_owned(), ip.to_owned());
    add("SERVICE_PORT".to_owned(), ports[0].port.to_string());
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let name = name.to_uppercase().replace('-', "_");
            add(format!("SERVICE_PORT_{name}"), port.port.to_string());
        }
    }
    let host = match ip.contains(':') {
        true => format!("[{ip}]"),
        false => ip.to_owned(),
    };
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let (lower, number) = (protocol.to_lowercase(), port.port);
        let url = format!("{lower}://{host}:{number}");
        if index == 0 {
            add("PORT".to_owned(), url.clone());
        }
        let base = format!("PORT_{number}_{}", protocol.to_uppercase());
        add(base.clone(), url);
        add(format!("{base}_PROTO"), lower);
        add(format!("{base}_PORT"), number.to_string());
        add(format!("{base}_ADDR"), ip.to_owned());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, ip: &str) -> Arc<Service> {
        let value = json!({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": ip, "ports": [{"name": "my-p", "port": 80, "protocol": "TCP"}]},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn services_become_variables() {
        let services = [
            service("default", "kubernetes", "10.43.0.1"),
            service("ns", "red-db", "10.43.0.2"),
            service("ns", "headless", "None"),
            service("other", "hidden", "10.43.0.3"),
        ];
        let env = service_env(&services, "ns", true);
        let text: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let red = [
            "RED_DB_SERVICE_HOST=10.43.0.2",
            "RED_DB_SERVICE_PORT=80",
            "RED_DB_SERVICE_PORT_MY_P=80",
            "RED_DB_PORT=tcp://10.43.0.2:80",
            "RED_DB_PORT_80_TCP=tcp://10.43.0.2:80",
            "RED_DB_PORT_80_TCP_PROTO=tcp",
            "RED_DB_PORT_80_TCP_PORT=80",
            "RED_DB_PORT_80_TCP_ADDR=10.43.0.2",
        ];
        assert_eq!(text[8..], red);
        assert_eq!(text[0], "KUBERNETES_SERVICE_HOST=10.43.0.1");

        let without_links = service_env(&services, "ns", false);
        assert_eq!(without_links.len(), 8, "only the master's");
    }
}
