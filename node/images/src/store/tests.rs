#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;

use super::*;
use crate::{Access, ImageConfig, ImageKind, PullSecret, SecretId};

fn open() -> (tempfile::TempDir, Arc<ContentStore>) {
    let folder = tempfile::tempdir().unwrap();
    let store = ContentStore::open(folder.path().join("content")).unwrap();
    (folder, store)
}

fn image(store: &ContentStore, name: &str, references: &[&str], shared: &[Digest]) -> StoredImage {
    let manifest = store.put(name.as_bytes()).unwrap();
    let mut blobs = vec![manifest.clone()];
    blobs.extend_from_slice(shared);
    StoredImage {
        digest: manifest.to_string(),
        kind: ImageKind::Container { layers: None },
        config: ImageConfig::default(),
        size_bytes: 1,
        references: references.iter().map(|r| (*r).to_owned()).collect(),
        blobs,
        pulled: Default::default(),
    }
}

type Chunks = stream::Iter<std::vec::IntoIter<io::Result<Bytes>>>;

fn chunks(bytes: &[u8]) -> io::Result<Chunks> {
    let chunks: Vec<_> = bytes
        .chunks(3)
        .map(|c| Ok(Bytes::copy_from_slice(c)))
        .collect();
    Ok(stream::iter(chunks))
}

fn files(path: PathBuf) -> usize {
    fs::read_dir(path).unwrap().count()
}

#[tokio::test]
async fn only_what_was_announced_is_stored() {
    let (folder, store) = open();
    let content = b"twelve bytes";
    let digest = Digest::of(content);
    for (size, bytes) in [
        (12, &b"twelve bites"[..]), // another digest
        (12, b"twelve"),            // truncated
        (12, b"twelve bytes and more"),
        (11, content),
    ] {
        let result = store
            .fetch(&digest, size, || async { chunks(bytes) })
            .await
            .map_err(|e: io::Error| e.to_string());
        assert!(result.is_err(), "{size}");
        assert!(!store.has(&digest));
    }
    let fetched: io::Result<()> = store.fetch(&digest, 12, || async { chunks(content) }).await;
    fetched.unwrap();
    assert_eq!(fs::read(store.blob_path(&digest)).unwrap(), content);
    let wrong_size: io::Result<()> = store.fetch(&digest, 13, || async { chunks(b"") }).await;
    assert!(wrong_size.is_err());
    assert_eq!(files(folder.path().join("content/ingest")), 0);
}

#[tokio::test]
async fn one_of_many_fetches() {
    let (_folder, store) = open();
    let digest = Digest::of(b"shared");
    let fetches = AtomicUsize::new(0);
    let fetch = || async {
        let one: io::Result<()> = store
            .fetch(&digest, 6, || async {
                fetches.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                chunks(b"shared")
            })
            .await;
        one.unwrap();
    };
    futures::future::join_all((0..16).map(|_| fetch())).await;
    assert_eq!(fetches.into_inner(), 1);
}

#[test]
fn images_survive_reopening_and_references_move() {
    let (folder, store) = open();
    let old = image(&store, "old", &["r/app:v1", "r/app@old"], &[]);
    let new = image(&store, "new", &["r/app:v1"], &[]);
    store.record(old.clone()).unwrap();
    store.record(new.clone()).unwrap();
    let more = StoredImage {
        references: vec!["r/app:v2".into()],
        ..new.clone()
    };
    store.record(more).unwrap();
    let check = |store: &ContentStore| {
        let by = |reference| store.image_by_reference(reference).unwrap().digest;
        assert_eq!(by("r/app:v1"), new.digest);
        assert_eq!(by("r/app:v2"), new.digest);
        assert_eq!(by("r/app@old"), old.digest);
        assert_eq!(store.image(&old.digest).unwrap().references, ["r/app@old"]);
        assert_eq!(store.images().len(), 2);
    };
    check(&store);
    drop(store);
    fs::write(folder.path().join("content/images/garbage.json"), "{").unwrap();
    fs::write(folder.path().join("content/ingest/left"), "half").unwrap();
    let store = ContentStore::open(folder.path().join("content")).unwrap();
    check(&store);
    assert_eq!(files(folder.path().join("content/ingest")), 0);
    assert_eq!(files(folder.path().join("content/images")), 2);
}

