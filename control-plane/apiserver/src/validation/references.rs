//! Names of other things that have a form of their own.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;

use super::faults;

const PATH_CHARACTERS: &str = "/-._~%!$&'()*+,;=:";

/// `acme.io/foo`: who has it, and its name there.
pub(crate) fn validate_domain_prefixed(value: &str, at: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.push(Error::required(at, ""));
        return;
    }
    let Some((domain, path)) = value
        .split_once('/')
        .filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(Error::invalid(at, value, detail));
        return;
    };
    faults(domain, names::dns_subdomain(domain), at, errors);
    let allowed = |c: char| c.is_ascii_alphanumeric() || PATH_CHARACTERS.contains(c);
    if !path.chars().all(allowed) {
        let detail =
            "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        errors.push(Error::invalid(at, path, detail));
    }
}

/// A kind or a name that is required, and a segment of a path.
pub(crate) fn validate_segment(value: &str, at: &Path, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.push(Error::required(at, ""));
    } else {
        faults(value, names::path_segment(value), at, errors);
    }
}
