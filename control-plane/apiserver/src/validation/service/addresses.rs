//! The addresses of a Service. Which ones it gets is the registry's affair.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::ServiceSpec;

use super::is_headless;
use crate::validation::address;
use crate::validation::legacy_address::{NEW, validate_legacy_ip};
use crate::validation::{items, one_of, shown, text};

/// Cluster IPs and their families. The cluster has addresses of IPv4 only.
pub(super) fn validate_cluster_ips(spec: &ServiceSpec, at: &Path, errors: &mut ErrorList) {
    if text(&spec.type_) == "ExternalName" {
        return;
    }
    let ips = items(&spec.cluster_ips);
    let ips_at = at.child("clusterIPs");
    match (text(&spec.cluster_ip), ips.first()) {
        ("", None) => {}
        ("", Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(Error::invalid(&ips_at, shown(&ips), detail));
        }
        (_, None) => errors.push(Error::required(&ips_at, "")),
        (ip, Some(first)) if ip != first => {
            errors.push(Error::invalid(
                &ips_at,
                shown(&ips),
                "first value must match `clusterIP`",
            ));
        }
        _ => {}
    }
    validate_families(spec, at, errors);
    let before = errors.len();
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && ip == "None" {
            if ips.len() > 1 {
                errors.push(Error::invalid(
                    &ips_at,
                    shown(&ips),
                    "'None' must be the first and only value",
                ));
            }
        } else {
            validate_legacy_ip(ip, NEW, &ips_at.index(i), errors);
        }
    }
    if errors.len() > before {
        return;
    }
    if ips.len() > 2 {
        errors.push(Error::invalid(
            &ips_at,
            shown(&ips),
            "may only hold up to 2 values",
        ));
    }
    if ips.len() > 1 && !address::is_dual_stack(ips) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(Error::invalid(&ips_at, shown(&ips), detail));
    }
    let families = items(&spec.ip_families);
    for (i, (ip, family)) in ips
        .iter()
        .zip(families)
        .enumerate()
        .filter(|_| !is_headless(spec))
    {
        let is_v6 = address::parse(ip).is_some_and(|ip| ip.is_ipv6());
        if is_v6 != (family == "IPv6") {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.push(Error::invalid(&ips_at.index(i), ip.as_str(), detail));
        }
    }
}

fn validate_families(spec: &ServiceSpec, at: &Path, errors: &mut ErrorList) {
    let families = items(&spec.ip_families);
    let families_at = at.child("ipFamilies");
    let mut seen = BTreeSet::new();
    for (i, family) in families.iter().enumerate() {
        let known = ["IPv4", "IPv6"];
        if !known.contains(&family.as_str()) {
            let at = families_at.index(i);
            errors.push(Error::not_supported(&at, family.as_str(), &known));
        }
        if !seen.insert(family) {
            errors.push(Error::duplicate(&families_at.index(i), family.as_str()));
        }
    }
    if let Some(policy) = &spec.ip_family_policy {
        let supported = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        one_of(policy, &supported, &at.child("ipFamilyPolicy"), errors);
    }
    // The endpoints of a headless Service without a selector are somebody else's.
    if is_headless(spec)
        && spec
            .selector
            .as_ref()
            .is_none_or(|selector| selector.is_empty())
    {
        return;
    }
    if text(&spec.ip_family_policy) == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(Error::invalid(
            &at.child("ipFamilyPolicy"),
            "RequireDualStack",
            detail,
        ));
    }
    for (i, _) in families
        .iter()
        .enumerate()
        .filter(|(_, family)| *family == "IPv6")
    {
        errors.push(Error::invalid(
            &families_at.index(i),
            "IPv6",
            "not configured on this cluster",
        ));
    }
}

/// A Service keeps its addresses for as long as it has any.
pub(super) fn validate_kept_addresses(
    spec: &ServiceSpec,
    was: &ServiceSpec,
    errors: &mut ErrorList,
) {
    if text(&spec.type_) == "ExternalName" || text(&was.type_) == "ExternalName" {
        return;
    }
    let (headless, was_headless) = (is_headless(spec), is_headless(was));
    let (ips, old_ips) = (items(&spec.cluster_ips), items(&was.cluster_ips));
    let ips_at = Path::new("spec").child("clusterIPs");
    if !(headless && was_headless) {
        if ips.is_empty() && !old_ips.is_empty() {
            let detail = "primary clusterIP can not be unset";
            errors.push(Error::invalid(&ips_at.index(0), shown(&ips), detail));
        }
        for (i, (ip, old)) in ips.iter().zip(old_ips).enumerate() {
            if ip != old {
                errors.push(Error::invalid(
                    &ips_at.index(i),
                    shown(&ips),
                    "may not change once set",
                ));
            }
        }
    }
    if headless || was_headless {
        return;
    }
    let (families, old_families) = (items(&spec.ip_families), items(&was.ip_families));
    if let (Some(family), Some(old)) = (families.first(), old_families.first())
        && family != old
    {
        let at = Path::new("spec").child("ipFamilies").index(0);
        errors.push(Error::invalid(
            &at,
            shown(&families),
            "may not change once set",
        ));
    }
}
