//! Reading the logs of containers.
//!
//! Runtimes write them, in the CRI format, and rotate them: beside `<attempt>.log` lie the
//! older parts as `<attempt>.log.<time>`. [`options`] is what a reader may ask for, [`line`]
//! takes a line apart, [`files`] knows the names, [`reader`] reads and follows.

pub(crate) mod files;
pub(crate) mod line;
pub(crate) mod options;
pub(crate) mod reader;

#[cfg(test)]
mod tests;
