#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::command::RequestId;
use crate::types::{Attributes, Value};

fn value(text: &str) -> Value {
    let attributes = Attributes {
        uid: format!("uid-{text}"),
        ..Attributes::default()
    };
    Value::new(text.as_bytes(), &attributes)
}

fn request(sequence: u64, command: Command) -> Request {
    let id = RequestId {
        session: 1,
        sequence,
        settled: 0,
    };
    Request { id, command }
}

fn draft(key: &str, text: &str) -> Record {
    Record::draft(key, value(text).get())
}

fn page(prefix: &str) -> Page<'_> {
    Page {
        prefix,
        start_after: None,
        limit: 0,
    }
}

#[test]
fn a_request_that_arrives_twice_is_applied_once() {
    let mut state = State::new(Limits::default());
    let once = request(1, Command::Create(draft("a", "1")));
    let applied = state.apply(Position::default(), 0, &[once.clone(), once]);
    assert!(matches!(applied.outcomes[..], [Some(Ok(_)), None]));
    assert_eq!(state.revision(), 1);
}

#[test]
fn a_removal_copies_nothing_until_somebody_asks_what_came_of_it() {
    let mut state = State::new(Limits::default());
    let create = request(1, Command::Create(draft("a", "1")));
    let delete = request(2, Command::Delete(Precondition::default(), "a".into()));
    let applied = state.apply(Position::default(), 0, &[create, delete]);
    let [Some(Ok(created)), Some(Ok(deleted))] = &applied.outcomes[..] else {
        panic!("something failed");
    };
    assert!(Arc::ptr_eq(deleted, &applied.changes[1]));
    let (written, gone) = (created.outcome(), deleted.previous().unwrap());
    assert!(std::ptr::eq(gone.value().json(), written.value().json()));
    let told = deleted.outcome();
    assert_eq!((told.revision(), told.created()), (2, 1));
    assert_eq!(told.value(), written.value());
}

#[test]
fn a_settled_request_never_comes_back() {
    let mut sessions = Sessions::default();
    let id = |sequence, settled| RequestId {
        session: 7,
        sequence,
        settled,
    };
    assert!(sessions.admit(id(1, 1)));
    assert!(sessions.admit(id(3, 1)));
    assert!(sessions.admit(id(2, 1)));
    assert!(sessions.admit(id(5, 4)));
    for late in 1..=3 {
        assert!(!sessions.admit(id(late, 1)));
    }
    assert_eq!(sessions.sessions[&7].applied.len(), 1);
}

#[test]
fn history_is_kept_by_bytes_then_by_age_then_not_at_all() {
    let limits = Limits {
        kept_bytes: 3_000,
        kept_millis: 100,
        most_bytes: 6_000,
    };
    let mut state = State::new(limits);
    for n in 0..100 {
        let put = request(n, Command::Create(draft(&format!("k{n}"), "x")));
        state.apply(
            Position {
                index: n,
                ..Position::default()
            },
            n,
            &[put],
        );
    }
    state.history.evict(99, usize::MAX);
    assert!(state.history.bytes() <= 6_000 && state.history.bytes() > 5_000);
    let floor = state.history.floor();
    assert!(matches!(
        state.list_at(&page(""), floor - 1),
        Err(Error::Expired { oldest, .. }) if oldest == floor
    ));
    assert_eq!(
        state.list_at(&page(""), floor).unwrap().records.len() as u64,
        floor
    );
    state.history.evict(1_000, usize::MAX);
    assert!(state.history.bytes() <= 3_000 && state.history.bytes() > 2_000);
    state.history.evict_all(usize::MAX);
    assert_eq!((state.history.bytes(), state.history.floor()), (0, 100));
}

fn operations() -> impl Strategy<Value = Vec<(u8, u8)>> {
    proptest::collection::vec((0..16_u8, 0..3_u8), 1..80)
}

proptest! {
    /// The objects are in order, and it is known how many come before any key.
    #[test]
    fn objects_are_as_in_a_set(
        operations in proptest::collection::vec((0..40_u8, any::<bool>()), 1..200)
    ) {
        let mut objects = Objects::default();
        let mut keys = BTreeSet::new();
        for (n, there) in operations {
            let key = format!("{n:02}");
            if there {
                let record = Record::new(&key, 1, 1, value("x").get());
                let replaced = objects.insert(record);
                prop_assert_eq!(replaced.is_none(), keys.insert(key));
            } else {
                objects.remove(&key);
                keys.remove(&key);
            }
            let found: Vec<String> = objects.iter().map(|record| record.key().to_owned()).collect();
            prop_assert!(found.iter().eq(&keys));
        }
        for n in 0..=40 {
            let key = format!("{n:02}");
            let place = objects.place(|other| other < &*key);
            prop_assert_eq!(objects.rank(place), keys.range(..key.clone()).count());
            let next = objects.from(place).next().map(|record| record.key().to_owned());
            prop_assert_eq!(next.as_ref(), keys.range(key.clone()..).next());
            prop_assert_eq!(objects.get(&key).is_some(), keys.contains(&key));
        }
    }

    /// Every retained revision lists as it was when it was the newest, page by page too.
    #[test]
    fn the_past_is_reconstructed(operations in operations(), limit in 1..5_usize) {
        let mut state = State::new(Limits::default());
        let mut seen = vec![(0, Vec::new())];
        for (n, (key, what)) in operations.into_iter().enumerate() {
            let key = format!("k/{key}");
            let draft = draft(&key, &n.to_string());
            let command = match what {
                0 => Command::Create(draft),
                1 => Command::Swap(Precondition::default(), draft),
                _ => Command::Delete(Precondition::default(), key.into()),
            };
            let index = n as u64;
            state.apply(Position { index, ..Position::default() }, 0, &[request(index, command)]);
            seen.push((state.revision(), state.list(&page("k/")).records));
        }
        for (revision, records) in seen {
            prop_assert_eq!(&state.list_at(&page("k/"), revision).unwrap().records, &records);
            let mut paged = Vec::new();
            loop {
                let start = paged.last().map(|record: &Record| record.key().to_owned());
                let page = Page { prefix: "k/", start_after: start.as_deref(), limit };
                let list = state.list_at(&page, revision).unwrap();
                paged.extend(list.records);
                prop_assert_eq!(list.remaining.unwrap_or(0), records.len() - paged.len());
                if list.remaining.is_none() { break }
            }
            prop_assert_eq!(&paged, &records);
            for record in &records {
                let then = state.get_at(record.key(), revision).unwrap();
                prop_assert_eq!(then.as_ref(), Some(record));
            }
        }
    }
}
