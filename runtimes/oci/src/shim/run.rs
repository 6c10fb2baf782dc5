//! The loop of a shim: one thread that waits for whatever happens.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use coracle_runtime::frames::{FromProcess, Numbered};
use coracle_runtime::{Exit, disk};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait, waitpid};

use super::connection::Agent;
use super::patience::Patience;
use super::pause::Pause;
use super::streams::{self, Streams};
use super::tasks::{Asked, Container, Task, What, code};
use crate::protocol::{Event, OLDEST, Request, Response, Start, VERSION};
use coracle_runtime::cgroup::Hierarchies;

/// Agents at the same time: one goes while the next one comes.
const AGENTS: usize = 8;

/// The state of a shim.
pub(super) struct Shim {
    listener: UnixListener,
    agents: Vec<Agent>,
    tasks: BTreeMap<u64, Task>,
    hierarchies: Hierarchies,
    next: u64,
    patience: Patience,
    closing: bool,
    /// What those still have to read who were attached to containers that have ended.
    left: Vec<Streams>,
    buffer: Vec<u8>,
    /// The first process of a Pod whose containers share their processes; all of them end with it.
    pause: Option<Pause>,
}

/// What was waited for.
#[derive(Clone, Copy, Debug)]
enum Source {
    Listener,
    Agent(u64),
    Maker(u64),
    Stream(u64, streams::Source),
    Left(usize, streams::Source),
    End(u64),
    Pause,
}

impl Shim {
    pub(super) fn new(
        listener: UnixListener,
        patience: Option<Duration>,
        pause: Option<Pause>,
    ) -> Self {
        Self {
            listener,
            agents: Vec::new(),
            tasks: BTreeMap::new(),
            // Without cgroups nothing is started: libcontainer says so.
            hierarchies: Hierarchies::detect().unwrap_or_default(),
            next: 0,
            patience: Patience::new(patience, Instant::now()),
            closing: false,
            left: Vec::new(),
            buffer: Vec::new(),
            pause,
        }
    }

    /// Runs until it is told to close.
    pub(super) fn run(mut self) -> io::Result<()> {
        while !self.closing || !self.tasks.is_empty() || !self.left.is_empty() {
            for (source, told) in self.wait()? {
                self.handle(source, told);
            }
            self.reap_strangers();
            self.keep_time();
            self.let_go();
            self.patience.see(!self.agents.is_empty(), Instant::now());
        }
        Ok(())
    }

    /// Forgets agents that are gone, and ends what ends with them.
    fn let_go(&mut self) {
        for gone in self.agents.extract_if(.., |agent| agent.is_gone()) {
            for task in self.tasks.values_mut() {
                if task.ends_with(gone.number) {
                    task.kill();
                }
            }
        }
    }

