//! The log: a queue with a bound, and a file that is rotated (or standard output).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Plugin;

/// Events that wait to be written, and their bytes.
const QUEUED: usize = 10_000;
const QUEUED_BYTES: usize = 64 << 20;
/// Events that are written at once.
const BATCH: usize = 256;
const PLUGIN: Plugin = Plugin { plugin: "log" };

/// Where events are written, and how long they are kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// Days that a rotated file is kept; 0 is for ever.
    pub max_age: u32,
    /// Rotated files that are kept; 0 is all.
    pub max_backups: u32,
    /// Megabytes after which a file is rotated; 0 is never.
    pub max_size: u32,
}

/// The log. Events are pushed by requests and written by [`AuditLog::run`].
pub struct AuditLog {
    sender: mpsc::Sender<Vec<u8>>,
    writer: Mutex<Option<(mpsc::Receiver<Vec<u8>>, Output)>>,
    queued_bytes: Arc<AtomicUsize>,
    /// Lost since it was last said.
    unsaid: AtomicU64,
    lost: Family<Plugin, Counter>,
}

impl AuditLog {
    /// Opens the log.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn open(options: LogOptions) -> io::Result<Self> {
        let output = if options.path == Path::new("-") {
            Output::Stdout
        } else {
            Output::File(Rotated::open(options)?)
        };
        let (sender, receiver) = mpsc::channel(QUEUED);
        let lost = Family::<Plugin, Counter>::default();
        // So that it is there before anything was lost.
        drop(lost.get_or_create(&PLUGIN));
        Ok(Self {
            sender,
            writer: Mutex::new(Some((receiver, output))),
            queued_bytes: Arc::default(),
            unsaid: AtomicU64::new(0),
            lost,
        })
    }

    /// Events that were lost.
    pub(super) fn lost(&self) -> Family<Plugin, Counter> {
        self.lost.clone()
    }

    /// Queues an event. It never waits: without room the event is lost, and counted.
    pub(super) fn push(&self, mut line: Vec<u8>) {
        line.push(b'\n');
        let size = line.len();
        let queued = self.queued_bytes.fetch_add(size, Ordering::Relaxed);
        if queued + size > QUEUED_BYTES || self.sender.try_send(line).is_err() {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            self.count_lost(1);
        }
    }

    fn count_lost(&self, count: u64) {
        self.lost.get_or_create(&PLUGIN).inc_by(count);
        self.unsaid.fetch_add(count, Ordering::Relaxed);
    }

    /// Writes what is queued until cancelled, and then what is left. Runs once; a second call
    /// returns at once.
    pub(crate) async fn run(&self, cancel: CancellationToken) {
        let Some((mut receiver, mut output)) = self.writer.lock().take() else {
            return;
        };
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            let received = receiver.recv_many(&mut batch, BATCH);
            let ended = cancel.run_until_cancelled(received).await.is_none();
            if ended {
                while let Ok(line) = receiver.try_recv() {
                    batch.push(line);
                }
            }
            let count = batch.len() as u64;
            let size = batch.iter().map(Vec::len).sum();
            // A disk may be slow, and a pipe may be full: not on a thread that serves requests.
            let written = tokio::task::spawn_blocking(move || {
                let written = output.write(&batch);
                (output, written)
            });
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            match written.await {
                Ok((back, written)) => {
                    output = back;
                    if let Err(error) = written {
                        tracing::error!(%error, "the audit log cannot be written");
                        self.count_lost(count);
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the audit log has failed");
                    return self.count_lost(count);
                }
            }
            let unsaid = self.unsaid.swap(0, Ordering::Relaxed);
            if unsaid > 0 {
                tracing::error!(events = unsaid, "audit events were lost");
            }
            if ended {
                return;
            }
        }
    }
}

enum Output {
    Stdout,
    File(Rotated),
}

impl Output {
    fn write(&mut self, lines: &[Vec<u8>]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                lines.iter().try_for_each(|line| stdout.write_all(line))?;
                stdout.flush()
            }
            Self::File(file) => lines.iter().try_for_each(|line| file.write(line)),
        }
    }
}

/// A file that makes room for a new one when it is large.
struct Rotated {
    options: LogOptions,
    file: File,
    size: u64,
}

