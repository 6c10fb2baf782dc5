//! Damage: what is cut, what is refused, and how it is told.

use super::sim::SimDisk;
use super::*;
use crate::wal::frame::{ALIGNMENT, HEADER, Vote};
use crate::wal::recover::name;
use crate::wal::segments::Space;

/// A log of two full segments and a third begun: thirty entries, one frame each, and a vote.
fn written() -> (SimDisk, Vec<(String, usize)>) {
    let disk = SimDisk::default();
    let mut opened = open(&disk.shared()).unwrap();
    opened.keeper.keep().unwrap();
    let vote = Vote {
        term: 3,
        node: 1,
        committed: true,
    };
    opened.log.append(&[Record::Vote(vote)]).unwrap();
    for index in 0..30 {
        opened.log.append(&[entry(index, 600)]).unwrap();
        opened.keeper.keep().unwrap();
    }
    drop(opened);
    let mut frames = Vec::new();
    for number in 1..=3 {
        let bytes = disk.read(&name(number));
        let starts = (0..bytes.len()).step_by(ALIGNMENT);
        let starts = starts.filter(|at| bytes[*at..].starts_with(&0x4c57_5243_u32.to_le_bytes()));
        frames.extend(starts.map(|at| (name(number), at)));
    }
    assert_eq!(frames.len(), 31);
    (disk, frames)
}

fn refused(disk: &SimDisk) -> (String, u64) {
    match open(&disk.shared()) {
        Err(DataError::Corrupt { path, offset, .. }) => {
            let file = path.file_name().unwrap().to_string_lossy().into_owned();
            (file, offset)
        }
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(opened) => panic!("opened with {} entries", opened.contents.entries.len()),
    }
}

#[test]
fn opens_what_it_wrote() {
    let (disk, _) = written();
    let contents = open(&disk.shared()).unwrap().contents;
    assert_eq!(contents.entries.len(), 30);
    assert_eq!(contents.vote.unwrap().term, 3);
}

#[test]
fn damage_before_the_last_frame_is_told_by_file_and_offset() {
    let (disk, frames) = written();
    for (file, start) in &frames[..frames.len() - 1] {
        // Magic, log, sequence, version, key, length, checksum, and the records.
        for at in [0, 5, 13, 20, 24, 33, 37, HEADER, HEADER + 10] {
            let whole = disk.read(file);
            disk.change(file, |bytes| bytes[start + at] ^= 0x10);
            assert_eq!(refused(&disk), (file.clone(), *start as u64), "byte {at}");
            disk.change(file, |bytes| *bytes = whole);
        }
        let whole = disk.read(file);
        disk.change(file, |bytes| bytes[*start..start + 512].fill(0));
        let (_, offset) = refused(&disk);
        assert_eq!(offset, *start as u64, "a lost sector");
        disk.change(file, |bytes| *bytes = whole);
    }
    assert_eq!(open(&disk.shared()).unwrap().contents.entries.len(), 30);
}

#[test]
fn damage_in_the_last_frame_is_a_torn_tail() {
    let (file, start) = written().1.pop().unwrap();
    for at in [0, 13, 33, 37, HEADER, HEADER + 600] {
        let (disk, _) = written();
        disk.change(&file, |bytes| bytes[start + at] ^= 1);
        for look in 0..2 {
            let contents = open(&disk.shared()).unwrap().contents;
            assert_eq!(contents.entries.len(), 29, "byte {at}, look {look}");
        }
        let tail = disk.read(&file).split_off(start);
        assert!(
            tail.iter().all(|byte| *byte == 0),
            "the tail is gone for good"
        );
    }
}

#[test]
fn a_missing_segment_is_corruption() {
    for number in 1..=3 {
        let (disk, _) = written();
        disk.shared().remove(&name(number)).unwrap();
        assert_eq!(refused(&disk).0, name(number));
    }
}

#[test]
fn a_lost_log_is_never_an_empty_store() {
    let (disk, _) = written();
    disk.shared().remove("manifest").unwrap();
    assert_eq!(refused(&disk).0, name(1));
    let (disk, _) = written();
    disk.change("manifest", |bytes| bytes.fill(0xff));
    assert_eq!(refused(&disk).0, "manifest");
}

