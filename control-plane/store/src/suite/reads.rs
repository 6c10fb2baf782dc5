//! Getting and listing, now and in the past.

use super::*;

fn options(read: Read) -> ListOptions {
    ListOptions {
        read,
        limit: 0,
        start_after: None,
    }
}

pub(super) async fn gets(store: Arc<dyn Store>) {
    let key = "gets/a";
    assert_eq!(store.get(key, Read::Latest).await.unwrap(), None);
    let first = store.create(key, value("1")).await.unwrap();
    let second = store
        .compare_and_swap(key, any(), value("2"))
        .await
        .unwrap();
    let removed = store.delete(key, any()).await.unwrap();
    let third = store.create(key, value("3")).await.unwrap();
    let exactly = [
        (first.revision() - 1, None),
        (first.revision(), Some(&first)),
        (second.revision(), Some(&second)),
        (removed.revision(), None),
        (third.revision(), Some(&third)),
    ];
    for (revision, expected) in exactly {
        let found = store.get(key, Read::Exact(revision)).await.unwrap();
        assert_eq!(found.as_ref(), expected, "at {revision}");
    }
    for read in [
        Read::Latest,
        Read::AtLeast(0),
        Read::AtLeast(third.revision()),
    ] {
        assert_eq!(
            store.get(key, read).await.unwrap().as_ref(),
            Some(&third),
            "{read:?}"
        );
    }
}

pub(super) async fn lists(store: Arc<dyn Store>) {
    let mut written = Vec::new();
    for name in ["b", "a", "c", "ab"] {
        written.push(
            store
                .create(&format!("lists/{name}"), value(name))
                .await
                .unwrap(),
        );
    }
    // Neighbours that share no prefix with them.
    store.create("lists", value("no")).await.unwrap();
    store.create("lists0", value("no")).await.unwrap();
    let list = store.list("lists/", options(Read::Latest)).await.unwrap();
    let texts: Vec<_> = list.records.iter().map(text).collect();
    assert_eq!(texts, ["a", "ab", "b", "c"]);
    assert_eq!(list.remaining, None);
    assert!(list.revision >= written[3].revision());
    store.delete("lists/b", any()).await.unwrap();
    store
        .compare_and_swap("lists/c", any(), value("C"))
        .await
        .unwrap();
    let then = store
        .list("lists/", options(Read::Exact(list.revision)))
        .await
        .unwrap();
    assert_eq!(then, list, "the past does not change");
    let then = store
        .list("lists/", options(Read::Exact(written[1].revision())))
        .await
        .unwrap();
    let texts: Vec<_> = then.records.iter().map(text).collect();
    assert_eq!(texts, ["a", "b"]);
    assert_eq!(then.revision, written[1].revision());
    let empty = store
        .list("lists/none/", options(Read::Latest))
        .await
        .unwrap();
    assert!(empty.records.is_empty() && empty.revision >= list.revision);
}

/// Pages of one revision, while the objects change.
pub(super) async fn pages(store: Arc<dyn Store>) {
    for n in 0..25 {
        store
            .create(&format!("pages/{n:02}"), value("before"))
            .await
            .unwrap();
    }
    let mut read = Read::Latest;
    let mut start_after = None;
    let mut seen = Vec::new();
    for page in 0..3 {
        let options = ListOptions {
            read,
            limit: 10,
            start_after: start_after.take(),
        };
        let list = store.list("pages/", options).await.unwrap();
        assert_eq!(list.remaining, [Some(15), Some(5), None][page]);
        read = Read::Exact(list.revision);
        start_after = list.records.last().map(|record| record.key().to_owned());
        seen.extend(list.records);
        for n in 0..25 {
            put(&*store, &format!("pages/{n:02}"), "after").await;
        }
        store
            .create(&format!("pages/{page}new"), value("new"))
            .await
            .unwrap();
        store.delete("pages/24", any()).await.unwrap();
    }
    let keys: Vec<_> = seen.iter().map(|record| record.key().to_owned()).collect();
    assert_eq!(
        keys,
        (0..25).map(|n| format!("pages/{n:02}")).collect::<Vec<_>>()
    );
    assert!(seen.iter().all(|record| text(record) == "before"));
}

pub(super) async fn future(store: Arc<dyn Store>) {
    let far = store.revision() + 1_000_000_000;
    let read = store.get("future/a", Read::AtLeast(far));
    let listed = store.list("future/", options(Read::Exact(far)));
    let watched = store.watch("future/", far);
    let (read, listed, watched) = tokio::join!(read, listed, watched);
    let errors = [read.err(), listed.err(), watched.err()];
    for error in errors {
        assert!(
            matches!(error, Some(Error::Future { requested, current })
                if requested == far && current < far),
            "{error:?}"
        );
    }
    // One that is not far comes meanwhile.
    let soon = store.revision() + 1;
    let (read, written) = tokio::join!(
        store.get("future/b", Read::AtLeast(soon)),
        put(&*store, "future/b", "b")
    );
    assert!(written.revision() >= soon);
    read.unwrap();
}

pub(super) async fn expires(store: Arc<dyn Store>) {
    let first = store.create("expires/a", value("first")).await.unwrap();
    let mut expired = None;
    for n in 0..1000 {
        put(&*store, "expires/b", &n.to_string()).await;
        if let Err(error) = store.get("expires/a", Read::Exact(first.revision())).await {
            expired = Some(error);
            break;
        }
    }
    let Some(Error::Expired { requested, oldest }) = expired else {
        panic!("{expired:?}")
    };
    assert_eq!(requested, first.revision());
    assert!(oldest > first.revision() && oldest < store.revision());
    let listed = store
        .list("expires/", options(Read::Exact(first.revision())))
        .await;
    assert!(matches!(listed, Err(Error::Expired { .. })));
    let watched = store.watch("expires/", first.revision()).await.err();
    assert!(
        matches!(watched, Some(Error::Expired { .. })),
        "{watched:?}"
    );
    // What is there is there, and so is what is retained.
    assert_eq!(
        store.get("expires/a", Read::Latest).await.unwrap(),
        Some(first)
    );
    let watched = store.watch("expires/", store.revision()).await;
    assert!(watched.is_ok());
}
