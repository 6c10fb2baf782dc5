//! IP addresses and ranges.

use std::net::IpAddr;

use coracle_apimachinery::field::{Error, ErrorList, Path};

/// What Kubernetes says of what is no address.
pub(super) const NO_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
/// What Kubernetes says of what is no range of addresses.
pub(super) const NO_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// What keeps a value from being an address in its canonical form.
pub(crate) fn canonical_ip(value: &str) -> Vec<String> {
    match value.parse::<IpAddr>() {
        Err(_) => vec![NO_IP.to_owned()],
        Ok(ip) if ip.to_string() != value => {
            vec![format!("must be in canonical form ({:?})", ip.to_string())]
        }
        Ok(_) => Vec::new(),
    }
}

/// What keeps a value from being an address on an interface: an address in its canonical form, and
/// how much of it the network has.
pub(crate) fn interface_address_faults(value: &str) -> Vec<String> {
    let Some((ip, bits)) = parse_cidr(value) else {
        let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        return vec![detail.to_owned()];
    };
    let canonical = format!("{ip}/{bits}");
    if canonical == value {
        Vec::new()
    } else {
        vec![format!("must be in canonical form ({canonical:?})")]
    }
}

/// A range of addresses in its canonical form: no bits are set that it does not fix.
pub(crate) fn validate_canonical_cidr(value: &str, at: &Path, errors: &mut ErrorList) {
    let Some((ip, bits)) = parse_cidr(value) else {
        errors.push(Error::invalid(at, value, NO_CIDR));
        return;
    };
    let network = masked(ip, bits);
    if network != ip {
        let detail = "must not have bits set beyond the prefix length";
        errors.push(Error::invalid(at, value, detail));
        return;
    }
    let canonical = format!("{network}/{bits}");
    if canonical != value {
        let detail = format!("must be in canonical form ({canonical:?})");
        errors.push(Error::invalid(at, value, detail));
    }
}

/// Whether a range lies within another and is smaller; none where one is no range.
pub(crate) fn is_strict_subset(inner: &str, outer: &str) -> Option<bool> {
    let ((inner_ip, inner_bits), (outer_ip, outer_bits)) = (parse_cidr(inner)?, parse_cidr(outer)?);
    let within = inner_ip.is_ipv6() == outer_ip.is_ipv6()
        && masked(inner_ip, outer_bits) == masked(outer_ip, outer_bits);
    Some(within && outer_bits < inner_bits)
}

/// The address of a range, and how many bits of it are fixed.
pub(crate) fn parse_cidr(value: &str) -> Option<(IpAddr, u8)> {
    family_of_cidr(value)?;
    let (address, bits) = value.split_once('/')?;
    Some((parse(address)?, bits.parse().ok()?))
}

/// The first bits of an address, all others zero.
pub(crate) fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    let bits = u32::from(bits);
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            IpAddr::from((u32::from(ip) & mask).to_be_bytes())
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            IpAddr::from((u128::from(ip) & mask).to_be_bytes())
        }
    }
}

/// An address that means the same on every machine: what endpoints and external addresses are.
pub(crate) fn validate_non_special_ip(value: &str, at: &Path, errors: &mut ErrorList) {
    let Some(ip) = parse(value) else {
        errors.push(Error::invalid(at, value, "must be a valid IP address"));
        return;
    };
    let mut refuse = |detail: &str| errors.push(Error::invalid(at, value, detail));
    if ip.is_unspecified() {
        refuse(&format!("may not be unspecified ({value})"));
    }
    if ip.is_loopback() {
        refuse("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (
            ip.segments()[0] & 0xffc0 == 0xfe80,
            ip.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    if link_local {
        refuse("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        refuse("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// Whether there is exactly one address of each family.
pub(crate) fn is_dual_stack<S: AsRef<str>>(ips: &[S]) -> bool {
    let v6 = ips
        .iter()
        .filter_map(|ip| parse(ip.as_ref()))
        .filter(IpAddr::is_ipv6)
        .count();
    ips.len() == 2 && v6 == 1
}

/// An address, also one whose IPv4 octets have leading zeros, as Kubernetes takes it.
pub(crate) fn parse(value: &str) -> Option<IpAddr> {
    if let Ok(ip) = value.parse() {
        return Some(ip);
    }
    let mut octets = [0; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = part
            .parse::<u32>()
            .ok()
            .and_then(|n| u8::try_from(n).ok())?;
    }
    parts.next().is_none().then(|| IpAddr::from(octets))
}

/// Whether a range is one of IPv6; none where it is not a range.
pub(crate) fn family_of_cidr(value: &str) -> Option<bool> {
    let (address, bits) = value.split_once('/')?;
    let address = parse(address)?;
    if bits.is_empty() || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let max = if address.is_ipv6() { 128 } else { 32 };
    (bits.parse::<u8>().ok()? <= max).then_some(address.is_ipv6())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_refused() {
        let table = [
            ("10.0.0.1", 0),
            ("010.0.0.1", 0),
            ("fd00::1", 0),
            ("0.0.0.0", 1),
            ("127.0.0.1", 1),
            ("::1", 1),
            ("169.254.1.1", 1),
            ("fe80::1", 1),
            ("224.0.0.5", 1),
            ("ff02::1", 1),
            ("10.0.0", 1),
            ("", 1),
        ];
        for (ip, want) in table {
            let mut errors = ErrorList::default();
            validate_non_special_ip(ip, &Path::new("ip"), &mut errors);
            assert_eq!(errors.len(), want, "{ip}: {errors:?}");
        }
    }

    #[test]
    fn ranges() {
        let table = [
            ("10.0.0.0/8", Some(false)),
            ("fd00::/64", Some(true)),
            ("10.0.0.0/33", None),
            ("10.0.0.0", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/+8", None),
        ];
        for (range, want) in table {
            assert_eq!(family_of_cidr(range), want, "{range}");
        }
    }
}
