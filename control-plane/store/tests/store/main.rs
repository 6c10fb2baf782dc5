//! The suite over every store, and what each of them must do besides.

#![allow(clippy::unwrap_used)]

mod full_disk;
mod kill;
mod memory;
mod one_voter;
mod three_voters;
