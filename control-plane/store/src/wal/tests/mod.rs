#![allow(clippy::unwrap_used)]

mod corruption;
mod power_cut;
mod sim;

use std::sync::Arc;

use super::disk::Disk;
use super::error::DataError;
use super::frame::Record;
use super::log::{Log, Opened};
use crate::state::Position;

/// Small enough that a few frames fill a segment.
const SEGMENT: u64 = 8 << 10;

fn open(disk: &Arc<dyn Disk>) -> Result<Opened, DataError> {
    Log::open(disk.clone(), 1, SEGMENT, 0x00c0_ffee)
}

fn entry(index: u64, size: usize) -> Record {
    // Bytes that a scan for frames must not take for one: every value of a byte occurs.
    let payload = (0..size).map(|n| (n as u64 * 7 + index) as u8).collect();
    let position = Position {
        term: 1,
        leader: 1,
        index,
    };
    Record::Entry(position, payload)
}
