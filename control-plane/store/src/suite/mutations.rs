//! Creating, replacing, removing.

use futures::FutureExt;

use super::*;
use crate::MAX_VALUE_BYTES;

pub(super) async fn creates(store: Arc<dyn Store>) {
    let before = store.revision();
    let first = store.create("creates/a", value("1")).await.unwrap();
    assert!(first.revision() > before);
    assert_eq!(first.created(), first.revision());
    assert_eq!((first.key(), text(&first)), ("creates/a", "1"));
    assert_eq!(first.value(), value("1").get(), "attributes are kept");
    match store.create("creates/a", value("2")).await {
        Err(Error::Exists { key, current }) => {
            assert_eq!((key.as_str(), *current), ("creates/a", first.clone()));
        }
        other => panic!("created twice: {other:?}"),
    }
    let second = store.create("creates/b", value("2")).await.unwrap();
    assert!(second.revision() > first.revision());
}

pub(super) async fn swaps(store: Arc<dyn Store>) {
    let key = "swaps/a";
    let missing = store.compare_and_swap(key, any(), value("0")).await;
    assert!(matches!(missing, Err(Error::NotFound(missing)) if missing == key));
    let first = store.create(key, value("1")).await.unwrap();
    let second = store
        .compare_and_swap(key, at(&first), value("2"))
        .await
        .unwrap();
    assert!(second.revision() > first.revision());
    assert_eq!(second.created(), first.created());
    match store.compare_and_swap(key, at(&first), value("3")).await {
        Err(Error::Conflict { current, .. }) => assert_eq!(*current, second),
        other => panic!("swapped what was gone: {other:?}"),
    }
    let uid = |uid: &str| Precondition {
        uid: Some(uid.to_owned()),
        revision: None,
    };
    let wrong = store
        .compare_and_swap(key, uid("uid of 1"), value("3"))
        .await;
    assert!(matches!(wrong, Err(Error::Conflict { .. })));
    store
        .compare_and_swap(key, uid("uid of 2"), value("3"))
        .await
        .unwrap();
    let same = store
        .compare_and_swap(key, any(), value("3"))
        .await
        .unwrap();
    assert!(
        same.revision() > second.revision(),
        "writing the same is a write"
    );
}

pub(super) async fn deletes(store: Arc<dyn Store>) {
    let key = "deletes/a";
    assert!(matches!(
        store.delete(key, any()).await,
        Err(Error::NotFound(_))
    ));
    let first = store.create(key, value("1")).await.unwrap();
    let second = store
        .compare_and_swap(key, any(), value("2"))
        .await
        .unwrap();
    let stale = store.delete(key, at(&first)).await;
    assert!(matches!(stale, Err(Error::Conflict { current, .. }) if *current == second));
    let removed = store.delete(key, at(&second)).await.unwrap();
    assert!(removed.revision() > second.revision());
    assert_eq!(removed.at(second.revision()), second);
    assert_eq!(store.get(key, Read::Latest).await.unwrap(), None);
    assert!(matches!(
        store.delete(key, any()).await,
        Err(Error::NotFound(_))
    ));
    let again = store.create(key, value("3")).await.unwrap();
    assert_eq!(
        again.created(),
        again.revision(),
        "a new object, not the old one"
    );
}

/// Sixteen clients count to 160 by compare-and-swap: no count is lost, none is doubled.
pub(super) async fn counts(store: Arc<dyn Store>) {
    let key = "counts/a";
    store.create(key, value("0")).await.unwrap();
    let client = async || {
        for _ in 0..10 {
            loop {
                let now = store.get(key, Read::Latest).await.unwrap().unwrap();
                let next = text(&now).parse::<u32>().unwrap() + 1;
                match store
                    .compare_and_swap(key, at(&now), value(&next.to_string()))
                    .await
                {
                    Ok(_) => break,
                    Err(Error::Conflict { current, .. }) => {
                        assert!(current.revision() > now.revision());
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    futures::future::join_all((0..16).map(|_| client())).await;
    let end = store.get(key, Read::Latest).await.unwrap().unwrap();
    assert_eq!(text(&end), "160");
}

pub(super) async fn sizes(store: Arc<dyn Store>) {
    for size in [0, 1, 16 << 10, (16 << 10) + 1, 1 << 20, MAX_VALUE_BYTES] {
        let key = format!("sizes/{size}");
        let written = store.create(&key, value(&"x".repeat(size))).await;
        // The label takes as much again; a store may find that too much, but must say so.
        let written = match written {
            Err(Error::TooLarge {
                size: offered,
                limit,
            }) if size == MAX_VALUE_BYTES => {
                assert!(offered > limit);
                continue;
            }
            other => other.unwrap(),
        };
        let read = store.get(&key, Read::Latest).await.unwrap().unwrap();
        assert_eq!(read, written);
    }
    match store
        .create("sizes/more", value(&"x".repeat(MAX_VALUE_BYTES + 1)))
        .await
    {
        Err(Error::TooLarge { size, limit }) => {
            assert_eq!((size, limit), (MAX_VALUE_BYTES + 1, MAX_VALUE_BYTES));
        }
        other => panic!("took too much: {other:?}"),
    }
}

/// Callers that stop waiting leave nothing behind that others would feel.
pub(super) async fn cancels(store: Arc<dyn Store>) {
    for n in 0..50 {
        let key = format!("cancels/{n}");
        // Polled once, then dropped.
        let _ = store.create(&key, value("1")).now_or_never();
        put(&*store, &key, "2").await;
    }
    let all = all(&*store, "cancels/").await;
    assert_eq!(all.len(), 50);
    assert!(all.iter().all(|record| text(record) == "2"));
}
