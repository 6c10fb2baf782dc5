//! Names of drivers, pools, attributes and shares.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;

use crate::validation::faults;
use crate::validation::volume::storage;

/// Bytes of the name of a pool.
const MAX_POOL: usize = 253;
/// Bytes of the part of a name that is an identifier.
const MAX_IDENTIFIER: usize = 32;

/// The name of a driver: that of one of the Container Storage Interface.
pub(super) fn validate_driver(name: &str, at: &Path, errors: &mut ErrorList) {
    storage::validate_driver_name(name, at, errors);
}

/// The name of a device, or of a request for one.
pub(super) fn validate_label(name: &str, at: &Path, errors: &mut ErrorList) {
    faults(name, names::dns_label(name), at, errors);
}

/// The name of a pool: subdomains, with slashes between them.
pub(super) fn validate_pool(name: &str, at: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(Error::required(at, ""));
        return;
    }
    if name.len() > MAX_POOL {
        errors.push(Error::too_long(at, MAX_POOL));
    }
    for part in name.split('/') {
        faults(part, names::dns_subdomain(part), at, errors);
    }
}

/// The name of an attribute or a capacity, which may begin with whose it is.
pub(super) fn validate_qualified(name: &str, at: &Path, errors: &mut ErrorList) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [identifier] => validate_identifier(identifier, at, errors),
        [domain, identifier] => {
            if domain.is_empty() {
                errors.push(Error::invalid(at, "", "the domain must not be empty"));
            } else {
                validate_driver(domain, at, errors);
            }
            if identifier.is_empty() {
                errors.push(Error::invalid(at, "", "the name must not be empty"));
            } else {
                validate_identifier(identifier, at, errors);
            }
        }
        _ => {
            let detail = "must not contain more than one slash";
            errors.push(Error::invalid(at, name, detail));
        }
    }
}

/// The same, where it has to say whose it is.
pub(super) fn validate_fully_qualified(name: &str, at: &Path, errors: &mut ErrorList) {
    validate_qualified(name, at, errors);
    if !name.contains('/') {
        let detail = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(Error::invalid(at, name, detail));
    }
}

fn validate_identifier(name: &str, at: &Path, errors: &mut ErrorList) {
    if name.len() > MAX_IDENTIFIER {
        errors.push(Error::too_long(at, MAX_IDENTIFIER));
    }
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !valid {
        let detail = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.push(Error::invalid(at, name, detail));
    }
}

/// The mark of one share of a device.
pub(super) fn validate_share(id: &str, at: &Path, errors: &mut ErrorList) {
    let parsed = uuid::Uuid::parse_str(id);
    if !parsed.is_ok_and(|parsed| parsed.hyphenated().to_string() == id) {
        let detail = "must be a lowercase UUID in 8-4-4-4-12 format";
        errors.push(Error::invalid(at, id, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn all_names() {
        type Rule = fn(&str, &Path, &mut ErrorList);
        let long = "a".repeat(33);
        let table: [(Rule, &str, &[&str]); 14] = [
            (validate_pool, "node-1/gpu.example.com", &[]),
            (validate_pool, "", &["n FieldValueRequired"]),
            (
                validate_pool,
                "a//b",
                &["n FieldValueInvalid a lowercase RFC 1123 subdomain"],
            ),
            (validate_qualified, "memory", &[]),
            (validate_qualified, "example.com/Memory_1", &[]),
            (
                validate_qualified,
                "/a",
                &["n FieldValueInvalid the domain must not be empty"],
            ),
            (
                validate_qualified,
                "a/",
                &["n FieldValueInvalid the name must not be empty"],
            ),
            (
                validate_qualified,
                "a/b/c",
                &["n FieldValueInvalid must not contain more than one slash"],
            ),
            (
                validate_qualified,
                "1a",
                &["n FieldValueInvalid a valid C identifier"],
            ),
            (
                validate_qualified,
                &long,
                &["n FieldValueTooLong may not be more than 32 bytes"],
            ),
            (
                validate_fully_qualified,
                "a",
                &["n FieldValueInvalid a fully qualified name must be"],
            ),
            (validate_share, "0b6f4a3e-2c8e-4c7e-9f3b-0d6d5f1c2a11", &[]),
            (
                validate_share,
                "0B6f4a3e-2c8e-4c7e-9f3b-0d6d5f1c2a11",
                &["n FieldValueInvalid must be a lowercase UUID"],
            ),
            (
                validate_share,
                "x",
                &["n FieldValueInvalid must be a lowercase UUID"],
            ),
        ];
        for (rule, name, want) in table {
            let mut errors = ErrorList::default();
            rule(name, &Path::new("n"), &mut errors);
            assert_causes(&errors, want);
        }
    }
}
