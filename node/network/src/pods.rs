//! What a Pod's guests need to know of their Pod to look up names, after the kubelet's
//! `/etc/resolv.conf` and `/etc/hosts`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use serde::{Deserialize, Serialize};

/// Search domains of a Pod, at most, and characters of a host name.
const SEARCH_MAX: usize = 32;
const HOSTNAME_MAX: usize = 63;

/// A Pod, as its guests see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Its namespace.
    pub namespace: String,
    /// Its host name.
    pub hostname: String,
    /// Domains to be tried after a name that is not fully qualified.
    pub search: Vec<String>,
    /// A name with at least so many dots is tried as it is first.
    pub ndots: u32,
    /// Whether names of the cluster are known to it (`dnsPolicy`).
    pub cluster_names: bool,
    /// Names with a fixed address: its own, and `hostAliases`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
}

impl PodRecord {
    /// What is to be known of a Pod that has the address `ip`.
    pub fn of(pod: &Pod, ip: IpAddr, domain: &str) -> Self {
        let unspecified = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&unspecified);
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let hostname = match spec.hostname.as_deref() {
            Some(hostname) if !hostname.is_empty() => hostname,
            _ => name,
        };
        let hostname: String = hostname.chars().take(HOSTNAME_MAX).collect();
        let hostname = hostname.trim_end_matches(['-', '.']).to_ascii_lowercase();
        let mut hosts = BTreeMap::from([(hostname.clone(), vec![ip])]);
        if let Some(subdomain) = spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
            let full = format!("{hostname}.{subdomain}.{namespace}.svc.{domain}");
            hosts.insert(full, vec![ip]);
        }
        for alias in spec.host_aliases.iter().flatten() {
            for name in alias.hostnames.iter().flatten() {
                let addresses = hosts.entry(name.to_ascii_lowercase()).or_default();
                addresses.extend(alias.ip.parse::<IpAddr>().ok());
            }
        }
        let host_network = spec.host_network == Some(true);
        let cluster_names = match spec.dns_policy.as_deref() {
            Some("Default" | "None") => false,
            Some("ClusterFirstWithHostNet") => true,
            _ => !host_network,
        };
        let mut search = Vec::new();
        if cluster_names {
            search.push(format!("{namespace}.svc.{domain}"));
            search.push(format!("svc.{domain}"));
            search.push(domain.to_owned());
        }
        let dns = spec.dns_config.as_ref();
        let more = dns.and_then(|dns| dns.searches.as_ref());
        for domain in more.into_iter().flatten() {
            let domain = domain.trim_end_matches('.').to_ascii_lowercase();
            if !search.contains(&domain) {
                search.push(domain);
            }
        }
        search.truncate(SEARCH_MAX);
        let options = dns.and_then(|dns| dns.options.as_ref());
        let ndots = options
            .into_iter()
            .flatten()
            .find(|option| option.name.as_deref() == Some("ndots"))
            .and_then(|option| option.value.as_ref()?.parse().ok());
        Self {
            namespace,
            hostname,
            search,
            ndots: ndots.unwrap_or(if cluster_names { 5 } else { 1 }),
            cluster_names,
            hosts,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn record(spec: Value) -> PodRecord {
        let metadata = json!({"namespace": "shop", "name": "web-1"});
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod = json!({"metadata": metadata, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        PodRecord::of(&pod, "10.42.0.7".parse().unwrap(), "cluster.local")
    }

    #[test]
    fn policies() {
        let usual = record(json!({}));
        assert_eq!(usual.hostname, "web-1");
        let search = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"];
        assert_eq!((usual.search, usual.ndots), (search.map(String::from).to_vec(), 5));
        let host = record(json!({"dnsPolicy": "Default"}));
        assert_eq!((host.search.len(), host.cluster_names, host.ndots), (0, false, 1));
        let own = record(json!({"dnsPolicy": "None", "dnsConfig": {
            "searches": ["Corp.example.", "corp.example"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        }}));
        assert_eq!((own.search, own.ndots), (vec!["corp.example".to_owned()], 2));
        let more = record(json!({"dnsConfig": {"searches": ["corp.example", "cluster.local"]}}));
        assert_eq!((more.search.len(), &*more.search[3]), (4, "corp.example"));
    }

    #[test]
    fn hosts() {
        let record = record(json!({
            "hostname": "db-0", "subdomain": "db",
            "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["Alias", "db-0"]}],
        }));
        assert_eq!(record.hostname, "db-0");
        let names: Vec<&str> = record.hosts.keys().map(String::as_str).collect();
        assert_eq!(names, ["alias", "db-0", "db-0.db.shop.svc.cluster.local"]);
        assert_eq!(record.hosts["db-0"].len(), 2);
    }
}
