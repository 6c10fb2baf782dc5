//! Fuzz targets for everything that reads what strangers send: patches, apply, selectors,
//! quantities, names and the wire formats.
//!
//! Each target is a test. `cargo test` gives it the inputs of its corpus, which lies in
//! `__fuzz__/TARGET/corpus`, and some hundred random ones; with `BOLERO_RANDOM_TEST_TIME_MS` it goes
//! on for so long. A failure prints its seed, with which `BOLERO_RANDOM_SEED` repeats it. An
//! input that found a fault is kept in the corpus.
//!
//! Random bytes alone hardly ever parse. So targets draw from them ([`draw`]): texts of the words
//! of a grammar, JSON, objects that fit the schemas of Kubernetes. A corpus file of a target that
//! reads text is that text.

#![allow(clippy::unwrap_used, missing_docs)]

mod apply;
mod draw;
mod names;
mod objects;
mod patches;
mod quantities;
mod reference;
mod selectors;
mod two_way;
mod wire;
mod yaml;

/// How long a target goes on where nothing else is said.
const MOMENT: std::time::Duration = std::time::Duration::from_millis(500);

/// Runs a target over its corpus and over random inputs.
macro_rules! fuzz {
    ($target:expr) => {
        bolero::check!()
            .with_test_time(crate::MOMENT)
            .for_each(|bytes: &[u8]| $target(bytes))
    };
}
pub(crate) use fuzz;
