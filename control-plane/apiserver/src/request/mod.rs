//! What a request asks for: path, query, media types and body, decoded before any handler runs.

pub mod body;
pub mod info;
pub mod media;
pub mod options;
pub mod strict;
