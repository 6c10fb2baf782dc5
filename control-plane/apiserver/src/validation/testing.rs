//! How the tables of the validation tests read errors.

use coracle_apimachinery::field::Error;

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
