//! Reads a log into a bounded channel, and follows it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::files;
use super::line::{self, Line};
use super::options::LogOptions;
use crate::access::open_foreign;
use crate::inotify::{WatchFlags, Watcher};

/// Bytes that are read and sent at once.
const CHUNK: usize = 32 << 10;
/// Chunks that wait for a slow reader.
const QUEUE: usize = 8;
/// Longest line; what is longer is given in parts.
const MAX_LINE: usize = 1 << 20;

/// Tells whether a container still runs, and when to ask again.
pub(crate) struct Life {
    pub(crate) changes: watch::Receiver<u64>,
    pub(crate) runs: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Reads the log whose current part is `path`. The task ends when all is read, when the
/// container has ended in the case of `follow`, or when the receiver is dropped.
pub(crate) fn read(
    path: PathBuf,
    options: LogOptions,
    life: Life,
) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut output = Output {
            left: options.limit_bytes.unwrap_or(u64::MAX),
            continues: false,
            buffer: Vec::new(),
            sender: sender.clone(),
            options: &options,
        };
        let reading = read_all(&path, &options, life, &mut output);
        let done = tokio::select! {
            done = reading => done,
            () = sender.closed() => return,
        };
        if let Err(error) = done {
            let _ = sender.send(Err(error)).await;
        }
    });
    receiver
}

async fn read_all(
    path: &Path,
    options: &LogOptions,
    mut life: Life,
    output: &mut Output<'_>,
) -> io::Result<()> {
    // Watching before reading: nothing is missed in between.
    let mut watcher = match options.follow {
        true => path.parent().map(watch).transpose()?,
        false => None,
    };
    let parts = files::parts(path);
    let (skip, offset) = match options.tail_lines {
        Some(lines) => files::tail(&parts, lines)?,
        None => (0, 0),
    };
    let mut source = None;
    for (index, part) in parts.iter().enumerate().skip(skip) {
        let from = if index == skip { offset } else { 0 };
        let mut opened = match Source::open(part, from) {
            // Rotated away between the listing and now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        if !opened.copy(output).await? {
            return Ok(());
        }
        source = Some(opened);
    }
    let Some(watcher) = &mut watcher else {
        if let Some(source) = &mut source {
            source.rest(output);
        }
        output.flush().await;
        return Ok(());
    };
    loop {
        // Asked before the last look at the file: what was written before the end is read.
        let runs = {
            life.changes.borrow_and_update();
            (life.runs)()
        };
        if !follow_on(path, &mut source, output).await? {
            return Ok(());
        }
        if !runs {
            if let Some(source) = &mut source {
                source.rest(output);
            }
            output.flush().await;
            return Ok(());
        }
        if !output.flush().await {
            return Ok(());
        }
        tokio::select! {
            changed = watcher.changed() => { changed?; }
            changed = life.changes.changed() => if changed.is_err() {
                return Ok(());
            },
        }
    }
}

/// Watches the folder of a log, which may not have been written yet.
fn watch(folder: &Path) -> io::Result<Watcher> {
    std::fs::create_dir_all(folder)?;
    let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
    Watcher::new(folder, flags)
}

/// Reads what is new, over a rotation too; false if the reader has enough.
async fn follow_on(
    path: &Path,
    source: &mut Option<Source>,
    output: &mut Output<'_>,
) -> io::Result<bool> {
    loop {
        if let Some(source) = source {
            if !source.copy(output).await? {
                return Ok(false);
            }
            if !source.was_replaced(path) {
                return Ok(true);
            }
            // The last lines may have come between the reading and the rotation.
            if !source.copy(output).await? {
                return Ok(false);
            }
            source.rest(output);
        }
        match Source::open(path, 0) {
            Ok(opened) => *source = Some(opened),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// An open part and what was read of a line that is not complete.
struct Source {
    file: File,
    inode: (u64, u64),
    pending: Vec<u8>,
}

impl Source {
    fn open(path: &Path, from: u64) -> io::Result<Self> {
        let mut file = open_foreign(path)?;
        let metadata = file.metadata()?;
        file.seek(SeekFrom::Start(from))?;
        Ok(Self {
            file,
            inode: (metadata.dev(), metadata.ino()),
            pending: Vec::new(),
        })
    }

    fn was_replaced(&self, path: &Path) -> bool {
        match std::fs::metadata(path) {
            Ok(now) => (now.dev(), now.ino()) != self.inode,
            // Renamed, and the new one is not there yet.
            Err(_) => false,
        }
    }

    /// Sends all complete lines up to the end of the file; false if the reader has enough.
    async fn copy(&mut self, output: &mut Output<'_>) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = self.file.read(&mut chunk)?;
            if read == 0 {
                return Ok(true);
            }
            self.pending.extend_from_slice(&chunk[..read]);
            let mut begin = 0;
            while let Some(length) = self.pending[begin..].iter().position(|b| *b == b'\n') {
                output.line(&self.pending[begin..begin + length]);
                begin += length + 1;
            }
            self.pending.drain(..begin);
            if self.pending.len() > MAX_LINE {
                self.rest(output);
            }
            if output.buffer.len() >= CHUNK && !output.flush().await {
                return Ok(false);
            }
            if output.left == 0 {
                output.flush().await;
                return Ok(false);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Sends a last line that has no end.
    fn rest(&mut self, output: &mut Output<'_>) {
        if !self.pending.is_empty() {
            output.line(&self.pending);
            self.pending.clear();
        }
    }
}

/// What the reader gets.
struct Output<'a> {
    left: u64,
    /// The last line was a part of one that goes on.
    continues: bool,
    buffer: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
    options: &'a LogOptions,
}

impl Output<'_> {
    fn line(&mut self, bytes: &[u8]) {
        let line = line::parse(bytes);
        if !self.wants(&line) {
            return;
        }
        if self.options.timestamps && !self.continues {
            self.push(line.time.as_bytes());
            self.push(b" ");
        }
        self.push(line.content);
        if !line.partial {
            self.push(b"\n");
        }
        self.continues = line.partial;
    }

    fn wants(&self, line: &Line<'_>) -> bool {
        if self
            .options
            .stream
            .is_some_and(|stream| stream != line.stream)
        {
            return false;
        }
        let Some(since) = self.options.since else {
            return true;
        };
        // A line without a time is not known to be old.
        line.time
            .parse::<Timestamp>()
            .map_or(true, |time| time >= since)
    }

    fn push(&mut self, bytes: &[u8]) {
        let length = u64::try_from(bytes.len())
            .unwrap_or(u64::MAX)
            .min(self.left);
        self.left -= length;
        let length = usize::try_from(length).unwrap_or(bytes.len());
        self.buffer.extend_from_slice(&bytes[..length]);
    }

    /// Sends what has gathered; false if nobody reads any more.
    async fn flush(&mut self) -> bool {
        if self.buffer.is_empty() {
            return true;
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.sender.send(Ok(chunk)).await.is_ok()
    }
}
