//! Paths within volumes.

use coracle_apimachinery::field::{Error, ErrorList, Path};

/// A path that does not climb out of where it is used.
pub(crate) fn validate_no_backsteps(path: &str, at: &Path, errors: &mut ErrorList) {
    if path.split('/').any(|element| element == "..") {
        errors.push(Error::invalid(at, path, "must not contain '..'"));
    }
}

/// A relative path that does not climb.
pub(crate) fn validate_local_descending(path: &str, at: &Path, errors: &mut ErrorList) {
    if path.starts_with('/') {
        errors.push(Error::invalid(at, path, "must be a relative path"));
    }
    validate_no_backsteps(path, at, errors);
}

/// A relative path that does not climb, nor begins like the names that the kubelet reserves.
pub(crate) fn validate_local_non_reserved(path: &str, at: &Path, errors: &mut ErrorList) {
    validate_local_descending(path, at, errors);
    // What begins with "../" has its error already.
    if path.starts_with("..") && !path.starts_with("../") {
        errors.push(Error::invalid(at, path, "must not start with '..'"));
    }
}

/// The permission bits of a file.
pub(crate) fn validate_mode(mode: Option<i32>, at: &Path, errors: &mut ErrorList) {
    if let Some(mode) = mode
        && !(0..=0o777).contains(&mode)
    {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(Error::invalid(at, mode, detail));
    }
}
