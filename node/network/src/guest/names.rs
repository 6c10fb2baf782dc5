//! In which order a name is tried, after resolv.conf(5). Pure.

use std::net::Ipv4Addr;

use crate::pods::PodRecord;

/// Longest name that DNS allows.
const NAME_MAX: usize = 253;

/// The fully qualified names to try for a name, in lower case, without the dot at the end.
pub(super) fn candidates(name: &str, pod: &PodRecord) -> Vec<String> {
    let lower = name.to_ascii_lowercase();
    if let Some(absolute) = lower.strip_suffix('.') {
        return if is_valid(absolute) {
            vec![absolute.to_owned()]
        } else {
            Vec::new()
        };
    }
    if !is_valid(&lower) {
        return Vec::new();
    }
    let dots = lower.bytes().filter(|b| *b == b'.').count();
    let searched = pod.search.iter().map(|domain| format!("{lower}.{domain}"));
    let searched = searched.filter(|name| is_valid(name));
    let as_is = std::iter::once(lower.clone());
    if dots >= usize::try_from(pod.ndots).unwrap_or(usize::MAX) {
        as_is.chain(searched).collect()
    } else {
        searched.chain(as_is).collect()
    }
}

fn is_valid(name: &str) -> bool {
    name.len() <= NAME_MAX
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len()) && !label.bytes().any(|b| b <= b' ' || b == 0x7f)
        })
}

/// Whether a name lies in a domain.
pub(super) fn is_in(name: &str, domain: &str) -> bool {
    match name.strip_suffix(domain) {
        Some(rest) => rest.is_empty() || rest.ends_with('.'),
        None => false,
    }
}

/// The address in a name such as `10-42-0-5.ns.pod.cluster.local`.
pub(super) fn pod_address(name: &str, domain: &str) -> Option<Ipv4Addr> {
    let rest = name.strip_suffix(domain)?.strip_suffix(".pod.")?;
    let (address, namespace) = rest.split_once('.')?;
    if namespace.is_empty() || namespace.contains('.') {
        return None;
    }
    address.replace('-', ".").parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pod() -> PodRecord {
        PodRecord {
            search: ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]
                .map(String::from)
                .to_vec(),
            ndots: 5,
            cluster_names: true,
            ..PodRecord::default()
        }
    }

    #[test]
    fn the_order_of_search() {
        let long = "x".repeat(64);
        for (name, expected) in [
            ("Web", vec!["web.shop.svc.cluster.local", "web.svc.cluster.local",
                "web.cluster.local", "web"]),
            ("web.", vec!["web"]),
            ("a.b.c.d.e.f", vec!["a.b.c.d.e.f", "a.b.c.d.e.f.shop.svc.cluster.local",
                "a.b.c.d.e.f.svc.cluster.local", "a.b.c.d.e.f.cluster.local"]),
            ("", vec![]),
            (".", vec![]),
            ("a..b", vec![]),
            ("a b", vec![]),
            (&long, vec![]),
        ] {
            assert_eq!(candidates(name, &pod()), expected, "{name}");
        }
        assert_eq!(candidates("web", &PodRecord::default()), ["web"]);
    }

    #[test]
    fn names_of_pods() {
        let domain = "cluster.local";
        let of = |name: &str| pod_address(name, domain);
        let ip = Ipv4Addr::new(10, 42, 0, 5);
        assert_eq!(of("10-42-0-5.shop.pod.cluster.local"), Some(ip));
        for other in ["10-42-0-5.pod.cluster.local", "web.shop.pod.cluster.local",
            "10-42-0-5.a.b.pod.cluster.local", "10-42-0-5.shop.svc.cluster.local"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert!(is_in("web.cluster.local", domain) && is_in(domain, domain));
        assert!(!is_in("mycluster.local", domain));
    }
}