impl Rotated {
    fn open(options: LogOptions) -> io::Result<Self> {
        let file = append(&options.path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            options,
            file,
            size,
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let limit = u64::from(self.options.max_size) << 20;
        let after = self.size + line.len() as u64;
        if limit > 0 && self.size > 0 && after > limit {
            self.rotate(Timestamp::now())?;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        let (start, end) = affixes(&self.options.path);
        let folder = folder(&self.options.path);
        let stamp = now.strftime("%Y-%m-%dT%H-%M-%S%.9f");
        let backup = folder.join(format!("{start}{stamp}{end}"));
        match std::fs::rename(&self.options.path, backup) {
            // Moved already: by a try before this one, or by somebody else.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file = append(&self.options.path)?;
        self.size = 0;
        // The log goes on whether or not old ones can be removed.
        if let Err(error) = self.clear(now) {
            tracing::warn!(%error, "old audit logs are not removed");
        }
        Ok(())
    }

    /// Removes the old files that are too many or too old.
    fn clear(&self, now: Timestamp) -> io::Result<()> {
        let (start, end) = affixes(&self.options.path);
        let folder = folder(&self.options.path);
        let mut backups = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            backups.extend(entry?.file_name().into_string().ok());
        }
        for name in superfluous(backups, &start, &end, now, &self.options) {
            std::fs::remove_file(folder.join(name))?;
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // It tells what secrets hold, if its policy does.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// What the names of rotated files have before and after the time.
fn affixes(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let end = match path.extension() {
        Some(extension) => format!(".{}", text(Some(extension))),
        None => String::new(),
    };
    (format!("{}-", text(path.file_stem())), end)
}

/// Which rotated files go: those that are too old, and the oldest that are too many.
fn superfluous(
    names: Vec<String>,
    start: &str,
    end: &str,
    now: Timestamp,
    options: &LogOptions,
) -> Vec<String> {
    let time_of = |name: &str| {
        let stamp = name.strip_prefix(start)?.strip_suffix(end)?;
        let (day, time) = stamp.split_once('T')?;
        let time = time.replacen('-', ":", 2);
        format!("{day}T{time}Z").parse::<Timestamp>().ok()
    };
    let mut backups: Vec<(Timestamp, String)> = names
        .into_iter()
        .filter_map(|name| Some((time_of(&name)?, name)))
        .collect();
    backups.sort();
    let kept = match options.max_backups {
        0 => backups.len(),
        kept => kept as usize,
    };
    let surplus = backups.len().saturating_sub(kept);
    let age = SignedDuration::from_hours(24 * i64::from(options.max_age));
    let old = |time: Timestamp| options.max_age > 0 && now.duration_since(time) > age;
    let chosen = backups.into_iter().enumerate();
    chosen
        .filter(|(i, (time, _))| *i < surplus || old(*time))
        .map(|(_, (_, name))| name)
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn options(path: &Path) -> LogOptions {
        LogOptions {
            path: path.to_owned(),
            max_age: 2,
            max_backups: 2,
            max_size: 1,
        }
    }

    #[test]
    fn old_files_go_and_others_are_left_alone() {
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        let name = |stamp: &str| format!("audit-{stamp}.log");
        let names: Vec<String> = [
            name("2026-01-09T12-00-00.000000001"),
            name("2026-01-09T12-00-00.000000002"),
            name("2026-01-09T12-00-00.000000003"),
            name("2026-01-01T12-00-00.000000000"),
            "audit.log".to_owned(),
            "audit-notes.log".to_owned(),
            "other-2026-01-01T12-00-00.000000000.log".to_owned(),
        ]
        .into();
        let (start, end) = affixes(Path::new("/var/log/audit.log"));
        let chosen = |options: &LogOptions| superfluous(names.clone(), &start, &end, now, options);
        let mut options = options(Path::new("audit.log"));
        let oldest = name("2026-01-01T12-00-00.000000000");
        let first = name("2026-01-09T12-00-00.000000001");
        assert_eq!(chosen(&options), [oldest.clone(), first]);
        options.max_backups = 0;
        assert_eq!(chosen(&options), [oldest]);
        options.max_age = 0;
        assert!(chosen(&options).is_empty());
    }

    #[test]
    fn a_large_file_makes_room_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut log = Rotated::open(options(&path)).unwrap();
        let line = vec![b'x'; 400 << 10];
        for _ in 0..9 {
            log.write(&line).unwrap();
        }
        let count = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(count, 3, "two backups and the file");
        assert!(path.metadata().unwrap().len() <= 1 << 20);
        // One that is there already is gone on with.
        drop(log);
        let log = Rotated::open(options(&path)).unwrap();
        assert_eq!(log.size, path.metadata().unwrap().len());
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_the_rest_is_written_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let log = AuditLog::open(options(&path)).unwrap();
        for _ in 0..QUEUED + 7 {
            log.push(b"{}".to_vec());
        }
        assert_eq!(log.lost.get_or_create(&PLUGIN).get(), 7);
        let cancel = CancellationToken::new();
        cancel.cancel();
        log.run(cancel).await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), QUEUED);
        assert_eq!(log.queued_bytes.load(Ordering::Relaxed), 0);
        // One event too many in bytes.
        log.push(vec![b'x'; QUEUED_BYTES]);
        assert_eq!(log.lost.get_or_create(&PLUGIN).get(), 8);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        assert!(AuditLog::open(options(Path::new("/nowhere/audit.log"))).is_err());
    }
}
