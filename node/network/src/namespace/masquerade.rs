//! The table of nftables by which what Pods send to elsewhere leaves under the machine's address.
//!
//! ```text
//! table ip coracle-XXXXXXXX {
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat
//!         ip saddr CLUSTER ip daddr != CLUSTER oifname != "coracle-*" masquerade
//!     }
//! }
//! ```
//!
//! What goes to a namespace of Pods stays as it is: containers' questions to the DNS server there,
//! whose address is in no range of Pods. Of several nodes on one machine each has such a table.

use std::io;

use ipnet::Ipv4Net;

use super::plan::LINKS;
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
        .leaves_elsewhere(LINKS)
        .masquerade();
    batch.rule(table, CHAIN, &rule);
    Ok(batch.commit()?)
}
