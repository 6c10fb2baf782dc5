//! The part that says who the Pods of this node are: an index by address, and a JSON text for
//! each, which is read when a name is looked up.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::pods::PodRecord;

use super::sections::{Builder, number, read_number, section};

const SIZE: usize = 12;

/// Encodes the part from records that are encoded already.
pub(crate) fn encode(pods: &BTreeMap<Ipv4Addr, Arc<[u8]>>) -> Vec<u8> {
    let mut index = Vec::with_capacity(pods.len() * SIZE);
    let mut heap = Vec::new();
    for (ip, record) in pods {
        index.extend(ip.octets());
        index.extend(number(heap.len()));
        index.extend(number(record.len()));
        heap.extend_from_slice(record);
    }
    let builder = Builder::default().section(SIZE, index);
    builder.section(1, heap).build()
}

/// Reads the part.
pub(crate) struct Pods<'a>(pub(crate) &'a [u8]);

impl Pods<'_> {
    /// Who has an address.
    pub(crate) fn get(&self, ip: Ipv4Addr) -> Option<PodRecord> {
        let octets = ip.octets();
        let record = section(self.0, 0)?.find(|record| record[..4].cmp(&octets[..]))?;
        let (offset, length) = (read_number(record, 4)?, read_number(record, 8)?);
        let text = section(self.0, 1)?.range(offset, length)?;
        serde_json::from_slice(text).ok()
    }
}
