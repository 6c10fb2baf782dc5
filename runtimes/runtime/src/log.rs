//! A container's log, in the CRI format, written by the container's own process.
//!
//! A line is `<RFC 3339 nanoseconds> stdout|stderr F|P <text>`. A line longer than
//! [`MAX_LINE`] is written in parts tagged `P`, the last one `F`, as container runtimes do; what
//! has no newline yet is held back until it has, or until the container ends. Past the size limit
//! the file is renamed with a time as its suffix, and the oldest files are removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use tokio::sync::mpsc;

use crate::LogLimits;

/// Bytes of text in one entry, as in containerd and CRI-O.
const MAX_LINE: usize = 16 << 10;

/// One of a container's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The log of one container. The file is opened at the first entry.
pub struct Log {
    path: PathBuf,
    limits: LogLimits,
    file: Mutex<Option<Open>>,
}

struct Open {
    file: File,
    size: u64,
}

impl Log {
    /// The log of that path.
    pub fn new(path: PathBuf, limits: LogLimits) -> Self {
        Self {
            path,
            limits,
            file: Mutex::new(None),
        }
    }

    /// Makes the file, so that whoever follows the log finds it.
    pub fn create(&self) -> io::Result<()> {
        let mut file = self.file.lock();
        *file = Some(open(&self.path)?);
        Ok(())
    }

    /// Closes the file; the next entry opens it again.
    pub fn close(&self) {
        *self.file.lock() = None;
    }

    /// Writes one entry. A log that cannot be written is no reason to end a container: the entry
    /// is lost.
    fn entry(&self, stream: Stream, full: bool, text: &[u8]) {
        let mut line = Vec::with_capacity(text.len() + 48);
        let tag = if full { 'F' } else { 'P' };
        // Writing to a Vec does not fail.
        let _ = write!(line, "{:.9} {} {tag} ", Timestamp::now(), stream.name());
        line.extend_from_slice(text);
        line.push(b'\n');
        let mut file = self.file.lock();
        if let Err(error) = self.append(&mut file, &line) {
            tracing::warn!(path = %self.path.display(), %error, "a log entry is lost");
            *file = None;
        }
    }

    fn append(&self, slot: &mut Option<Open>, line: &[u8]) -> io::Result<()> {
        let full = slot.as_ref().is_some_and(|open| {
            open.size > 0 && open.size + line.len() as u64 > self.limits.max_bytes
        });
        if full {
            *slot = None;
            rotate(&self.path, self.limits.max_files)?;
        }
        let open = match slot {
            Some(open) => open,
            None => slot.insert(open(&self.path)?),
        };
        if let Err(error) = open.file.write_all(line) {
            // What of it was written, to a disk that is full, would begin the next entry.
            let now = open.file.metadata();
            if now.is_ok_and(|now| now.len() > open.size) {
                open.file.set_len(open.size)?;
            }
            return Err(error);
        }
        open.size += line.len() as u64;
        Ok(())
    }

    /// A complete line of the runtime's own, among the container's on standard error.
    pub fn note(&self, text: &str) {
        for line in text.lines() {
            self.entry(Stream::Stderr, true, line.as_bytes());
        }
    }
}

/// Opens a log, or makes it. A container that has the folder of logs in a volume may have put anything
/// in its place: a link leads nowhere, and a pipe holds nobody up.
fn open(path: &Path) -> io::Result<Open> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        // What a container says is not for everybody on the machine.
        .mode(0o640)
        .custom_flags(flags.bits() as i32)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        let message = format!("{} is no file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let size = metadata.len();
    Ok(Open { file, size })
}

/// Puts a log's current file aside, and removes the oldest ones beyond a number of files. Whoever
/// writes it opens a new one.
pub fn rotate(path: &Path, max_files: u32) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut rotated: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .collect();
    rotated.sort();
    let keep = (max_files.max(2) - 2) as usize;
    if rotated.len() > keep {
        for old in rotated.drain(..rotated.len() - keep) {
            fs::remove_file(old)?;
        }
    }
    let time = Timestamp::now().strftime("%Y%m%d-%H%M%S.%9f");
    fs::rename(path, folder.join(format!("{prefix}{time}")))
}

/// Pieces of output on their way to a listener.
const HEARD: usize = 256;
/// How long a listener may take nothing.
const STALL: Duration = Duration::from_secs(30);

/// One stream of a container: cuts what is written into lines.
pub struct Lines {
    log: Arc<Log>,
    stream: Stream,
    pending: Mutex<Vec<u8>>,
    listeners: Mutex<Vec<mpsc::Sender<Bytes>>>,
}

impl Lines {
    /// The stream of that name into a log.
    pub fn new(log: Arc<Log>, stream: Stream) -> Self {
        Self {
            log,
            stream,
            pending: Mutex::new(Vec::new()),
            listeners: Mutex::new(Vec::new()),
        }
    }

