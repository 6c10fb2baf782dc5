//! How the tables of the validation tests read errors, and lists as long as a body can have them.

use std::ops::RangeInclusive;

use coracle_apimachinery::field::{Error, ErrorList};
use coracle_apimachinery::gvk::GroupKind;
use coracle_apimachinery::status::Status;

/// Items of a list that is long: what compares each with each is minutes about it.
pub(crate) const COUNT: usize = 100_000;

/// One thing of each name.
pub(crate) fn named<T>(count: usize, make: impl Fn(String) -> T) -> Vec<T> {
    (0..count).map(|i| make(format!("n{i}"))).collect()
}

/// As many things as a long list has, each of its own name.
pub(crate) fn many<T>(make: impl Fn(String) -> T) -> Vec<T> {
    named(COUNT, make)
}

/// Asserts that there are so many errors, and that the answer that tells of them has an end.
#[track_caller]
pub(crate) fn assert_ends(name: &str, errors: ErrorList, want: &RangeInclusive<usize>) {
    let count = errors.len();
    assert!(want.contains(&count), "{name}: {count}");
    let kind = GroupKind::new("", "Pod");
    let bytes = Status::invalid(&kind, "a", errors).to_json().len();
    assert!(bytes < 1024 * 1024, "{name}: {bytes}");
}

/// Asserts that the errors are, in this order, those of `want`: each is a field, the reason of
/// its cause, and how the detail begins, separated by spaces.
#[track_caller]
pub(crate) fn assert_causes(errors: &[Error], want: &[&str]) {
    let got: Vec<String> = errors
        .iter()
        .map(|error| format!("{} {} {}", error.field, error.kind.reason(), error.detail))
        .collect();
    let matches = got.len() == want.len()
        && got
            .iter()
            .zip(want)
            .all(|(got, want)| got.starts_with(want));
    assert!(matches, "got {got:#?}\nwant {want:#?}");
}