    /// Waits until something happens or is due.
    fn wait(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = vec![Source::Listener];
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        for agent in &self.agents {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, agent.is_behind());
            sources.push(Source::Agent(agent.number));
            fds.push(PollFd::from_borrowed_fd(agent.fd(), flags));
        }
        for (number, task) in &self.tasks {
            if let Some(making) = &task.making {
                sources.push(Source::Maker(*number));
                fds.push(PollFd::new(&making.maker.outcome, PollFlags::IN));
            }
            if let Some(running) = &task.running {
                sources.push(Source::End(*number));
                fds.push(PollFd::new(&running.pidfd, PollFlags::IN));
            }
            let streams = task.as_container().map(|container| &container.streams);
            for (source, fd, flags) in streams.into_iter().flat_map(Streams::sources) {
                sources.push(Source::Stream(*number, source));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        for (index, streams) in self.left.iter().enumerate() {
            for (source, fd, flags) in streams.sources() {
                sources.push(Source::Left(index, source));
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        if let Some(pause) = &self.pause {
            sources.push(Source::Pause);
            fds.push(PollFd::new(&pause.pidfd, PollFlags::IN));
        }
        let due = self.tasks.values().filter_map(Task::due);
        let lonely = self.patience.end().filter(|_| !self.closing);
        let left = self.left.iter().filter_map(Streams::due);
        let due = due.chain(lonely).chain(left).min();
        let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            polled => polled?,
        };
        let told = fds.iter().map(PollFd::revents);
        let ready = sources.into_iter().zip(told);
        Ok(ready.filter(|(_, told)| !told.is_empty()).collect())
    }

    fn handle(&mut self, source: Source, told: PollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Pause => {
                // Nothing can be started in the Pod any more.
                if let Some(pause) = self.pause.take() {
                    let _ = waitpid(Some(pause.pid), WaitOptions::NOHANG);
                }
                self.close();
            }
            Source::Agent(number) => self.hear(number),
            Source::Maker(number) => {
                let outcome = self.tasks.get_mut(&number).and_then(Task::hear);
                if let Some(outcome) = outcome {
                    self.made(number, outcome);
                }
            }
            Source::Stream(number, source) => {
                if let Some(streams) = self.tasks.get_mut(&number).and_then(Task::streams) {
                    streams.handle(source, told, &mut self.buffer);
                }
            }
            Source::Left(index, source) => {
                if let Some(streams) = self.left.get_mut(index) {
                    streams.handle(source, told, &mut self.buffer);
                }
            }
            Source::End(number) => {
                let running = self
                    .tasks
                    .get(&number)
                    .and_then(|task| task.running.as_ref());
                let Some(pid) = running.map(|running| running.pid) else {
                    return;
                };
                if let Ok(Some((_, status))) = waitpid(Some(pid), WaitOptions::NOHANG) {
                    self.ended(number, status);
                }
            }
        }
    }

    fn accept(&mut self) {
        // Whoever cannot be taken is let go, and tries again.
        while let Ok((stream, _)) = self.listener.accept() {
            if self.agents.len() < AGENTS {
                self.next += 1;
                self.agents.extend(Agent::new(self.next, stream));
            }
        }
    }

    fn hear(&mut self, number: u64) {
        let mut requests = Vec::new();
        if let Some(agent) = self.agents.iter_mut().find(|agent| agent.number == number) {
            agent.write();
            agent.read();
            while let Some(request) = agent.request() {
                let descriptors = match &request.body {
                    Request::Exec(_) | Request::Attach { .. } => agent.descriptors(),
                    _ => Vec::new(),
                };
                requests.push((request, descriptors));
            }
        }
        for (Numbered { id, body }, descriptors) in requests {
            let asked = (number, id);
            let answer = match body {
                Request::Hello { version, oldest } => Some(hello(version, oldest)),
                Request::Running => Some(Response::Running(self.running())),
                Request::Close => {
                    self.close();
                    None
                }
                // Before anything is forked for it.
                Request::Start(_) | Request::Exec(_) if self.closing => {
                    Some(Response::Failed("the shim is closing".into()))
                }
                Request::Start(start) => {
                    let target = start.target.as_ref().map(|of| self.processes(&of.0));
                    let task = target.transpose();
                    self.begin(task.and_then(|of| Task::container(*start, of.as_ref(), asked)))
                }
                Request::Exec(exec) => {
                    let of = self
                        .find(&exec.container.0)
                        .and_then(|n| self.tasks.get(&n));
                    match of.and_then(Task::as_container) {
                        Some(Container { start, .. }) => {
                            let task = Task::process(&exec, start, descriptors, asked);
                            self.begin(task)
                        }
                        None => Some(Response::Failed("the container does not run".into())),
                    }
                }
                Request::Kill(process) => {
                    for task in self.tasks.values_mut() {
                        if task.is_of_session(number, process) {
                            task.kill();
                        }
                    }
                    Some(Response::Done)
                }
                Request::Attach { container, wanted } => {
                    Some(done(match self.streams(&container.0) {
                        Some(streams) => streams.attach(wanted, descriptors),
                        None => Err("the container does not run".into()),
                    }))
                }
                Request::Resize { container, size } => {
                    Some(done(match self.streams(&container.0) {
                        Some(streams) => streams.resize(size),
                        None => Err("the container does not run".into()),
                    }))
                }
                Request::Stop {
                    container,
                    signal,
                    grace,
                } => match self.find(&container.0).and_then(|n| self.tasks.get_mut(&n)) {
                    Some(task) => {
                        task.stop(signal, grace, asked);
                        None
                    }
                    None => Some(Response::Done),
                },
            };
            if let Some(answer) = answer {
                self.answer(asked, answer);
            }
        }
    }

    /// The task of a container.
    fn find(&self, container: &str) -> Option<u64> {
        let fits = |task: &Task| {
            let known = task.as_container();
            known.is_some_and(|known| known.start.container.0 == container)
        };
        self.tasks
            .iter()
            .find(|(_, task)| fits(task))
            .map(|(number, _)| *number)
    }

    /// The namespace of a container's processes.
    fn processes(&self, container: &str) -> io::Result<OwnedFd> {
        let task = self.find(container).and_then(|n| self.tasks.get(&n));
        let found = task.and_then(Task::processes);
        found.unwrap_or_else(|| Err(io::Error::other("the target container does not run")))
    }

    fn streams(&mut self, container: &str) -> Option<&mut Streams> {
        let number = self.find(container)?;
        self.tasks.get_mut(&number)?.streams()
    }

    fn running(&self) -> Vec<coracle_runtime::ContainerId> {
        let containers = self.tasks.values().filter_map(Task::as_container);
        containers
            .map(|container| container.start.container.clone())
            .collect()
    }

    fn begin(&mut self, task: io::Result<Task>) -> Option<Response> {
        match task {
            Ok(task) => {
                self.next += 1;
                self.tasks.insert(self.next, task);
                None
            }
            Err(error) => Some(Response::Failed(format!("starting a process: {error}"))),
        }
    }

    fn made(&mut self, number: u64, outcome: super::create::Outcome) {
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        if let Some(making) = &task.making {
            // It ends by itself, or was killed.
            let _ = waitpid(Pid::from_raw(making.maker.pid), WaitOptions::empty());
        }
        let made = outcome.and_then(|pid| task.made(pid).map_err(|error| error.to_string()));
        let asked = task.asked;
        match (made, task.as_container()) {
            (Ok(()), Some(_)) => self.answer(asked, Response::Done),
            (Ok(()), None) => {}
            (Err(cause), container) => {
                // Whoever asked may be gone, and the next agent must learn of it.
                if let Some(container) = container {
                    let start = container.start.clone();
                    self.exited(&start, Exit::not_started(&cause));
                }
                self.clear(number);
                self.answer(asked, Response::Failed(cause));
            }
        }
    }

    /// Forgets a task, and what of a container is on the machine.
    fn clear(&mut self, number: u64) {
        let Some(task) = self.tasks.remove(&number) else {
            return;
        };
        if let Some(container) = task.as_container() {
            let cgroup = container.cgroup(&self.hierarchies);
            if let Err(error) = cgroup.clear() {
                // The agent tries again before it forgets the container.
                eprintln!("removing a control group: {error}");
            }
        }
        for asked in task.stops {
            self.answer(asked, Response::Done);
        }
    }

    fn ended(&mut self, number: u64, status: WaitStatus) {
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        let asked = task.asked;
        match &mut task.what {
            What::Process(_) => {
                self.tasks.remove(&number);
                self.answer(asked, Response::Ended(code(status)));
            }
            What::Container(container) => {
                self.left.push(container.streams.finish(&mut self.buffer));
                let cgroup = container.cgroup(&self.hierarchies);
                let exit = container.exit(status, &cgroup);
                let start = container.start.clone();
                self.exited(&start, exit);
                self.clear(number);
            }
        }
    }

    /// Writes down how a container has ended, and tells.
    fn exited(&mut self, start: &Start, exit: Exit) {
        let id = start.container.clone();
        if let Err(error) = disk::write_json(&start.exit_file, &exit) {
            eprintln!("recording the exit of container {}: {error}", id.0);
        }
        let event = FromProcess::Event(Event::Exited {
            container: id,
            exit,
        });
        for agent in &mut self.agents {
            agent.send(&event);
        }
    }

    /// Reaps what containers have left to the shim. While a process is being made its end must be
    /// kept for it.
    fn reap_strangers(&mut self) {
        while self.tasks.values().all(|task| task.making.is_none()) {
            let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) else {
                return;
            };
            let of = |task: &Task| {
                task.running
                    .as_ref()
                    .is_some_and(|running| running.pid == pid)
            };
            let known = self
                .tasks
                .iter()
                .find(|(_, task)| of(task))
                .map(|(number, _)| *number);
            if let Some(number) = known {
                self.ended(number, status);
            }
        }
    }

