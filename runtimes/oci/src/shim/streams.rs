//! The streams of a container: what it writes goes into its log and to whoever is attached; what
//! they write is its input.
//!
//! Who is attached and does not read holds the container up, as a terminal does, but not for ever:
//! after [`STALL`] it is let go. Nothing is held that is more than a pipe's content.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_runtime::log::{Lines, Log, Stream};
use coracle_runtime::streaming::{TerminalSize, Wanted, resize};
use rustix::event::PollFlags;
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};

/// Bytes that are read at once: a pipe holds no more.
const CHUNK: usize = 64 << 10;
/// How long somebody who is attached may not read.
const STALL: Duration = Duration::from_secs(30);
/// How many may be attached to a container.
const ATTACHED: usize = 64;

/// One stream of a container.
pub(super) struct Output {
    pipe: OwnedFd,
    stream: Stream,
    lines: Lines,
}

impl Output {
    /// A stream into a log, and where the container writes to.
    pub(super) fn pipe(log: &Arc<Log>, stream: Stream) -> io::Result<(Self, OwnedFd)> {
        let (pipe, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Self::new(log, stream, pipe)?, writer))
    }

    fn new(log: &Arc<Log>, stream: Stream, pipe: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let lines = Lines::new(log.clone(), stream);
        Ok(Self {
            pipe,
            stream,
            lines,
        })
    }
}

/// Somebody who reads a stream of a container.
pub(super) struct Reader {
    stream: Stream,
    pipe: OwnedFd,
    /// What the pipe has not taken yet, and since when.
    behind: Vec<u8>,
    since: Option<Instant>,
    gone: bool,
}

impl Reader {
    fn new(stream: Stream, pipe: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self {
            stream,
            pipe,
            behind: Vec::new(),
            since: None,
            gone: false,
        })
    }

    fn put(&mut self, bytes: &[u8]) {
        self.behind.extend_from_slice(bytes);
        self.flush();
    }

    /// Writes what the pipe takes.
    fn flush(&mut self) {
        match drain(&self.pipe, &mut self.behind) {
            Ok(0) => {}
            Ok(_) => self.since = None,
            Err(_) => self.gone = true,
        }
        match self.behind.is_empty() {
            true => self.since = None,
            false => drop(self.since.get_or_insert_with(Instant::now)),
        }
    }

    /// Whether all has been read, or never will be.
    fn is_done(&self) -> bool {
        self.gone || self.behind.is_empty()
    }
}

