//! Why a log could not be opened, or written.

use std::io;
use std::path::PathBuf;

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// What was acknowledged is damaged or gone. Nothing was changed.
    #[error("{path}: corrupt at offset {offset}: {what}; restore it from a copy", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// Another version wrote it, or it is encrypted.
    #[error("{path}: cannot read {what}; another version of coracle wrote it: use that one, or an empty data directory", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not understood.
        what: String,
    },
    /// It belongs to another node.
    #[error("{path}: belongs to node {found}, not to node {wanted}", path = path.display())]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: u64,
        /// Who opens it.
        wanted: u64,
    },
    /// The disk failed.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
}

/// Why an append failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// Nothing was written, and nothing can be until space is made.
    #[error("no space left for the log")]
    NoSpace,
    /// What was written is unknown: the log takes nothing more.
    #[error("writing the log failed: {0}")]
    Failed(#[from] io::Error),
}