    fn keep_time(&mut self) {
        let now = Instant::now();
        if !self.closing && self.patience.end().is_some_and(|end| end <= now) {
            self.close();
        }
        let stuck: Vec<u64> = self
            .tasks
            .iter_mut()
            .filter_map(|(number, task)| {
                task.kill_if_due(now);
                if let Some(streams) = task.streams() {
                    streams.keep_time(now);
                }
                task.is_stuck(now).then_some(*number)
            })
            .collect();
        for streams in &mut self.left {
            streams.keep_time(now);
        }
        self.left.retain(|streams| !streams.is_read());
        for number in stuck {
            let making = self
                .tasks
                .get(&number)
                .and_then(|task| task.making.as_ref());
            if let Some(pid) = making.and_then(|making| Pid::from_raw(making.maker.pid)) {
                // It has just ended.
                let _ = kill_process(pid, Signal::KILL);
            }
            self.made(number, Err("making the process took too long".into()));
        }
    }

    fn close(&mut self) {
        self.closing = true;
        for task in self.tasks.values_mut() {
            task.kill();
        }
    }

    fn answer(&mut self, (agent, id): Asked, body: Response) {
        let greets = matches!(body, Response::Hello { .. });
        // It may be gone; the next one asks anew.
        if let Some(agent) = self.agents.iter_mut().find(|known| known.number == agent) {
            agent.send(&FromProcess::Response(Numbered { id, body }));
            if greets && !agent.is_gone() {
                self.patience.met();
            }
        }
    }
}

fn done(did: Result<(), String>) -> Response {
    match did {
        Ok(()) => Response::Done,
        Err(cause) => Response::Failed(cause),
    }
}

fn hello(version: u32, oldest: u32) -> Response {
    let common = version.min(VERSION);
    match common >= oldest.max(OLDEST) {
        true => Response::Hello { version: common },
        false => Response::Failed(format!(
            "this shim speaks versions {OLDEST} to {VERSION} of the protocol, \
             the agent {oldest} to {version}"
        )),
    }
}

#[cfg(test)]
mod tests;
