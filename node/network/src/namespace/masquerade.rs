//! The table of nftables by which what Pods send to elsewhere leaves under the machine's address.
//!
//! ```text
//! table ip coracle-XXXXXXXX {
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat
//!         ip saddr CLUSTER ip daddr != CLUSTER masquerade
//!     }
//! }
//! ```
//!
//! Of several nodes on one machine each has such a table.

use std::io;

use ipnet::Ipv4Net;

use crate::nftables::{Batch, Comparison, Field, Hook, Rule};

/// `srcnat`, where source addresses are translated.
const PRIORITY: i32 = 100;
const CHAIN: &str = "postrouting";

/// Makes the table, in the place of one of that name.
pub(super) fn set(table: &str, cluster: Ipv4Net) -> io::Result<()> {
    let mut batch = Batch::default();
    // Deleting wants it to be there.
    batch.table(table, None);
    batch.delete_table(table);
    batch.table(table, None);
    batch.nat_chain(table, CHAIN, Hook::Postrouting, PRIORITY);
    let rule = Rule::new()
        .range(Field::Source, Comparison::Is, cluster)
        .range(Field::Destination, Comparison::IsNot, cluster)
        .masquerade();
    batch.rule(table, CHAIN, &rule);
    Ok(batch.commit()?)
}
