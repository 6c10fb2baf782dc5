//! Reading logs from files as runtimes write them.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::options::LogOptions;
use super::{files, reader};

fn log_line(second: u32, text: &str) -> String {
    format!("2026-01-02T03:04:{second:02}.000000006Z stdout F {text}\n")
}

fn append(path: &Path, text: &str) {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

struct Log {
    folder: tempfile::TempDir,
    runs: Arc<AtomicBool>,
    changes: watch::Sender<u64>,
}

impl Log {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            runs: Arc::new(AtomicBool::new(true)),
            changes: watch::Sender::new(0),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("0.log")
    }

    fn read(&self, options: LogOptions) -> mpsc::Receiver<std::io::Result<Bytes>> {
        let runs = self.runs.clone();
        let life = reader::Life {
            changes: self.changes.subscribe(),
            runs: Box::new(move || runs.load(Ordering::SeqCst)),
        };
        reader::read(self.path(), options, life)
    }

    async fn all(&self, options: LogOptions) -> String {
        let mut receiver = self.read(options);
        let mut text = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            text.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    fn end(&self) {
        self.runs.store(false, Ordering::SeqCst);
        self.changes.send_modify(|n| *n += 1);
    }
}

async fn until(receiver: &mut mpsc::Receiver<std::io::Result<Bytes>>, wanted: &str) {
    let mut text = String::new();
    while !text.ends_with(wanted) {
        let chunk = tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("no {wanted:?} after {text:?}"));
        text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn options_select_lines() {
    let log = Log::new();
    append(
        &log.folder.path().join("0.log.20260101-000000"),
        &log_line(1, "old"),
    );
    append(&log.path(), &log_line(2, "two"));
    append(&log.path(), "2026-01-02T03:04:03.5Z stderr P thr\n");
    append(&log.path(), "2026-01-02T03:04:03.6Z stderr F ee\n");
    append(&log.path(), &log_line(4, ""));
    let options = LogOptions::default;
    assert_eq!(log.all(options()).await, "old\ntwo\nthree\n\n");
    let timestamps = LogOptions {
        timestamps: true,
        tail_lines: Some(3),
        ..options()
    };
    let expected = "2026-01-02T03:04:03.5Z three\n2026-01-02T03:04:04.000000006Z \n";
    assert_eq!(log.all(timestamps).await, expected);
    let since = LogOptions {
        since: Some("2026-01-02T03:04:03Z".parse().unwrap()),
        ..options()
    };
    assert_eq!(log.all(since).await, "three\n\n");
    let limited = LogOptions {
        limit_bytes: Some(6),
        ..options()
    };
    assert_eq!(log.all(limited).await, "old\ntw");
    let stderr = LogOptions {
        stream: Some("stderr"),
        ..options()
    };
    assert_eq!(log.all(stderr).await, "three\n");
    for (lines, expected) in [
        (0, ""),
        (1, "\n"),
        (4, "two\nthree\n\n"),
        (5, "old\ntwo\nthree\n\n"),
        (99, "old\ntwo\nthree\n\n"),
    ] {
        let tail = LogOptions {
            tail_lines: Some(lines),
            ..options()
        };
        assert_eq!(log.all(tail).await, expected, "{lines}");
    }
}

#[test]
fn tail_finds_lines_over_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    let text: String = (0..5000).map(|n| format!("{n:060}\n")).collect();
    std::fs::write(&path, &text).unwrap();
    let parts = files::parts(&path);
    for lines in [1, 2, 1500, 4999, 5000] {
        let (skip, offset) = files::tail(&parts, lines).unwrap();
        assert_eq!((skip, offset), (0, (5000 - lines) * 61), "{lines}");
    }
    assert_eq!(files::tail(&parts, 5001).unwrap(), (0, 0));
    std::fs::write(&path, "a\nb").unwrap();
    assert_eq!(
        files::tail(&parts, 1).unwrap(),
        (0, 2),
        "a line without an end counts"
    );
}

#[tokio::test]
async fn a_log_is_followed_over_rotation_to_the_end() {
    let log = Log::new();
    let follow = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let mut reader = log.read(follow);
    // The container has written nothing yet: there is no file.
    append(&log.path(), &log_line(1, "one"));
    until(&mut reader, "one\n").await;
    append(&log.path(), &log_line(2, "two"));
    let rotated = log.folder.path().join("0.log.20260102-030405");
    std::fs::rename(log.path(), &rotated).unwrap();
    append(&rotated, &log_line(3, "late"));
    append(&log.path(), &log_line(4, "three"));
    until(&mut reader, "three\n").await;
    append(&log.path(), &log_line(5, "last"));
    log.end();
    until(&mut reader, "last\n").await;
    assert!(reader.recv().await.is_none(), "the container has ended");
}

#[tokio::test]
async fn a_dropped_reader_ends_the_task() {
    let log = Log::new();
    append(&log.path(), &log_line(1, "one"));
    let follow = LogOptions {
        follow: true,
        ..LogOptions::default()
    };
    let mut reader = log.read(follow);
    until(&mut reader, "one\n").await;
    let before = log.changes.receiver_count();
    assert_eq!(before, 1);
    drop(reader);
    let ended = async {
        while log.changes.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended)
        .await
        .unwrap();
}
