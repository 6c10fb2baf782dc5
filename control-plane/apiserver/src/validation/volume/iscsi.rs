//! Storage over iSCSI, and how its ends are named.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::ISCSIVolumeSource;

use super::storage::RANGE_255;

/// `unknown` is what is said of a name of no known format.
pub(crate) fn validate_iscsi(
    iscsi: &ISCSIVolumeSource,
    unknown: &str,
    at: &Path,
    errors: &mut ErrorList,
) {
    if iscsi.target_portal.is_empty() {
        errors.push(Error::required(&at.child("targetPortal"), ""));
    }
    let names = [
        ("iqn", Some(&iscsi.iqn)),
        ("initiatorname", iscsi.initiator_name.as_ref()),
    ];
    for (field, name) in names {
        let Some(name) = name.map(String::as_str) else {
            continue;
        };
        let at = at.child(field);
        let valid = match name.get(..3) {
            _ if name.is_empty() && field == "iqn" => {
                errors.push(Error::required(&at, ""));
                continue;
            }
            Some("iqn") => is_iqn(name),
            Some("eui") => is_suffixed(name, 16),
            Some("naa") => is_suffixed(name, 32),
            _ => {
                errors.push(Error::invalid(&at, name, unknown));
                continue;
            }
        };
        if !valid {
            errors.push(Error::invalid(&at, name, "must be valid format"));
        }
    }
    if !(0..=255).contains(&iscsi.lun) {
        errors.push(Error::invalid(&at.child("lun"), iscsi.lun, RANGE_255));
    }
    let chap = iscsi.chap_auth_discovery == Some(true) || iscsi.chap_auth_session == Some(true);
    if chap && iscsi.secret_ref.is_none() {
        errors.push(Error::required(&at.child("secretRef"), ""));
    }
}

/// An iSCSI Qualified Name (RFC 3720): when the domain was its owner's, the domain reversed, a name.
fn is_iqn(name: &str) -> bool {
    let refused = [',', ';', '*', '&', '$', '|', ' ', '\t', '\n', '\r', '\u{c}'];
    let first_target = name.rfind(refused).map_or(0, |last| last + 1);
    // Where what follows an owner's colon begins.
    let mut target = 0;
    name.split(':').any(|owner| {
        target += owner.len() + 1;
        (first_target..name.len()).contains(&target) && is_owner(owner)
    })
}

/// Whether a text ends with the date and the domain of an owner, which Kubernetes finds anywhere.
fn is_owner(text: &str) -> bool {
    const DATE: usize = "2001-04.".len();
    let is_domain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let domain = text.trim_end_matches(is_domain).len();
    text.match_indices("iqn.").any(|(i, found)| {
        let begin = i + found.len();
        let end = begin + DATE;
        let date = text.as_bytes().get(begin..end).unwrap_or_default();
        let is_date = date.iter().enumerate().all(|(i, byte)| match i {
            4 => *byte == b'-',
            7 => *byte == b'.',
            _ => byte.is_ascii_digit(),
        });
        is_date && (domain..text.len()).contains(&end)
    })
}

/// A name of a format of three letters, any character, and so many letters and digits.
fn is_suffixed(name: &str, length: usize) -> bool {
    let mut rest = name.chars().skip(3);
    let divided = rest.next().is_some_and(|divider| divider != '\n');
    let suffix: Vec<char> = rest.collect();
    divided && suffix.len() == length && suffix.iter().all(char::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn names_are_of_a_format() {
        let valid = "must be valid format";
        let table = [
            ("iqn.2015-02.example.com:test", None),
            ("iqn.iqn.2015-02.example.com:a:b", None),
            ("eui.0123456789abcdef", None),
            ("naa.0123456789abcdef0123456789abcdef", None),
            ("iqn.2015-02._:iqn.2015-02.a:t", None),
            ("iqn.2015-02.example.com", Some(valid)),
            ("iqn.2015-02.:test", Some(valid)),
            ("iqn.2015-02.a_b:test", Some(valid)),
            ("iqn.2015-02.a:", Some(valid)),
            ("iqn.2015-2.example.com:test", Some(valid)),
            ("iqn.2015-02.example.com:te st", Some(valid)),
            ("eui.0123456789abcde", Some(valid)),
            ("naa.0123456789abcdef", Some(valid)),
            ("", Some("")),
            ("x", Some("unknown")),
        ];
        for (name, want) in table {
            let iscsi = ISCSIVolumeSource {
                target_portal: "p".to_owned(),
                iqn: name.to_owned(),
                ..ISCSIVolumeSource::default()
            };
            let mut errors = ErrorList::default();
            validate_iscsi(&iscsi, "unknown", &Path::new("iscsi"), &mut errors);
            let reason = if name.is_empty() {
                "Required"
            } else {
                "Invalid"
            };
            let want = want.map(|detail| format!("iscsi.iqn FieldValue{reason} {detail}"));
            let want: Vec<&str> = want.iter().map(String::as_str).collect();
            assert_causes(&errors, &want);
        }
    }
}