#[test]
fn who_has_had_access_is_known_until_the_image_goes() {
    let (folder, store) = open();
    let secret = |name: &str| PullSecret {
        secret: SecretId {
            namespace: "ns".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        },
        hash: "sha256:00".into(),
    };
    let pulled = |name: &str, access: Access| BTreeMap::from([(name.to_owned(), access)]);
    let app = image(&store, "app", &["r/app:v1"], &[]);
    let by = |name: &str| StoredImage {
        pulled: pulled("r/app", Access::Secrets(vec![secret(name)])),
        ..app.clone()
    };
    store.record(app.clone()).unwrap();
    assert!(store.image(&app.digest).unwrap().pulled.is_empty());
    store.record(by("one")).unwrap();
    store.record(by("two")).unwrap();
    // What says nothing of it changes nothing.
    store.record(app.clone()).unwrap();
    let both = Access::Secrets(vec![secret("one"), secret("two")]);
    assert_eq!(store.image(&app.digest).unwrap().pulled["r/app"], both);
    drop(store);
    let store = ContentStore::open(folder.path().join("content")).unwrap();
    let known = store.image(&app.digest).unwrap();
    assert_eq!(known.pulled, pulled("r/app", both));
    // A record of before this was kept is still one.
    let file = store.record_path(&app.digest);
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    record.as_object_mut().unwrap().remove("pulled");
    fs::write(&file, record.to_string()).unwrap();
    drop(store);
    let store = ContentStore::open(folder.path().join("content")).unwrap();
    assert!(store.image(&app.digest).unwrap().pulled.is_empty());
    store.record(by("one")).unwrap();
    store.remove_image(&app.digest).unwrap();
    let again = image(&store, "app", &["r/app:v1"], &[]);
    store.record(again).unwrap();
    assert!(store.image(&app.digest).unwrap().pulled.is_empty());
}

#[test]
fn an_image_whose_blob_is_gone_is_dropped_at_opening() {
    let (folder, store) = open();
    let layer = store.put(b"layer").unwrap();
    let broken = image(
        &store,
        "broken",
        &["r/app:v1"],
        std::slice::from_ref(&layer),
    );
    store.record(broken).unwrap();
    fs::remove_file(store.blob_path(&layer)).unwrap();
    drop(store);
    let store = ContentStore::open(folder.path().join("content")).unwrap();
    assert_eq!(store.images(), []);
    assert_eq!(store.image_by_reference("r/app:v1"), None);
}

#[test]
fn removal_keeps_what_others_need() {
    let (_folder, store) = open();
    let shared = store.put(b"shared layer").unwrap();
    let leased = store.put(b"leased layer").unwrap();
    let own = store.put(b"own layer").unwrap();
    let one = image(
        &store,
        "one",
        &["r/one:v1"],
        &[shared.clone(), leased.clone(), own.clone()],
    );
    let two = image(&store, "two", &["r/two:v1"], std::slice::from_ref(&shared));
    store.record(one.clone()).unwrap();
    store.record(two.clone()).unwrap();
    let mut lease = store.lease();
    lease.add(&leased);
    let freed = store.remove_image(&one.digest).unwrap();
    assert_eq!(freed, ("one".len() + "own layer".len()) as u64);
    assert!(store.has(&shared) && store.has(&leased) && !store.has(&own));
    assert_eq!(store.remove_image(&one.digest).unwrap(), 0);
    assert_eq!(store.remove_unused_blobs().unwrap(), 0);
    drop(lease);
    // It may be of a pull that has only just written it.
    assert_eq!(store.remove_left_over(Duration::from_secs(600)).unwrap(), 0);
    assert_eq!(
        store.remove_left_over(Duration::ZERO).unwrap(),
        "leased layer".len() as u64
    );
    assert!(store.image_by_reference("r/two:v1").is_some());
}

