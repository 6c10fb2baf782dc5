//! Addresses and ranges in fields that are older than today's rule for them.
//!
//! Such a field takes a form that is not canonical, with a warning, but not one that some programs
//! read as another address: since 1.36 leading zeros, IPv4 within IPv6, and bits beyond a prefix
//! are refused. What an object had before, it keeps.

use std::collections::BTreeSet;
use std::net::IpAddr;

use coracle_apimachinery::field::{Error, ErrorList, Path};

use super::address::{NO_CIDR, NO_IP, masked, parse, parse_cidr};

/// What the object had before.
pub(crate) type Was<'a> = BTreeSet<&'a str>;

/// The object had none, or what it had counts for nothing.
pub(crate) const NEW: &Was<'static> = &BTreeSet::new();

/// An address; `was` are those that the object had.
pub(crate) fn validate_legacy_ip(value: &str, was: &Was<'_>, at: &Path, errors: &mut ErrorList) {
    if let Some(fault) = ip_fault(value).filter(|_| !was.contains(value)) {
        errors.push(Error::invalid(at, value, fault));
    }
}

/// What keeps a value from being an address that means the same to everybody.
pub(crate) fn ip_fault(value: &str) -> Option<&'static str> {
    match (parse(value), value.parse::<IpAddr>()) {
        (None, _) => Some(NO_IP),
        (Some(_), Err(_)) => Some("must not have leading 0s"),
        (Some(_), Ok(ip)) if is_mapped(ip) => Some("must not be an IPv4-mapped IPv6 address"),
        _ => None,
    }
}

/// A range of addresses; `was` are those that the object had.
pub(crate) fn validate_legacy_cidr(value: &str, was: &Was<'_>, at: &Path, errors: &mut ErrorList) {
    if let Some(fault) = cidr_fault(value).filter(|_| !was.contains(value)) {
        errors.push(Error::invalid(at, value, fault));
    }
}

fn cidr_fault(value: &str) -> Option<&'static str> {
    let Some((ip, bits)) = parse_cidr(value) else {
        return Some(NO_CIDR);
    };
    if !is_plain(value, bits) {
        Some("must not have leading 0s in IP or prefix length")
    } else if is_mapped(ip) {
        Some("must not have an IPv4-mapped IPv6 address")
    } else if masked(ip, bits) != ip {
        Some("must not have bits set beyond the prefix length")
    } else {
        None
    }
}

/// What is told of an address that is taken and not in its usual form.
pub(crate) fn ip_warning(value: &str, at: &Path) -> Option<String> {
    let ip = parse(value)?;
    let usual = unmapped(ip).to_string();
    if value.parse::<IpAddr>().is_err() || is_mapped(ip) {
        return Some(format!(
            "{at}: non-standard IP address {value:?} is invalid: use {usual:?}"
        ));
    }
    (ip.is_ipv6() && usual != value).then(|| {
        format!("{at}: IPv6 address {value:?} should be in RFC 5952 canonical format ({usual:?})")
    })
}

/// What is told of a range that is taken and not in its usual form.
pub(crate) fn cidr_warnings(value: &str, at: &Path) -> Vec<String> {
    let Some((ip, bits)) = parse_cidr(value) else {
        return Vec::new();
    };
    let network = masked(ip, bits);
    let usual = format!("{network}/{bits}");
    let mut warnings = Vec::new();
    if network != ip {
        let all = if ip.is_ipv6() { 128 } else { 32 };
        warnings.push(format!(
            "{at}: CIDR value {value:?} is ambiguous in this context (should be {usual:?} or \"{ip}/{all}\"?)"
        ));
    }
    if !is_plain(value, bits) || is_mapped(ip) {
        warnings.push(format!(
            "{at}: non-standard CIDR value {value:?} is invalid: use {usual:?}"
        ));
    }
    if warnings.is_empty() && ip.is_ipv6() && usual != value {
        warnings.push(format!(
            "{at}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format ({usual:?})"
        ));
    }
    warnings
}

/// Whether neither the address nor the length of a range has leading zeros.
fn is_plain(value: &str, bits: u8) -> bool {
    value
        .split_once('/')
        .is_some_and(|(ip, length)| ip.parse::<IpAddr>().is_ok() && length == bits.to_string())
}

fn is_mapped(ip: IpAddr) -> bool {
    unmapped(ip) != ip
}

fn unmapped(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let at = Path::new("ip");
        let table = [
            ("10.0.0.1", None, None),
            ("fd00::1", None, None),
            ("x", Some("must be a valid IP address"), None),
            (
                "010.0.0.1",
                Some("must not have leading 0s"),
                Some("ip: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\""),
            ),
            (
                "::ffff:10.0.0.1",
                Some("must not be an IPv4-mapped IPv6 address"),
                Some(
                    "ip: non-standard IP address \"::ffff:10.0.0.1\" is invalid: use \"10.0.0.1\"",
                ),
            ),
            (
                "FD00:0::1",
                None,
                Some(
                    "ip: IPv6 address \"FD00:0::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
                ),
            ),
        ];
        for (value, fault, warning) in table {
            let mut errors = ErrorList::default();
            validate_legacy_ip(value, NEW, &at, &mut errors);
            let got = errors.first().map(|error| error.detail.as_str());
            assert!(
                match (got, fault) {
                    (Some(got), Some(fault)) => got.starts_with(fault),
                    (got, fault) => got == fault,
                },
                "{value}: {got:?}"
            );
            assert_eq!(ip_warning(value, &at).as_deref(), warning, "{value}");
            let mut errors = ErrorList::default();
            validate_legacy_ip(value, &BTreeSet::from([value]), &at, &mut errors);
            assert!(errors.is_empty(), "{value} was there before");
        }
    }

    #[test]
    fn ranges() {
        let at = Path::new("cidr");
        let leading = "must not have leading 0s in IP or prefix length";
        let beyond = "must not have bits set beyond the prefix length";
        let table: [(&str, Option<&str>, &[&str]); 6] = [
            ("10.0.0.0/8", None, &[]),
            (
                "10.0.0.0/33",
                Some("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
                &[],
            ),
            (
                "10.0.0.0/08",
                Some(leading),
                &["cidr: non-standard CIDR value \"10.0.0.0/08\" is invalid: use \"10.0.0.0/8\""],
            ),
            (
                "010.0.0.1/8",
                Some(leading),
                &[
                    "cidr: CIDR value \"010.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
                    "cidr: non-standard CIDR value \"010.0.0.1/8\" is invalid: use \"10.0.0.0/8\"",
                ],
            ),
            (
                "10.0.0.1/8",
                Some(beyond),
                &[
                    "cidr: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
                ],
            ),
            (
                "FD00::/8",
                None,
                &[
                    "cidr: IPv6 CIDR value \"FD00::/8\" should be in RFC 5952 canonical format (\"fd00::/8\")",
                ],
            ),
        ];
        for (value, fault, warnings) in table {
            let mut errors = ErrorList::default();
            validate_legacy_cidr(value, NEW, &at, &mut errors);
            let got = errors.first().map(|error| error.detail.as_str());
            assert_eq!(got, fault, "{value}");
            assert_eq!(cidr_warnings(value, &at), warnings, "{value}");
        }
    }
}
