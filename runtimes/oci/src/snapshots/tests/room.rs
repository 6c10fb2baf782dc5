//! What fits, and what becomes of what does not.

use coracle_images::Reserve;

use super::*;

/// A second name of a file of a layer below is a copy of it.
#[tokio::test]
async fn second_names_of_what_lies_below_take_room() {
    let content = "x".repeat(400 << 10);
    let big = [File("a", &content), File("b", &content)];
    let own = [File("c", &content), Hard("d", "c"), Hard("e", "d")];
    let same = [Hard("c", "a"), Hard("d", "a"), Hard("e", "c")];
    let both = [Hard("c", "a"), Hard("d", "b")];
    for (below, above, fits) in [
        (&big[..1], &same[..], true),
        (&big[..1], &own, true),
        (&big, &same, false),
        (&big[..1], &[Hard("c", "a"), File("d", &content)], false),
        (&big, &both, false),
    ] {
        let Some(image) = Image::of(&[below, above]) else {
            return;
        };
        match image.unpack().await {
            Ok(()) => assert!(fits, "{:?}", image.tree().keys()),
            Err(error) => assert!(!fits && error.contains("larger than allowed"), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_disk_keeps_its_reserve() {
    let Some(mut image) = Image::of(&[&[File("a", "a")], &[File("b", "b")]]) else {
        return;
    };
    let content = image.folder.path().join("content");
    for (bytes, fits) in [(u64::MAX, false), (0, true)] {
        let reserve = Reserve {
            bytes,
            ..Reserve::default()
        };
        image.content = ContentStore::open_keeping(&content, reserve).unwrap();
        match image.unpack().await {
            Ok(()) => assert!(fits),
            Err(error) => assert!(!fits && error.contains("no space left"), "{error}"),
        }
        let left = names(&image.folder.path().join("snapshots/ingest")).unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(image.snapshots.lowers(&image.layers)[0].exists(), fits);
    }
}

/// Two Pods have one image unpacked, which does not fit at first.
#[tokio::test]
async fn what_does_not_fit_is_removed_before_another_unpacks() {
    let Some(image) = Image::of(&[&[File("a", "a")]]) else {
        return;
    };
    let all = Reserve {
        bytes: u64::MAX,
        ..Reserve::default()
    };
    let content = image.folder.path().join("content");
    let small = ContentStore::open_keeping(&content, all).unwrap();
    let (snapshots, removing) = (
        image.snapshots.clone(),
        Arc::new(tokio::sync::Notify::new()),
    );
    let (tell, go_on) = (removing.clone(), Arc::new(std::sync::Barrier::new(2)));
    let held = go_on.clone();
    let full = move || {
        tell.notify_one();
        held.wait();
        snapshots.retain([].into_iter()).unwrap();
    };
    let (store, layers) = (image.snapshots.clone(), image.layers.clone());
    let first = tokio::spawn(async move { store.ensure(&small, &layers, full).await });
    let long = std::time::Duration::from_secs(60);
    tokio::time::timeout(long, removing.notified())
        .await
        .unwrap();
    let second = image.unpack();
    tokio::pin!(second);
    assert!(futures::poll!(second.as_mut()).is_pending(), "it waits");
    go_on.wait();
    second.await.unwrap();
    assert!(first.await.unwrap().unwrap_err().is_no_room());
    assert!(image.snapshots.lowers(&image.layers)[0].is_dir());
}