#[test]
fn a_record_needs_its_blobs() {
    let (_folder, store) = open();
    let missing = image(&store, "x", &[], &[Digest::of(b"nowhere")]);
    let error = store.record(missing).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn what_a_pull_gives_up_goes_but_for_what_others_need() {
    let (_folder, store) = open();
    let [shared, leased, own] = [&b"shared"[..], b"leased", b"own"].map(|b| store.put(b).unwrap());
    let one = image(&store, "one", &[], std::slice::from_ref(&shared));
    store.record(one).unwrap();
    let mut other = store.lease();
    other.add(&leased);
    let mut lease = store.lease();
    for digest in [&shared, &leased, &own, &Digest::of(b"not here yet")] {
        lease.add(digest);
    }
    assert_eq!(lease.discard().unwrap(), "own".len() as u64);
    assert!(store.has(&shared) && store.has(&leased) && !store.has(&own));
    drop(other);
    let leased = store.remove_unused_blobs().unwrap();
    assert_eq!(leased, "leased".len() as u64);
}

#[test]
fn a_blob_ends_where_the_disk_has_no_more_room() {
    let (folder, store) = open();
    drop(store);
    let content = folder.path().join("content");
    let all = Reserve {
        bytes: u64::MAX,
        ..Reserve::default()
    };
    let store = ContentStore::open_keeping(&content, all).unwrap();
    assert!(store.check_room(1).is_err());
    let mut writer = store.writer(1 << 30).unwrap();
    let some = vec![0_u8; 1 << 20];
    let error = (0..1 << 10).find_map(|_| writer.write(&some).err());
    assert_eq!(error.unwrap().kind(), io::ErrorKind::StorageFull);
    assert!(writer.written() <= room::STEP);
    drop(writer);
    assert_eq!(files(content.join("ingest")), 0);
}

#[tokio::test]
async fn a_blob_comes_in_pieces_of_any_size() {
    let (folder, store) = open();
    let whole: Vec<u8> = (0..700_000_u32).map(|n| n as u8).collect();
    let digest = Digest::of(&whole);
    let pieces = |size: usize| {
        let pieces = whole.chunks(size).map(Bytes::copy_from_slice);
        let pieces: Vec<io::Result<Bytes>> = pieces.map(Ok).collect();
        move || async move { Ok(stream::iter(pieces)) }
    };
    // What is more than was said is not waited for.
    let endless = || async {
        let piece = Bytes::from_static(b"more");
        Ok(stream::repeat_with(move || Ok(piece.clone())))
    };
    let error: io::Error = store.fetch(&digest, 7, endless).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    let wrong: io::Error = store.fetch(&digest, 700_001, pieces(99)).await.unwrap_err();
    assert_eq!(wrong.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(files(folder.path().join("content/ingest")), 0);
    for size in [7, 65_536, 700_000] {
        store.fetch(&digest, 700_000, pieces(size)).await.unwrap();
        assert_eq!(fs::read(store.blob_path(&digest)).unwrap(), whole, "{size}");
        store.remove_unused_blobs().unwrap();
    }
}

#[test]
fn an_image_that_is_removed_meanwhile_is_not_recorded_again() {
    let (_folder, store) = open();
    let known = image(&store, "known", &["r/app:v1"], &[]);
    let removing = store.changes.lock();
    let again = std::thread::scope(|scope| {
        let again = scope.spawn(|| store.record(known.clone()));
        // As what removes it does, which has the lock.
        drop(Aside::of(&store, known.blobs.iter()));
        drop(removing);
        again.join().unwrap()
    });
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(store.images().is_empty());
}

#[test]
fn what_goes_has_no_name_before_its_content_goes() {
    let (folder, store) = open();
    let [one, other] = [&b"one"[..], b"other"].map(|bytes| store.put(bytes).unwrap());
    let aside = Aside::of(&store, [&one, &other, &Digest::of(b"none")].into_iter());
    assert!(!store.has(&one) && !store.has(&other));
    let ingest = folder.path().join("content/ingest");
    assert_eq!(files(ingest.clone()), 2);
    // It may be there again, and go again, before the first has gone.
    store.put(b"one").unwrap();
    let again = Aside::of(&store, [&one].into_iter());
    assert_eq!(aside.remove().unwrap(), "oneother".len() as u64);
    assert_eq!(again.remove().unwrap(), 0);
    assert_eq!(files(ingest), 0);
}

#[tokio::test]
async fn it_is_known_what_is_fetched() {
    let (_folder, store) = open();
    let digest = Digest::of(b"shared");
    assert!(!store.is_coming(&digest));
    let fetched: io::Result<()> = store
        .fetch(&digest, 6, || async {
            assert!(store.is_coming(&digest));
            chunks(b"shared")
        })
        .await;
    fetched.unwrap();
    assert!(!store.is_coming(&digest));
}
