//! Uploads: in parts, those that go wrong, and those that are over.

use super::*;

#[tokio::test]
async fn a_chunked_upload() {
    let registry = Local::new(RegistryLimits::default());
    let started = registry
        .send("POST", "/v2/a/b/blobs/uploads/", &[], b"")
        .await;
    assert_eq!(started.status, 202);
    let location = started.header("location").to_owned();
    let range = [("content-range", "0-2")];
    let first = registry.send("PATCH", &location, &range, b"abc").await;
    assert_eq!((first.status, first.header("range")), (202, "0-2"));
    let wrong = registry.send("PATCH", &location, &range, b"abc").await;
    assert_eq!((wrong.status, &*wrong.code()), (416, "RANGE_INVALID"));
    let status = registry.send("GET", &location, &[], b"").await;
    assert_eq!((status.status, status.header("range")), (204, "0-2"));
    let elsewhere = location.replace("/a/b/", "/other/");
    let reply = registry.send("PATCH", &elsewhere, &[], b"d").await;
    assert_eq!(reply.code(), "BLOB_UPLOAD_UNKNOWN");
    let digest = Digest::of(b"abcdef");
    let done = format!("{location}?digest={digest}");
    let done = registry.send("PUT", &done, &[], b"def").await;
    assert_eq!(done.status, 201);
    let blob = registry
        .send("GET", done.header("location"), &[], b"")
        .await;
    assert_eq!(blob.body, b"abcdef");
    let gone = registry.send("GET", &location, &[], b"").await;
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn uploads_that_go_wrong() {
    let registry = Local::new(RegistryLimits {
        blob_bytes: 10,
        uploads: 2,
        ..RegistryLimits::default()
    });
    let other = Digest::of(b"other");
    let uri = format!("/v2/a/blobs/uploads/?digest={other}");
    let reply = registry.send("POST", &uri, &[], b"this").await;
    assert_eq!((reply.status, &*reply.code()), (400, "DIGEST_INVALID"));
    let reply = registry
        .send("POST", &uri, &[], b"more than ten bytes")
        .await;
    assert_eq!((reply.status, &*reply.code()), (413, "SIZE_INVALID"));
    let reply = registry
        .send("POST", "/v2/a/blobs/uploads/?digest=x", &[], b"")
        .await;
    assert_eq!(reply.code(), "DIGEST_INVALID");
    let one = registry
        .send("POST", "/v2/a/blobs/uploads/", &[], b"")
        .await;
    let two = registry
        .send("POST", "/v2/a/blobs/uploads/", &[], b"")
        .await;
    let full = registry
        .send("POST", "/v2/a/blobs/uploads/", &[], b"")
        .await;
    assert_eq!((full.status, &*full.code()), (429, "TOOMANYREQUESTS"));
    let cancelled = registry
        .send("DELETE", one.header("location"), &[], b"")
        .await;
    assert_eq!(cancelled.status, 204);
    let none = registry.send("PUT", two.header("location"), &[], b"").await;
    assert_eq!(none.code(), "DIGEST_INVALID");
    let again = registry
        .send("POST", "/v2/a/blobs/uploads/", &[], b"")
        .await;
    assert_eq!(again.status, 202);
    let blob = registry
        .send("GET", &format!("/v2/a/blobs/{other}"), &[], b"")
        .await;
    assert_eq!((blob.status, &*blob.code()), (404, "BLOB_UNKNOWN"));
}

#[tokio::test]
async fn uploads_that_are_over_hold_no_place() {
    const PATH: &str = "/v2/a/blobs/uploads/";
    let one = RegistryLimits {
        blob_bytes: 10,
        uploads: 1,
        ..RegistryLimits::default()
    };
    let registry = Local::new(one);
    let digest = Digest::of(b"abc");
    // Each ends in its way what was begun.
    for (method, query, body, status) in [
        ("PUT", format!("?digest={digest}"), &b"abc"[..], 201),
        ("PUT", format!("?digest={digest}"), b"other", 400),
        (
            "PUT",
            format!("?digest={digest}"),
            b"more than ten bytes",
            413,
        ),
        ("PATCH", String::new(), b"more than ten bytes", 413),
        ("DELETE", String::new(), b"", 204),
    ] {
        let begun = registry.send("POST", PATH, &[], b"").await;
        assert_eq!(begun.status, 202, "{method} {query}");
        let whole = format!("{PATH}?digest={digest}");
        let whole = registry.send("POST", &whole, &[], b"abc").await;
        assert_eq!(whole.status, 429, "one that comes whole takes a place too");
        let uri = format!("{}{query}", begun.header("location"));
        let ended = registry.send(method, &uri, &[], body).await;
        assert_eq!(ended.status, status, "{method} {query}");
        let gone = registry
            .send("GET", begun.header("location"), &[], b"")
            .await;
        assert_eq!(gone.code(), "BLOB_UPLOAD_UNKNOWN", "{method} {query}");
    }
    let ingest = registry.folder.path().join("content/ingest");
    assert_eq!(std::fs::read_dir(ingest).unwrap().count(), 0);

    // Where places are wanted, one that nobody goes on with makes room.
    let registry = Local::new(RegistryLimits {
        body_idle: Duration::ZERO,
        ..one
    });
    let left = registry.send("POST", PATH, &[], b"").await;
    let next = registry.send("POST", PATH, &[], b"").await;
    assert_eq!((left.status, next.status), (202, 202));
    let gone = registry
        .send("GET", left.header("location"), &[], b"")
        .await;
    assert_eq!(gone.status, 404);
    let there = registry
        .send("GET", next.header("location"), &[], b"")
        .await;
    assert_eq!(there.status, 204);

    // And one that is left alone for too long ends whatever is asked.
    let registry = Local::new(RegistryLimits {
        upload_idle: Duration::ZERO,
        ..one
    });
    registry.send("POST", PATH, &[], b"").await;
    registry.send("GET", "/v2/", &[], b"").await;
    let ingest = registry.folder.path().join("content/ingest");
    assert_eq!(std::fs::read_dir(ingest).unwrap().count(), 0);
}
