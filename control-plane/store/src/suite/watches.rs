//! Watching.

use std::collections::BTreeMap;

use super::*;

pub(super) async fn follows(store: Arc<dyn Store>) {
    let first = store.create("follows/a", value("1")).await.unwrap();
    let mut watch = store.watch("follows/", first.revision() - 1).await.unwrap();
    let mut late = store.watch("follows/", first.revision()).await.unwrap();
    let put = |event: Result<Event>| match event {
        Ok(Event::Put {
            record, previous, ..
        }) => (record, previous),
        other => panic!("no put: {other:?}"),
    };
    assert_eq!(put(change(&mut watch).await), (first.clone(), None));
    match watch.next().await {
        Some(Ok(Event::Progress(revision))) => assert!(revision >= first.revision()),
        other => panic!("no progress after what it began with: {other:?}"),
    }
    store.create("follows", value("not this")).await.unwrap();
    let second = store
        .compare_and_swap("follows/a", any(), value("2"))
        .await
        .unwrap();
    let removed = store.delete("follows/a", any()).await.unwrap();
    for watch in [&mut watch, &mut late] {
        assert_eq!(
            put(change(watch).await),
            (second.clone(), Some(first.clone()))
        );
        match change(watch).await {
            Ok(Event::Delete {
                previous, revision, ..
            }) => {
                assert_eq!((previous, revision), (second.clone(), removed.revision()));
            }
            other => panic!("no delete: {other:?}"),
        }
    }
}

/// Watches that begin anywhere in a stream of writes see all that follows, in order, once.
pub(super) async fn misses_nothing(store: Arc<dyn Store>) {
    let begin = store.revision();
    let writer = async |writer: usize| {
        for n in 0..40 {
            let key = format!("misses/{writer}/{}", n % 7);
            if n % 5 == 4 {
                // Whether it is there or not.
                let _ = store.delete(&key, any()).await;
            } else {
                put(&*store, &key, &n.to_string()).await;
            }
        }
    };
    let watcher = async |from: u64| {
        let mut watch = store.watch("misses/", from).await.unwrap();
        let options = ListOptions {
            read: Read::Exact(from),
            limit: 0,
            start_after: None,
        };
        let list = store.list("misses/", options).await.unwrap();
        let mut state: BTreeMap<_, _> = list
            .records
            .into_iter()
            .map(|record| (record.key().to_owned(), record))
            .collect();
        let mut last = from;
        while !state.contains_key("misses/end") {
            match change(&mut watch).await.unwrap() {
                Event::Put {
                    record, previous, ..
                } => {
                    assert!(record.revision() > last);
                    last = record.revision();
                    assert_eq!(state.insert(record.key().to_owned(), record), previous);
                }
                Event::Delete {
                    previous, revision, ..
                } => {
                    assert!(revision > last);
                    last = revision;
                    assert_eq!(state.remove(previous.key()), Some(previous));
                }
                Event::Progress(_) => {}
            }
        }
        state
    };
    let early = watcher(begin);
    let writers = async {
        let half = async {
            while store.revision() < begin + 60 {
                tokio::task::yield_now().await;
            }
            watcher(store.revision()).await
        };
        let (half, _) = tokio::join!(half, async {
            futures::future::join_all((0..4).map(writer)).await;
            store.create("misses/end", value("end")).await.unwrap();
        });
        half
    };
    let (early, half) = tokio::join!(early, writers);
    let end = all(&*store, "misses/").await;
    let end: BTreeMap<_, _> = end
        .into_iter()
        .map(|record| (record.key().to_owned(), record))
        .collect();
    assert_eq!(early, end);
    assert_eq!(half, end);
}

/// A watch that hears nothing hears that the revision moved.
pub(super) async fn progresses(store: Arc<dyn Store>) {
    let from = store.revision();
    let mut watch = store.watch("progresses/none/", from).await.unwrap();
    let written = store.create("progresses/a", value("1")).await.unwrap();
    loop {
        match watch.next().await.unwrap().unwrap() {
            Event::Progress(revision) if revision >= written.revision() => break,
            Event::Progress(_) => {}
            other => panic!("an event of others: {other:?}"),
        }
    }
}

/// Who does not read is cut off, told so, and slows nobody down.
pub(super) async fn slow(store: Arc<dyn Store>) {
    let from = store.revision();
    let mut slow = store.watch("slow/", from).await.unwrap();
    let writer = async |writer: usize| {
        for n in 0..600 {
            put(&*store, &format!("slow/{writer}"), &n.to_string()).await;
        }
    };
    futures::future::join_all((0..32).map(writer)).await;
    let mut last = from;
    let error = loop {
        match change(&mut slow).await {
            Ok(Event::Put { record, .. }) => {
                assert!(record.revision() > last);
                last = record.revision();
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, Error::Expired { requested, .. } if requested == last),
        "{error}"
    );
    assert!(slow.next().await.is_none(), "it ends");
    assert!(last < store.revision());
}
