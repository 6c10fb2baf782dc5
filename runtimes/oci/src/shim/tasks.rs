//! What a shim keeps: containers and further processes in them, from the fork of their makers to
//! their ends.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use coracle_runtime::Exit;
use coracle_runtime::log::{Log, Stream};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitStatus, pidfd_open, pidfd_send_signal};

use super::create::{self, Maker};
use super::streams::{Output, Streams};
use crate::console::Console;
use crate::protocol::{Exec, Start};
use crate::signals;
use coracle_runtime::cgroup::{Cgroup, Hierarchies};

/// How long making a process may take.
const MAKING: Duration = Duration::from_secs(60);

/// Who asked: an agent's number, and the number of its request.
pub(super) type Asked = (u64, u64);

/// What is run.
pub(super) enum What {
    Container(Box<Container>),
    /// A further process of one, with its number if it ends with its session.
    Process(Option<u64>),
}

/// A container.
pub(super) struct Container {
    pub(super) start: Start,
    pub(super) streams: Streams,
    /// Where its terminal is sent while it is made.
    console: Option<Console>,
    log: Arc<Log>,
}

/// A process that is being made.
pub(super) struct Making {
    pub(super) maker: Maker,
    text: Vec<u8>,
    /// Where the executor of a container says why it has executed nothing.
    failure: Option<OwnedFd>,
    until: Instant,
}

/// A process that runs.
pub(super) struct Running {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
}

/// A container or a further process.
pub(super) struct Task {
    pub(super) what: What,
    pub(super) making: Option<Making>,
    pub(super) running: Option<Running>,
    /// Who waits for the start of a container, or for the end of a further process.
    pub(super) asked: Asked,
    /// Who waits for the end of a container.
    pub(super) stops: Vec<Asked>,
    signal: Option<i32>,
    pub(super) kill_at: Option<Instant>,
}

