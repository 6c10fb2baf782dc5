//! Any part of what was not synced may be lost, at any moment: nothing acknowledged is.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::sim::{SimDisk, Step};
use super::*;
use crate::wal::contents::Contents;
use crate::wal::frame::Vote;

/// What a test does to the log.
#[derive(Clone, Debug)]
enum Action {
    Append {
        entries: u64,
        size: usize,
    },
    Vote,
    /// Drops so many of the newest entries.
    Truncate(u64),
    /// Drops so many of the oldest.
    Purge(u64),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        6 => (1..4_u64, 0..1500_usize).prop_map(|(entries, size)| Action::Append { entries, size }),
        1 => Just(Action::Vote),
        1 => (1..3_u64).prop_map(Action::Truncate),
        1 => (1..20_u64).prop_map(Action::Purge),
    ];
    proptest::collection::vec(action, 1..60)
}

/// Keeps what should be in the log beside the log.
struct Driver {
    opened: Opened,
    model: Contents,
    term: u64,
    /// The model after each acknowledged step.
    history: Vec<Contents>,
}

impl Driver {
    fn new(disk: &SimDisk) -> Self {
        let opened = open(&disk.shared()).unwrap();
        Self {
            model: opened.contents.clone(),
            opened,
            term: 0,
            history: Vec::new(),
        }
    }

    fn last(&self) -> Option<u64> {
        let last = self.model.entries.back().map(|(position, _)| *position);
        last.or(self.model.purged).map(|position| position.index)
    }

    fn records(&mut self, action: &Action) -> Vec<Record> {
        match action {
            Action::Append { entries, size } => {
                let first = self.last().map_or(0, |last| last + 1);
                (first..first + entries)
                    .map(|index| entry(index, *size))
                    .collect()
            }
            Action::Vote => {
                self.term += 1;
                let (term, node) = (self.term, 1);
                vec![Record::Vote(Vote {
                    term,
                    node,
                    committed: false,
                })]
            }
            Action::Truncate(count) => {
                let kept = self.model.entries.len().saturating_sub(*count as usize);
                let since = self
                    .model
                    .entries
                    .get(kept)
                    .map(|(position, _)| position.index);
                since.map(Record::Truncate).into_iter().collect()
            }
            Action::Purge(count) => {
                let last = self.model.entries.len().checked_sub(1);
                let upto = last.map(|last| last.min(*count as usize - 1));
                let upto = upto.map(|upto| self.model.entries[upto].0);
                upto.map(Record::Purge).into_iter().collect()
            }
        }
    }

    fn act(&mut self, disk: &SimDisk, action: &Action) {
        let records = self.records(action);
        if records.is_empty() {
            return;
        }
        self.opened.log.append(&records).unwrap();
        for record in records {
            self.model.take(record).unwrap();
        }
        self.history.push(self.model.clone());
        disk.acknowledge(self.history.len() as u64);
        self.opened.keeper.keep().unwrap();
    }
}

/// Whether `found` is what was acknowledged last, or what was begun after it. A purge may be
/// forgotten: purged entries come back, and nobody minds.
fn holds(found: &Contents, acknowledged: &Contents) -> bool {
    found.vote >= acknowledged.vote
        && found.purged <= acknowledged.purged
        && acknowledged
            .entries
            .iter()
            .all(|wanted| found.entries.contains(wanted))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_acknowledged_is_lost(actions in actions(), at in 0.0..1.0_f64, seed: u64) {
        let disk = SimDisk::default();
        let mut driver = Driver::new(&disk);
        driver.opened.keeper.keep().unwrap();
        for action in &actions {
            driver.act(&disk, action);
        }
        let trace = disk.trace();
        let at = (at * (trace.len() + 1) as f64) as usize;
        let mut rng = StdRng::seed_from_u64(seed);
        let after = SimDisk::cut(&trace, at, &mut rng);
        let acknowledged = trace[..at].iter().rev().find_map(|step| match step {
            Step::Acknowledged(number) => Some(*number as usize),
            _ => None,
        });
        let opened = open(&after.shared());
        let Some(acknowledged) = acknowledged else {
            // Nothing was promised; but it opens, or says why not.
            prop_assert!(opened.is_ok(), "{}", opened.err().unwrap());
            return Ok(());
        };
        prop_assert!(opened.is_ok(), "{}", opened.err().unwrap());
        let mut opened = opened.unwrap();
        let before = &driver.history[acknowledged - 1];
        let next = driver.history.get(acknowledged);
        let found = &opened.contents;
        let fits = holds(found, before) || next.is_some_and(|next| holds(found, next));
        prop_assert!(fits, "found {found:?}\nacknowledged {before:?}\nbegun {next:?}");
        // What came back can be written on, and a second look finds the same and that.
        let last = found.entries.back().map(|(position, _)| position.index);
        let last = last.or(found.purged.map(|position| position.index));
        let index = last.map_or(0, |last| last + 1);
        let mut expected = found.clone();
        expected.take(entry(index, 100)).unwrap();
        opened.keeper.keep().unwrap();
        opened.log.append(&[entry(index, 100)]).unwrap();
        drop(opened);
        prop_assert_eq!(open(&after.shared()).unwrap().contents, expected);
    }
}