#[test]
fn one_damaged_slot_of_the_manifest_is_survived() {
    for slot in 0..2 {
        let (disk, _) = written();
        disk.change("manifest", |bytes| bytes[slot * 4096 + 20] ^= 1);
        assert_eq!(open(&disk.shared()).unwrap().contents.entries.len(), 30);
    }
}

#[test]
fn a_vote_never_goes_back() {
    let disk = SimDisk::default();
    let mut opened = open(&disk.shared()).unwrap();
    let vote = |term| Vote {
        term,
        node: 1,
        committed: false,
    };
    opened.log.append(&[Record::Vote(vote(1))]).unwrap();
    opened.log.append(&[Record::Vote(vote(2))]).unwrap();
    drop(opened);
    // The frame of the second vote is the last: its damage is cut, but the vote stays.
    let last = disk
        .read(&name(1))
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap();
    disk.change(&name(1), |bytes| bytes[last] ^= 1);
    let mut contents = open(&disk.shared()).unwrap().contents;
    assert_eq!(contents.vote, Some(vote(2)));
    assert!(contents.take(Record::Vote(vote(1))).is_err());
}

#[test]
fn another_nodes_log_is_refused() {
    let (disk, _) = written();
    let other = Log::open(disk.shared(), 2, SEGMENT, 7).err().unwrap();
    assert!(matches!(
        other,
        DataError::OtherNode {
            found: 1,
            wanted: 2,
            ..
        }
    ));
}

#[test]
fn a_full_disk_leaves_the_reserve() {
    let disk = SimDisk::default();
    // The manifest and three segments, and hardly more.
    disk.limit(Some(4 * SEGMENT + 9000 - SEGMENT / 2));
    let mut opened = open(&disk.shared()).unwrap();
    opened.keeper.keep().unwrap();
    let pool = opened.keeper.pool.clone();
    assert_eq!(pool.space(), Space::Free);
    let mut index = 0;
    let mut spaces = Vec::new();
    while opened.log.append(&[entry(index, 600)]).is_ok() {
        opened.keeper.keep().unwrap();
        spaces.push(pool.space());
        index += 1;
    }
    let full = |space: &Space| matches!(space, Space::Full(_));
    let first = spaces.iter().position(full).unwrap();
    assert!(spaces[..first].iter().all(|space| *space == Space::Free));
    assert!(
        spaces.len() - first > 10,
        "a segment is left for what frees space"
    );
    assert!(matches!(spaces.last(), Some(Space::Exhausted(_))));
    // All that was acknowledged is there, and space that is made is taken.
    drop(opened);
    let mut opened = open(&disk.shared()).unwrap();
    assert_eq!(opened.contents.entries.len() as u64, index);
    disk.limit(None);
    opened.keeper.keep().unwrap();
    assert_eq!(opened.keeper.pool.space(), Space::Free);
    opened.log.append(&[entry(index, 600)]).unwrap();
}

#[test]
fn purging_frees_segments() {
    let (disk, _) = written();
    let mut opened = open(&disk.shared()).unwrap();
    let upto = opened.contents.entries[25].0;
    opened.log.append(&[Record::Purge(upto)]).unwrap();
    opened.keeper.keep().unwrap();
    drop(opened);
    assert!(!disk.shared().list().unwrap().contains(&name(1)));
    let contents = open(&disk.shared()).unwrap().contents;
    assert_eq!(contents.entries.len(), 4);
    assert_eq!(contents.purged, Some(upto));
    assert_eq!(contents.vote.unwrap().term, 3);
}

#[test]
fn a_failed_sync_is_told_and_never_repaired() {
    let disk = SimDisk::default();
    let (told, fatal) = std::sync::mpsc::channel();
    let handler = move |what: &str| drop(told.send(what.to_owned()));
    let handler: crate::Fatal = Arc::new(handler);
    let opened = crate::wal::Wal::open(disk.shared(), 1, SEGMENT, 7, handler);
    let (wal, _) = opened.unwrap();
    let append = |index| {
        let (done, result) = std::sync::mpsc::channel();
        let done = Box::new(move |outcome| done.send(outcome).unwrap());
        wal.append(vec![entry(index, 10)], done);
        result.recv().unwrap()
    };
    append(0).unwrap();
    disk.break_syncs();
    assert!(append(1).is_err());
    assert!(fatal.recv().unwrap().contains("the disk is broken"));
    assert!(append(2).is_err(), "nothing is taken after a failure");
}
