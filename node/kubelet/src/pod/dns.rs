//! What a Pod's containers find in resolv.conf (`dnsPolicy` and `dnsConfig`; resolv.conf(5)).
//!
//! As in the kubelet: `ClusterFirst` asks the cluster, and of a Pod on the machine's own network it
//! means `Default`, unless that says `ClusterFirstWithHostNet`; so it does where the node has no
//! server that containers reach. What resolvers do not take is left out, and told. Guests are told
//! names by their own network.

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

/// How the machine looks names up.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What of a resolv.conf resolvers take (resolv.conf(5)), as the API bounds it too.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;
/// The longest name in DNS. Some resolvers abort over a longer one (glibc 2.28).
const MAX_NAME: usize = 253;
/// Domains that a Pod of the cluster looks into before those of the machine.
const OWN_SEARCHES: usize = 3;

/// The resolv.conf of a Pod, and what is to be told of what it does not hold; `machine` is the text of
/// the machine's.
pub(crate) fn resolution(
    pod: &Pod,
    cluster: Option<&ClusterDns>,
    machine: &str,
) -> Result<(Resolution, Vec<String>), String> {
    let spec = super::spec(pod);
    let host_network = spec.host_network == Some(true);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let machine = parse(machine).map_err(|error| {
        format!("Encountered error while parsing resolv conf file. Error: {error}")
    })?;
    let mut found = match (policy, cluster) {
        ("None", _) => Resolution::default(),
        ("ClusterFirst", Some(cluster)) if !host_network => by_cluster(pod, cluster, machine),
        ("ClusterFirstWithHostNet", Some(cluster)) => by_cluster(pod, cluster, machine),
        _ => machine,
    };
    if let Some(config) = &spec.dns_config {
        merge(&mut found, config);
    }
    let told = limit(&mut found);
    Ok((found, told))
}

/// Why not all that the machine's resolv.conf gives goes into those of Pods, which add domains of the
/// cluster to it if there is one.
pub(crate) fn exceeds(machine: &str, cluster: bool) -> Option<String> {
    let searches = match parse(machine) {
        Ok(found) => found.searches,
        Err(error) => return Some(error),
    };
    let most = MAX_SEARCHES - if cluster { OWN_SEARCHES } else { 0 };
    if searches.len() > most {
        return Some(format!(
            "Resolv.conf file '{RESOLV_CONF}' contains search line consisting of more than {most} \
             domains!"
        ));
    }
    if searches.iter().any(|search| search.len() > MAX_NAME) {
        return Some(format!(
            "Resolv.conf file \"{RESOLV_CONF}\" contains a search path which length is more than \
             allowed {MAX_NAME} chars!"
        ));
    }
    (searches.join(" ").len() > MAX_SEARCH_CHARACTERS).then(|| {
        format!(
            "Resolv.conf file '{RESOLV_CONF}' contains search line which length is more than \
             allowed {MAX_SEARCH_CHARACTERS} chars!"
        )
    })
}

/// Leaves out what resolvers do not take: what is to be told of it.
fn limit(found: &mut Resolution) -> Vec<String> {
    let mut told = Vec::new();
    if found.servers.len() > MAX_SERVERS {
        found.servers.truncate(MAX_SERVERS);
        told.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied \
             nameserver line is: {}",
            found.servers.join(" ")
        ));
    }
    let searches = &mut found.searches;
    let given = searches.len();
    searches.truncate(MAX_SEARCHES);
    searches.retain(|search| search.len() <= MAX_NAME);
    // With a space behind each but the last.
    let mut length = 0;
    let fits = searches.iter().take_while(|search| {
        length += search.len() + 1;
        length <= MAX_SEARCH_CHARACTERS + 1
    });
    let fits = fits.count();
    searches.truncate(fits);
    if searches.len() < given {
        told.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied \
             search line is: {}",
            searches.join(" ")
        ));
    }
    told
}

