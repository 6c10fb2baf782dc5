//! What a Pod's containers find in resolv.conf (`dnsPolicy` and `dnsConfig`; resolv.conf(5)).
//!
//! As in the kubelet: `ClusterFirst` asks the cluster, and of a Pod on the machine's own network it
//! means `Default`, unless that says `ClusterFirstWithHostNet`; so it does where the node has no
//! server that containers reach. Guests are told names by their own network.

use std::net::IpAddr;

use coracle_runtime::Resolution;
use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

/// Where containers find the cluster's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDns {
    /// The server's address.
    pub server: IpAddr,
    /// The cluster's domain, `cluster.local`.
    pub domain: String,
}

/// The resolv.conf of a Pod; `machine` is the text of the machine's.
pub(crate) fn resolution(pod: &Pod, cluster: Option<&ClusterDns>, machine: &str) -> Resolution {
    let spec = super::spec(pod);
    let host_network = spec.host_network == Some(true);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let mut found = match (policy, cluster) {
        ("None", _) => Resolution::default(),
        ("ClusterFirst", Some(cluster)) if !host_network => by_cluster(pod, cluster, machine),
        ("ClusterFirstWithHostNet", Some(cluster)) => by_cluster(pod, cluster, machine),
        _ => parse(machine),
    };
    if let Some(config) = &spec.dns_config {
        merge(&mut found, config);
    }
    found
}

fn by_cluster(pod: &Pod, cluster: &ClusterDns, machine: &str) -> Resolution {
    let domain = &cluster.domain;
    let own = [
        format!("{}.svc.{domain}", super::namespace(pod)),
        format!("svc.{domain}"),
        domain.clone(),
    ];
    let mut searches = own.to_vec();
    searches.extend(parse(machine).searches);
    unique(&mut searches);
    Resolution {
        servers: vec![cluster.server.to_string()],
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

/// What a Pod says goes behind what its policy says; options of the same name are the Pod's.
fn merge(found: &mut Resolution, config: &PodDNSConfig) {
    found
        .servers
        .extend(config.nameservers.iter().flatten().cloned());
    found
        .searches
        .extend(config.searches.iter().flatten().cloned());
    unique(&mut found.servers);
    unique(&mut found.searches);
    for option in config.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        let text = match option.value.as_deref() {
            None | Some("") => name.clone(),
            Some(value) => format!("{name}:{value}"),
        };
        let same = |other: &String| other.split(':').next() == Some(name.as_str());
        found.options.retain(|other| !same(other));
        found.options.push(text);
    }
}

fn unique(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|entry| seen.insert(entry.clone()));
}

/// Reads a resolv.conf: of the lists that come once the last one counts.
fn parse(text: &str) -> Resolution {
    let mut found = Resolution::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next();
        let rest = words.take_while(|word| !word.starts_with(['#', ';']));
        match keyword {
            Some("nameserver") => found.servers.extend(rest.take(1).map(str::to_owned)),
            Some("search" | "domain") => found.searches = rest.map(str::to_owned).collect(),
            Some("options") => found.options = rest.map(str::to_owned).collect(),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MACHINE: &str = "# made by hand\nnameserver 192.0.2.53 # ours\nnameserver 192.0.2.54\n\
                           search example.org cluster.local\noptions timeout:1 ndots:2\n";

    fn check(mut spec: Value, with_cluster: bool) -> String {
        spec["containers"] = json!([]);
        let pod = json!({"metadata": {"namespace": "shop"}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let cluster = ClusterDns {
            server: "10.43.0.10".parse().unwrap(),
            domain: "cluster.local".into(),
        };
        resolution(&pod, with_cluster.then_some(&cluster), MACHINE).to_string()
    }

    #[test]
    fn the_policy_says_who_is_asked_and_the_pod_adds_to_it() {
        let by_cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local \
                          example.org\nnameserver 10.43.0.10\noptions ndots:5\n";
        let by_machine = "search example.org cluster.local\nnameserver 192.0.2.53\n\
                          nameserver 192.0.2.54\noptions timeout:1 ndots:2\n";
        for (spec, with_cluster, wanted) in [
            (json!({}), true, by_cluster),
            (json!({"dnsPolicy": "ClusterFirst"}), true, by_cluster),
            (json!({"dnsPolicy": "Default"}), true, by_machine),
            (json!({"hostNetwork": true}), true, by_machine),
            (
                json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
                true,
                by_cluster,
            ),
            (
                json!({"dnsPolicy": "ClusterFirstWithHostNet"}),
                true,
                by_cluster,
            ),
            // Nobody could be reached.
            (json!({}), false, by_machine),
            (json!({"dnsPolicy": "None"}), true, ""),
        ] {
            assert_eq!(check(spec.clone(), with_cluster), wanted, "{spec}");
        }
        let config = json!({
            "nameservers": ["192.0.2.9", "10.43.0.10"],
            "searches": ["own.example", "cluster.local"],
            "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}],
        });
        assert_eq!(
            check(json!({"dnsConfig": config}), true),
            "search shop.svc.cluster.local svc.cluster.local cluster.local example.org own.example\n\
             nameserver 10.43.0.10\nnameserver 192.0.2.9\noptions ndots:1 edns0\n"
        );
        assert_eq!(
            check(json!({"dnsPolicy": "None", "dnsConfig": config}), true),
            "search own.example cluster.local\nnameserver 192.0.2.9\nnameserver 10.43.0.10\n\
             options ndots:1 edns0\n"
        );
    }
}
