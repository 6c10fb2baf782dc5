//! Fuzz targets for everything that reads what strangers send: patches, apply, selectors,
//! quantities, names and the wire formats.
//!
//! Each target is a test. It gets the inputs of its corpus, which lies in `__fuzz__/TARGET/corpus`,
//! and random ones ([`drawn`]): some in `cargo test`, and as many as 30 seconds allow in CI. An input
//! that found a fault is kept in the corpus.
//!
//! Random bytes alone hardly ever parse. So targets draw from them ([`draw`]): texts of the words
//! of a grammar, JSON, objects that fit the schemas of Kubernetes. A corpus file of a target that
//! reads text is that text.

#![allow(clippy::unwrap_used, missing_docs)]

mod apply;
mod draw;
mod drawn;
mod names;
mod objects;
mod patches;
mod quantities;
mod reference;
mod selectors;
mod two_way;
mod wire;
mod yaml;

/// Runs a target over its corpus and over random inputs.
macro_rules! fuzz {
    ($target:expr) => {
        bolero::check!()
            .with_iterations(0)
            .for_each(|bytes: &[u8]| $target(bytes));
        crate::drawn::inputs(|bytes| $target(bytes));
    };
}
pub(crate) use fuzz;
