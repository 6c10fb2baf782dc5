//! What guests may know, published by the agent and read by guest processes.
//!
//! A folder holds a header file, `snapshot`, and one file per part and generation:
//!
//! ```text
//! snapshot            magic, version of the format, the newest generation of each part
//! listeners.<gen>     (Pod address, port, protocol) → socket that serves it
//! services.<gen>      the node's ranges and domain; rules of Services; names
//! pods.<gen>          by Pod address: its namespace, host name, search path
//! ```
//!
//! A part's file is complete and never changes once its generation stands in the header; the
//! one before it stays for readers that are between the two, older ones are removed. Readers
//! map the header for good, so that looking for news is one load from memory, and map a part
//! when they need it. Parts are sorted tables that are searched where they lie: nothing is
//! parsed, and all processes share the pages.
//!
//! What it costs is stated by the test `cost`: with 10,000 Pods each listening once and 1,000
//! Services of 10 endpoints, listeners take 320 KB, services 0.3 MB and pods 1 MB; a part is
//! written whole, in about a millisecond or less. That is why parts are separate, changes are
//! collected for [`crate::node::COALESCE`], and a part whose publication was slow waits longer.
//!
//! Nothing is synced: after a crash of the machine the agent writes all anew, and until then
//! readers find an error.

mod listeners;
mod pods;
mod publish;
mod read;
mod sections;
mod services;

pub(crate) use listeners::Listeners;
pub(crate) use pods::Pods;
pub(crate) use publish::Publisher;
pub(crate) use read::Reader;
pub(crate) use services::{Environment, Named, Services, encode as encode_services};

/// First bytes of the header.
const MAGIC: [u8; 8] = *b"CORNETv1";
/// Name of the header file.
const HEADER: &str = "snapshot";
/// Bytes of the header: magic, then a generation per part.
const HEADER_SIZE: usize = 8 + 8 * Part::ALL.len();

/// The parts of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Listeners,
    Services,
    Pods,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Listeners, Self::Services, Self::Pods];

    fn file(self, generation: u64) -> String {
        let name = match self {
            Self::Listeners => "listeners",
            Self::Services => "services",
            Self::Pods => "pods",
        };
        format!("{name}.{generation}")
    }

    /// Where the part's generation stands in the header.
    fn offset(self) -> usize {
        8 + 8 * self as usize
    }
}

#[cfg(test)]
mod tests;
