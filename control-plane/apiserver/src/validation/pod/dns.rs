//! How a Pod resolves names, and what it is called itself.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig, PodSpec};

use crate::validation::legacy_address::{NEW, validate_legacy_ip};
use crate::validation::{faults, items, one_of, shown, text};

const POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
// The limits are those of the resolver of Linux' libc.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;
/// Longest name of a host that Linux takes.
const MAX_HOSTNAME: usize = 64;

/// dnsPolicy and dnsConfig of a Pod.
pub(crate) fn validate_dns(spec: &PodSpec, at: &Path, errors: &mut ErrorList) {
    let policy = text(&spec.dns_policy);
    one_of(policy, POLICIES, &at.child("dnsPolicy"), errors);
    let at = at.child("dnsConfig");
    match (&spec.dns_config, policy == "None") {
        (None, true) => {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(Error::required(&at, detail));
        }
        (Some(config), true) if items(&config.nameservers).is_empty() => {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(Error::required(&at.child("nameservers"), detail));
        }
        (Some(config), _) => validate_config(config, &at, errors),
        (None, false) => {}
    }
}

fn validate_config(config: &PodDNSConfig, at: &Path, errors: &mut ErrorList) {
    let (servers, searches) = (items(&config.nameservers), items(&config.searches));
    let servers_at = at.child("nameservers");
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(Error::invalid(&servers_at, shown(&servers), detail));
    }
    for (i, server) in servers.iter().enumerate() {
        validate_legacy_ip(server, NEW, &servers_at.index(i), errors);
    }
    let searches_at = at.child("searches");
    if searches.len() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(Error::invalid(&searches_at, shown(&searches), detail));
    }
    if searches.join(" ").len() > MAX_SEARCH_LENGTH {
        let detail = format!(
            "must not have more than {MAX_SEARCH_LENGTH} characters (including spaces) in the search list"
        );
        errors.push(Error::invalid(&searches_at, shown(&searches), detail));
    }
    for (i, search) in searches
        .iter()
        .enumerate()
        .filter(|(_, search)| *search != ".")
    {
        let search = search.strip_suffix('.').unwrap_or(search);
        faults(
            search,
            names::dns_subdomain_with_underscore(search),
            &searches_at.index(i),
            errors,
        );
    }
    for (i, option) in items(&config.options).iter().enumerate() {
        if text(&option.name).is_empty() {
            errors.push(Error::required(
                &at.child("options").index(i),
                "must not be empty",
            ));
        }
    }
}

/// Lines of the Pod's /etc/hosts.
pub(crate) fn validate_host_aliases(aliases: &[HostAlias], at: &Path, errors: &mut ErrorList) {
    for (i, alias) in aliases.iter().enumerate() {
        let at = at.index(i);
        validate_legacy_ip(&alias.ip, NEW, &at.child("ip"), errors);
        for (j, name) in items(&alias.hostnames).iter().enumerate() {
            faults(
                name,
                names::dns_subdomain(name),
                &at.child("hostnames").index(j),
                errors,
            );
        }
    }
}

/// What a Pod is called within its own network.
pub(crate) fn validate_hostnames(spec: &PodSpec, at: &Path, errors: &mut ErrorList) {
    for (field, name) in [
        ("hostname", text(&spec.hostname)),
        ("subdomain", text(&spec.subdomain)),
    ] {
        if !name.is_empty() {
            faults(name, names::dns_label(name), &at.child(field), errors);
        }
    }
    let Some(name) = &spec.hostname_override else {
        return;
    };
    let at = at.child("hostnameOverride");
    if name.len() > MAX_HOSTNAME {
        errors.push(Error::too_long(&at, MAX_HOSTNAME));
    }
    faults(name, names::dns_subdomain(name), &at, errors);
    if spec.set_hostname_as_fqdn == Some(true) {
        let detail = "may not be specified when setHostnameAsFQDN is true";
        errors.push(Error::forbidden(&at, detail));
    }
    if spec.host_network == Some(true) {
        errors.push(Error::forbidden(
            &at,
            "may not be specified when hostNetwork is true",
        ));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn dns() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (json!({"dnsPolicy": "ClusterFirst"}), vec![]),
            (
                json!({"dnsPolicy": "Maybe"}),
                vec!["spec.dnsPolicy FieldValueNotSupported"],
            ),
            (
                json!({"dnsPolicy": "None"}),
                vec!["spec.dnsConfig FieldValueRequired must provide `dnsConfig`"],
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {}}),
                vec!["spec.dnsConfig.nameservers FieldValueRequired must provide at least one"],
            ),
            (
                json!({"dnsPolicy": "Default", "dnsConfig": {"nameservers": ["010.1.1.1"]}}),
                vec!["spec.dnsConfig.nameservers[0] FieldValueInvalid must not have leading 0s"],
            ),
            (
                json!({"dnsPolicy": "Default", "dnsConfig": {"nameservers": ["x"], "searches": [".", "_tcp.a.", "b_c.d", "A"], "options": [{}]}}),
                vec![
                    "spec.dnsConfig.nameservers[0] FieldValueInvalid must be a valid IP address",
                    "spec.dnsConfig.searches[3] FieldValueInvalid",
                    "spec.dnsConfig.options[0] FieldValueRequired must not be empty",
                ],
            ),
        ];
        for (mut value, want) in table {
            value["containers"] = json!([]);
            let mut errors = ErrorList::default();
            validate_dns(
                &serde_json::from_value(value).unwrap(),
                &Path::new("spec"),
                &mut errors,
            );
            assert_causes(&errors, &want);
        }
    }
}