/// Writes from the front of a buffer what is taken; how much that was.
fn drain(to: &OwnedFd, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match write(to, &bytes[taken..]) {
            Ok(n) => taken += n,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    bytes.drain(..taken);
    Ok(taken)
}

/// A container's input.
struct Input {
    /// None once it has ended.
    to: Option<OwnedFd>,
    /// Whether it ends with the first who writes.
    once: bool,
    /// Who writes.
    writers: Vec<OwnedFd>,
    /// What the container has not taken yet.
    behind: Vec<u8>,
    /// Whether it ends when that is written.
    ending: bool,
}

impl Input {
    fn new(to: OwnedFd, once: bool) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&to, true)?;
        Ok(Self {
            to: Some(to),
            once,
            writers: Vec::new(),
            behind: Vec::new(),
            ending: false,
        })
    }

    fn read(&mut self, index: usize, buffer: &mut Vec<u8>) {
        let Some(writer) = self.writers.get(index) else {
            return;
        };
        buffer.resize(CHUNK, 0);
        match read(writer, &mut buffer[..]) {
            Ok(n @ 1..) => {
                self.behind.extend_from_slice(&buffer[..n]);
                self.flush();
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => {
                self.writers.remove(index);
                self.ending |= self.once;
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let Some(to) = &self.to else { return };
        let broken = drain(to, &mut self.behind).is_err();
        if broken || (self.ending && self.behind.is_empty()) {
            self.to = None;
            self.writers.clear();
            self.behind.clear();
        }
    }
}

/// What of a container's streams was waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Output(usize),
    Reader(usize),
    Writer(usize),
    Input,
}

/// All streams of a container.
#[derive(Default)]
pub(super) struct Streams {
    /// Those that have not ended.
    pub(super) outputs: Vec<Output>,
    readers: Vec<Reader>,
    input: Option<Input>,
    terminal: Option<OwnedFd>,
}

impl Streams {
    /// Gives the container an input: the end from which it reads.
    pub(super) fn input(&mut self, once: bool) -> io::Result<OwnedFd> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        self.input = Some(Input::new(writer, once)?);
        Ok(reader)
    }

    /// The container runs on that terminal.
    pub(super) fn terminal(
        &mut self,
        log: &Arc<Log>,
        master: OwnedFd,
        stdin: bool,
    ) -> io::Result<()> {
        if stdin {
            // Who lets go of a terminal does not end it.
            self.input = Some(Input::new(master.try_clone()?, false)?);
        }
        self.terminal = Some(master.try_clone()?);
        self.outputs = vec![Output::new(log, Stream::Stdout, master)?];
        Ok(())
    }

    /// Lets somebody join.
    pub(super) fn attach(&mut self, wanted: Wanted, pipes: Vec<OwnedFd>) -> Result<(), String> {
        let error = |error: io::Error| error.to_string();
        let mut pipes = pipes.into_iter();
        let mut next = |wanted: bool| match wanted {
            true => pipes.next().map(Some).ok_or("a descriptor is missing"),
            false => Ok(None),
        };
        let (stdin, stdout, stderr) = (
            next(wanted.stdin)?,
            next(wanted.stdout)?,
            next(wanted.stderr)?,
        );
        let writers = self.input.as_ref().map_or(0, |input| input.writers.len());
        if self.readers.len() + writers >= ATTACHED {
            return Err(format!("{ATTACHED} are attached to the container already"));
        }
        if let Some(stdin) = stdin {
            rustix::io::ioctl_fionbio(&stdin, true).map_err(|errno| error(errno.into()))?;
            // One that has ended takes nothing, which the writer finds out by itself.
            if let Some(input) = self.input.as_mut().filter(|input| input.to.is_some()) {
                input.writers.push(stdin);
            }
        }
        for (stream, pipe) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            if let Some(pipe) = pipe {
                self.readers.push(Reader::new(stream, pipe).map_err(error)?);
            }
        }
        Ok(())
    }

    /// Changes the size of its terminal.
    pub(super) fn resize(&self, size: TerminalSize) -> Result<(), String> {
        let terminal = self.terminal.as_ref();
        let terminal = terminal.ok_or("the container runs on no terminal")?;
        resize(terminal, size).map_err(|error| error.to_string())
    }

    /// What is to be waited for.
    pub(super) fn sources(&self) -> Vec<(Source, BorrowedFd<'_>, PollFlags)> {
        let mut sources = Vec::new();
        let held_up = |stream| {
            let mut readers = self.readers.iter();
            readers.any(|reader| reader.stream == stream && !reader.is_done())
        };
        for (index, output) in self.outputs.iter().enumerate() {
            if !held_up(output.stream) {
                sources.push((Source::Output(index), output.pipe.as_fd(), PollFlags::IN));
            }
        }
        for (index, reader) in self.readers.iter().enumerate() {
            // That nobody reads any more is told unasked.
            let flags = match reader.is_done() {
                true => PollFlags::empty(),
                false => PollFlags::OUT,
            };
            sources.push((Source::Reader(index), reader.pipe.as_fd(), flags));
        }
        if let Some(input) = &self.input
            && let Some(to) = &input.to
        {
            if input.behind.is_empty() {
                for (index, writer) in input.writers.iter().enumerate() {
                    sources.push((Source::Writer(index), writer.as_fd(), PollFlags::IN));
                }
            } else {
                sources.push((Source::Input, to.as_fd(), PollFlags::OUT));
            }
        }
        sources
    }

    /// Does what can be done now, so much at a time that one container that writes without end
    /// holds up no other. `flags` is what was waited for.
    pub(super) fn handle(&mut self, source: Source, told: PollFlags, buffer: &mut Vec<u8>) {
        match source {
            Source::Output(index) => self.take(index, buffer),
            Source::Reader(index) => {
                if let Some(reader) = self.readers.get_mut(index) {
                    reader.gone |= told.intersects(PollFlags::ERR | PollFlags::NVAL);
                    reader.flush();
                }
            }
            Source::Writer(index) => {
                if let Some(input) = &mut self.input {
                    input.read(index, buffer);
                }
            }
            Source::Input => {
                if let Some(input) = &mut self.input {
                    input.flush();
                }
            }
        }
    }

    fn take(&mut self, index: usize, buffer: &mut Vec<u8>) {
        let Some(output) = self.outputs.get(index) else {
            return;
        };
        buffer.resize(CHUNK, 0);
        match read(&output.pipe, &mut buffer[..]) {
            Ok(n @ 1..) => {
                output.lines.put(&buffer[..n]);
                give(&mut self.readers, output.stream, &buffer[..n]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => drop(self.outputs.remove(index)),
        }
    }

    /// When somebody who does not read is let go.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.readers.iter().filter_map(|reader| reader.since);
        since.map(|since| since + STALL).min()
    }

    /// Forgets who is gone, and lets go who does not read.
    pub(super) fn keep_time(&mut self, now: Instant) {
        self.readers
            .retain(|reader| !reader.gone && reader.since.is_none_or(|since| since + STALL > now));
    }

    /// The container has ended: takes what is left, as much as a pipe holds. Gives what is still to
    /// be read by who was attached.
    pub(super) fn finish(&mut self, buffer: &mut Vec<u8>) -> Self {
        buffer.resize(CHUNK, 0);
        for output in self.outputs.drain(..) {
            let mut left = 1 << 20;
            while left > 0 {
                match read(&output.pipe, &mut buffer[..]) {
                    Ok(n @ 1..) => {
                        output.lines.put(&buffer[..n]);
                        give(&mut self.readers, output.stream, &buffer[..n]);
                        left -= n.min(left);
                    }
                    Err(Errno::INTR) => {}
                    _ => break,
                }
            }
        }
        let mut rest = Self::default();
        std::mem::swap(&mut rest.readers, &mut self.readers);
        rest.readers.retain(|reader| !reader.is_done());
        rest
    }

    /// Whether nobody reads any more.
    pub(super) fn is_read(&self) -> bool {
        self.readers.iter().all(Reader::is_done)
    }
}

fn give(readers: &mut [Reader], stream: Stream, bytes: &[u8]) {
    for reader in readers.iter_mut().filter(|reader| reader.stream == stream) {
        reader.put(bytes);
    }
}