    /// What is written from now on, as it comes. Whoever takes nothing holds the container up
    /// where that waits for [`Self::room`], but not for ever, and is let go otherwise.
    pub fn listen(&self) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(HEARD);
        self.listeners.lock().push(sender);
        receiver
    }

    /// Nothing more is written: whoever listens hears the end.
    pub fn end(&self) {
        self.flush_partial();
        self.listeners.lock().clear();
    }

    /// Whether a listener has no room.
    pub fn is_full(&self) -> bool {
        let listeners = self.listeners.lock();
        listeners
            .iter()
            .any(|listener| listener.capacity() == 0 && !listener.is_closed())
    }

    /// Waits until listeners have room, and lets go those that have none for too long.
    pub async fn room(&self) {
        let listeners = self.listeners.lock().clone();
        for listener in listeners {
            if tokio::time::timeout(STALL, listener.reserve())
                .await
                .is_err()
            {
                let mut listeners = self.listeners.lock();
                listeners.retain(|other| !other.same_channel(&listener));
            }
        }
    }

    fn tell(&self, bytes: &[u8]) {
        let mut listeners = self.listeners.lock();
        if !listeners.is_empty() {
            let bytes = Bytes::copy_from_slice(bytes);
            listeners.retain(|listener| listener.try_send(bytes.clone()).is_ok());
        }
    }

    /// Takes what was written.
    pub fn put(&self, mut bytes: &[u8]) {
        self.tell(bytes);
        let mut pending = self.pending.lock();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let room = MAX_LINE - pending.len();
            let take = end.unwrap_or(bytes.len()).min(room);
            pending.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if bytes.first() == Some(&b'\n') {
                bytes = &bytes[1..];
                self.log.entry(self.stream, true, &pending);
                pending.clear();
            } else if pending.len() == MAX_LINE {
                self.log.entry(self.stream, false, &pending);
                pending.clear();
            }
        }
    }

    /// Writes what has no newline yet: the container ends.
    pub fn flush_partial(&self) {
        let mut pending = self.pending.lock();
        if !pending.is_empty() {
            self.log.entry(self.stream, true, &pending);
            pending.clear();
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush_partial();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn texts(path: &Path) -> Vec<String> {
        fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }

    #[test]
    fn output_is_cut_into_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pod/0.log");
        let log = Arc::new(Log::new(path.clone(), LogLimits::default()));
        let stdout = Lines::new(log.clone(), Stream::Stdout);
        let stderr = Lines::new(log.clone(), Stream::Stderr);
        stdout.put(b"one\ntw");
        stderr.put(b"oops\n");
        stdout.put(b"o\n\nrest");
        drop(stdout);
        let expected = [
            "stdout F one",
            "stderr F oops",
            "stdout F two",
            "stdout F ",
            "stdout F rest",
        ];
        assert_eq!(texts(&path), expected);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
        let first = fs::read_to_string(&path).unwrap();
        let time = first.split(' ').next().unwrap();
        assert_eq!(time.len(), "2026-01-02T03:04:05.123456789Z".len(), "{time}");
    }

    #[test]
    fn a_long_line_is_written_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let log = Arc::new(Log::new(path.clone(), LogLimits::default()));
        let stdout = Lines::new(log, Stream::Stdout);
        stdout.put(&vec![b'x'; MAX_LINE + 3]);
        stdout.put(b"\n");
        let entries = texts(&path);
        assert_eq!(entries.len(), 2);
        assert!(entries[0].starts_with("stdout P xxx"));
        assert_eq!(entries[1], "stdout F xxx");
    }

    #[test]
    fn what_stands_in_place_of_a_log_is_not_written() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};

        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("other"), "").unwrap();
        std::os::unix::fs::symlink(at("other"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("none"), at("new")).unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        mknodat(CWD, at("read"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let mut both = OpenOptions::new();
        let _reader = both.read(true).write(true).open(at("read")).unwrap();
        for name in ["link", "new", "pipe", "read"] {
            let log = Log::new(at(name), LogLimits::default());
            assert!(log.create().is_err(), "{name}");
            // An entry is lost, and nobody waits.
            log.note("text");
        }
        assert_eq!(fs::read(at("other")).unwrap(), b"");
        assert!(!at("none").exists());
    }

    #[test]
    fn a_full_file_is_rotated_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let limits = LogLimits {
            max_bytes: 200,
            max_files: 3,
        };
        let log = Arc::new(Log::new(path.clone(), limits));
        let stdout = Lines::new(log, Stream::Stdout);
        for number in 0..100 {
            stdout.put(format!("line {number}\n").as_bytes());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
        assert!(fs::metadata(&path).unwrap().len() <= 200);
        assert!(texts(&path).last().unwrap().ends_with("line 99"));
    }
}