fn by_cluster(pod: &Pod, cluster: &ClusterDns, machine: Resolution) -> Resolution {
    let domain = &cluster.domain;
    let own: [String; OWN_SEARCHES] = [
        format!("{}.svc.{domain}", super::namespace(pod)),
        format!("svc.{domain}"),
        domain.clone(),
    ];
    let mut searches = own.to_vec();
    searches.extend(machine.searches);
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

/// Reads a resolv.conf: of the searches the last line counts, of options of one name the last one. A
/// domain is the same with and without a dot behind it, and the root is where all names are looked up.
fn parse(text: &str) -> Result<Resolution, String> {
    let mut found = Resolution::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next();
        let mut rest = words.take_while(|word| !word.starts_with(['#', ';']));
        match keyword {
            Some("nameserver") => match rest.next() {
                Some(server) => found.servers.push(server.to_owned()),
                None => return Err("nameserver list is empty ".to_owned()),
            },
            Some("search") => {
                let domains = rest.filter(|domain| *domain != ".");
                let domains = domains.map(|domain| domain.strip_suffix('.').unwrap_or(domain));
                found.searches = domains.map(str::to_owned).collect();
            }
            Some("options") => {
                for option in rest {
                    let name = option.split(':').next();
                    found
                        .options
                        .retain(|other| other.split(':').next() != name);
                    found.options.push(option.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(found)
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
        let (found, told) = resolution(&pod, with_cluster.then_some(&cluster), MACHINE).unwrap();
        assert_eq!(told, Vec::<String>::new());
        found.to_string()
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

    #[test]
    fn the_file_of_the_machine_is_read_as_the_kubelet_reads_it() {
        let table = [
            // Of options the last of a name counts, of searches the last line.
            (
                "options ndots:2 edns0\noptions ndots:3 rotate",
                "options edns0 ndots:3 rotate\n",
            ),
            ("search a.b c.d.\nsearch e.f. . g.h", "search e.f g.h\n"),
            ("search .", ""),
            ("domain a.b", ""),
            ("  # nameserver 192.0.2.1\n;nameserver 192.0.2.2", ""),
            ("nameserver 192.0.2.1 192.0.2.2", "nameserver 192.0.2.1\n"),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text).unwrap().to_string(), expected, "{text}");
        }
        for text in ["nameserver", "nameserver # none"] {
            parse(text).unwrap_err();
        }
    }

    #[test]
    fn what_resolvers_do_not_take_is_left_out_and_told() {
        let names = |n: usize, length: usize| -> Vec<String> {
            (0..n).map(|i| format!("{i:0length$}")).collect()
        };
        // Servers, searches; what stays of both, and of how much is told.
        for (servers, searches, kept, tells) in [
            (names(3, 2), names(32, 3), (3, 32), 0),
            (names(4, 2), names(32, 3), (3, 32), 1),
            (names(4, 2), names(33, 3), (3, 32), 2),
            (
                names(1, 2),
                [names(2, 254), names(2, 253)].concat(),
                (1, 2),
                1,
            ),
            // 2,048 characters, and one more.
            (
                names(1, 2),
                [names(8, 253), names(1, 17)].concat(),
                (1, 8),
                1,
            ),
            (
                names(1, 2),
                [names(8, 253), names(1, 16)].concat(),
                (1, 9),
                0,
            ),
        ] {
            let mut found = Resolution {
                servers: servers.clone(),
                searches: searches.clone(),
                options: Vec::new(),
            };
            let told = limit(&mut found);
            assert_eq!(told.len(), tells, "{told:?}");
            let left = (found.servers.len(), found.searches.len());
            assert_eq!(left, kept, "{servers:?} {searches:?}");
        }
    }

    #[test]
    fn of_the_machine_is_told_what_pods_will_not_get() {
        let line = |n: usize, length: usize| {
            let names = (0..n).map(|i| format!(" {i:0length$}"));
            format!("search{}\n", names.collect::<String>())
        };
        let table = [
            (line(29, 3), true, None),
            (line(30, 3), true, Some("more than 29 domains!")),
            (line(32, 3), false, None),
            (line(33, 3), false, Some("more than 32 domains!")),
            (line(1, 254), true, Some("allowed 253 chars!")),
            (line(9, 250), true, Some("allowed 2048 chars!")),
            ("nameserver\n".to_owned(), true, Some("list is empty")),
        ];
        for (text, cluster, expected) in table {
            let told = exceeds(&text, cluster);
            match expected {
                Some(expected) => assert!(told.unwrap().contains(expected), "{text}"),
                None => assert_eq!(told, None, "{text}"),
            }
        }
    }
}