impl Task {
    /// Begins to make a container, which sees the processes of `target` if it is given one.
    pub(super) fn container(
        start: Start,
        target: Option<&OwnedFd>,
        asked: Asked,
    ) -> io::Result<Self> {
        let log = Arc::new(Log::new(start.log_file.clone(), start.log_limits));
        log.create()?;
        let (failure, tell) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&failure, true)?;
        let null = || std::fs::File::open("/dev/null").map(OwnedFd::from);
        let mut streams = Streams::default();
        let mut console = None;
        let stdio = if start.stdio.terminal {
            console = Some(Console::listen(&start.bundle, "terminal")?);
            [null()?, null()?, null()?]
        } else {
            let (stdout, out) = Output::pipe(&log, Stream::Stdout)?;
            let (stderr, err) = Output::pipe(&log, Stream::Stderr)?;
            streams.outputs = vec![stdout, stderr];
            let stdin = match start.stdio.stdin {
                true => streams.input(start.stdio.once)?,
                false => null()?,
            };
            [stdin, out, err]
        };
        let path = console.as_ref().map(Console::path);
        let maker = create::container(&start, stdio, path, target, tell)?;
        let what = What::Container(Box::new(Container {
            start,
            streams,
            console,
            log,
        }));
        Self::new(what, maker, Some(failure), asked)
    }

    /// Begins to make a further process in a container.
    pub(super) fn process(
        exec: &Exec,
        container: &Start,
        descriptors: Vec<OwnedFd>,
        asked: Asked,
    ) -> io::Result<Self> {
        let stdio = descriptors
            .try_into()
            .map_err(|_| io::Error::other("three descriptors belong to a process"))?;
        let maker = create::process(exec, container, stdio)?;
        Self::new(What::Process(exec.kill), maker, None, asked)
    }

    fn new(what: What, maker: Maker, failure: Option<OwnedFd>, asked: Asked) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&maker.outcome, true)?;
        Ok(Self {
            what,
            making: Some(Making {
                maker,
                text: Vec::new(),
                failure,
                until: Instant::now() + MAKING,
            }),
            running: None,
            asked,
            stops: Vec::new(),
            signal: None,
            kill_at: None,
        })
    }

    /// One that is not made yet, and by nobody.
    #[cfg(test)]
    pub(super) fn unmade(what: What, asked: Asked) -> Self {
        Self {
            what,
            making: None,
            running: None,
            asked,
            stops: Vec::new(),
            signal: None,
            kill_at: None,
        }
    }

    /// The streams of a container.
    pub(super) fn streams(&mut self) -> Option<&mut Streams> {
        match &mut self.what {
            What::Container(container) => Some(&mut container.streams),
            What::Process(_) => None,
        }
    }

    /// The container, if it is one.
    pub(super) fn as_container(&self) -> Option<&Container> {
        match &self.what {
            What::Container(container) => Some(container),
            What::Process(_) => None,
        }
    }

    /// The namespace of its processes, while it runs.
    pub(super) fn processes(&self) -> Option<io::Result<OwnedFd>> {
        let pid = self.running.as_ref()?.pid;
        // Nobody has waited for it yet, so that no other process has its number.
        let namespace = std::fs::File::open(format!("/proc/{}/ns/pid", pid.as_raw_pid()));
        Some(namespace.map(OwnedFd::from))
    }

    /// Hears the maker; says what came of it once that is known.
    pub(super) fn hear(&mut self) -> Option<create::Outcome> {
        let making = self.making.as_mut()?;
        if !create::drain(&making.maker.outcome, &mut making.text) {
            return None;
        }
        let mut why = Vec::new();
        if let Some(failure) = &making.failure {
            create::drain(failure, &mut why);
        }
        let outcome = create::read_outcome(&making.text);
        let outcome = outcome.unwrap_or_else(|| Err("what makes processes has died".into()));
        Some(match why.is_empty() {
            true => outcome,
            false => Err(String::from_utf8_lossy(&why).into_owned()),
        })
    }

    /// Whether it is a process that ends with its session, which that agent has.
    pub(super) fn is_of_session(&self, agent: u64, number: u64) -> bool {
        self.asked.0 == agent && matches!(self.what, What::Process(Some(own)) if own == number)
    }

    /// Whether it ends with that agent.
    pub(super) fn ends_with(&self, agent: u64) -> bool {
        self.asked.0 == agent && matches!(self.what, What::Process(Some(_)))
    }

    /// The process is made.
    pub(super) fn made(&mut self, pid: i32) -> io::Result<()> {
        self.making = None;
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("no number of a process"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        self.running = Some(Running { pid, pidfd });
        if let What::Container(container) = &mut self.what
            && let Some(console) = container.console.take()
        {
            let stdin = container.start.stdio.stdin;
            let master = console.take()?;
            container.streams.terminal(&container.log, master, stdin)?;
        }
        if let Some(signal) = self.signal.take() {
            self.send(signal);
        }
        Ok(())
    }

    /// When something is to be done if nothing happens until then.
    pub(super) fn due(&self) -> Option<Instant> {
        let making = self.making.as_ref().map(|making| making.until);
        let reader = self.as_container().and_then(|c| c.streams.due());
        making.or(self.kill_at).into_iter().chain(reader).min()
    }

    /// Whether making it has taken too long.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.making
            .as_ref()
            .is_some_and(|making| making.until <= now)
    }

    /// Asks it to end, and kills it when the grace period is over; the shortest of several counts.
    pub(super) fn stop(&mut self, signal: i32, grace: Duration, asked: Asked) {
        self.stops.push(asked);
        // One that is over after the end of time is none.
        let until = Instant::now().checked_add(grace);
        self.kill_at = self.kill_at.into_iter().chain(until).min();
        match &self.running {
            // It hears of it once it runs.
            None => self.signal = Some(signal),
            Some(_) => self.send(signal),
        }
    }

    fn send(&self, signal: i32) {
        let Some(running) = &self.running else {
            return;
        };
        let signal = signals::numbered(signal).unwrap_or(Signal::TERM);
        // It has ended already.
        let _ = pidfd_send_signal(&running.pidfd, signal);
    }

    /// Kills it if its grace period is over.
    pub(super) fn kill_if_due(&mut self, now: Instant) {
        if self.running.is_some() && self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.send(Signal::KILL.as_raw());
        }
    }

    /// Kills it, whatever state it is in.
    pub(super) fn kill(&mut self) {
        let now = Instant::now();
        self.kill_at = Some(self.kill_at.map_or(now, |known| known.min(now)));
    }
}

impl Container {
    /// One whose start is to fail.
    #[cfg(test)]
    pub(super) fn unmade(start: Start) -> Self {
        Self {
            log: Arc::new(Log::new(start.log_file.clone(), start.log_limits)),
            start,
            streams: Streams::default(),
            console: None,
        }
    }

    pub(super) fn cgroup(&self, hierarchies: &Hierarchies) -> Cgroup {
        hierarchies.cgroup(&self.start.cgroup)
    }

    /// How it has ended; its cgroup must still be there.
    pub(super) fn exit(&self, status: WaitStatus, cgroup: &Cgroup) -> Exit {
        let code = code(status);
        let reason = match code {
            _ if cgroup.out_of_memory() => "OOMKilled",
            0 => "Completed",
            _ => "Error",
        };
        Exit {
            started_at: Some(self.start.started_at),
            finished_at: SystemTime::now(),
            code,
            reason: reason.into(),
            message: String::new(),
        }
    }
}

/// The exit code of a process; 128 and its number for a signal.
pub(super) fn code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}
