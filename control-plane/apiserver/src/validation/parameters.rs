//! Parameters of classes, which only their drivers understand.

use std::collections::BTreeMap;

use coracle_apimachinery::field::{Error, ErrorList, Path};

/// Most parameters.
const MAX: usize = 512;
/// Most bytes of all keys and values together.
const MAX_SIZE: usize = 256 * 1024;

/// Parameters: not too many, not too large, and each has a name.
pub(crate) fn validate_parameters(
    parameters: Option<&BTreeMap<String, String>>,
    may_be_empty: bool,
    at: &Path,
    errors: &mut ErrorList,
) {
    let none = BTreeMap::new();
    let parameters = parameters.unwrap_or(&none);
    if parameters.len() > MAX {
        errors.push(Error::too_long(at, MAX));
        return;
    }
    if parameters.is_empty() && !may_be_empty {
        let detail = "must contain at least one key/value pair";
        errors.push(Error::required(at, detail));
    }
    if parameters.contains_key("") {
        errors.push(Error::invalid(at, "", "field can not be empty."));
    }
    let size: usize = parameters.iter().map(|(k, v)| k.len() + v.len()).sum();
    if size > MAX_SIZE {
        errors.push(Error::too_long(at, MAX_SIZE));
    }
}
