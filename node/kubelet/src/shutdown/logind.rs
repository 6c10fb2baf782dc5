//! The machine's logind, asked over its system bus.
//!
//! One connection, a call at a time. It needs five methods and a signal: the crates for D-Bus are
//! made for far more, and are many. What is sent and read is in [`message`]; this is the socket.
//!
//! ```text
//! AUTH, NEGOTIATE_UNIX_FD, BEGIN ──► Hello ──► Inhibit: a descriptor that delays the shutdown
//!                                         └──► AddMatch ──► PrepareForShutdown(true) ──► it is closed
//! ```
//!
//! Source: the D-Bus specification; "Inhibitor Locks" of systemd. Others on the bus may send signals
//! that look the same, so each is believed of logind's owner alone.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_runtime::connection::receive_with;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::message::{self, Argument, Kind, Malformed, Message, Method, Reader};

/// Where the system bus is, unless the environment says otherwise.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// How long an answer is waited for, as D-Bus libraries do.
const ANSWER: Duration = Duration::from_secs(25);
/// Bytes that are read at once.
const CHUNK: usize = 4096;
/// Signals that wait while an answer does.
const SIGNALS: usize = 16;

const LOGIND: &str = "org.freedesktop.login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SIGNAL: &str = "PrepareForShutdown";
const MATCH: &str = "type='signal',sender='org.freedesktop.login1',\
    interface='org.freedesktop.login1.Manager',member='PrepareForShutdown',\
    path='/org/freedesktop/login1'";

/// Why the bus, or logind, does not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot reach the system bus at {path}: {source}")]
    Connect { path: PathBuf, source: io::Error },
    #[error("the system bus broke off: {0}")]
    Io(#[from] io::Error),
    #[error("the system bus does not let this process in: {0:?}")]
    Refused(String),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("{member} failed: {name}")]
    Call { member: &'static str, name: String },
    #[error("{0} is not answered")]
    Silent(&'static str),
    #[error("{0} was answered with something else")]
    Unexpected(&'static str),
}

/// The path of the system bus that has this address, `DBUS_SYSTEM_BUS_ADDRESS`.
pub(super) fn bus_of(address: &str) -> PathBuf {
    match address.strip_prefix("unix:path=") {
        Some(path) => path.split([',', ';']).next().unwrap_or_default().into(),
        None => SYSTEM_BUS.into(),
    }
}

/// A connection to logind.
pub(super) struct Logind {
    stream: UnixStream,
    serial: u32,
    came: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    signals: VecDeque<Message>,
}

impl Logind {
    /// Connects, and asks to be told of shutdowns.
    pub(super) async fn connect(bus: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(bus).await;
        let stream = stream.map_err(|source| Error::Connect {
            path: bus.to_owned(),
            source,
        })?;
        let mut this = Self {
            stream,
            serial: 0,
            came: Vec::new(),
            descriptors: VecDeque::new(),
            signals: VecDeque::new(),
        };
        let patient = tokio::time::timeout(ANSWER, this.authenticate()).await;
        patient.map_err(|_| Error::Silent("AUTH"))??;
        this.call(bus_method("Hello"), &[]).await?;
        this.call(bus_method("AddMatch"), &[Argument::String(MATCH)])
            .await?;
        Ok(this)
    }

    /// The kernel tells the bus who this is.
    async fn authenticate(&mut self) -> Result<(), Error> {
        let user = rustix::process::geteuid().as_raw().to_string();
        let hex: String = user.bytes().map(|byte| format!("{byte:02x}")).collect();
        let external = format!("\0AUTH EXTERNAL {hex}\r\n");
        for (line, answer) in [
            (&*external, "OK"),
            ("NEGOTIATE_UNIX_FD\r\n", "AGREE_UNIX_FD"),
        ] {
            self.stream.write_all(line.as_bytes()).await?;
            let said = self.line().await?;
            if said.split(' ').next() != Some(answer) {
                return Err(Error::Refused(said));
            }
        }
        Ok(self.stream.write_all(b"BEGIN\r\n").await?)
    }

    async fn line(&mut self) -> Result<String, Error> {
        loop {
            if let Some(end) = self.came.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.came.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.came.len() > CHUNK {
                return Err(Error::Refused("a line without an end".to_owned()));
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<(), Error> {
        let mut bytes = [0; CHUNK];
        let stream = &self.stream;
        let read = stream.async_io(Interest::READABLE, || receive_with(stream, &mut bytes));
        let (length, descriptors) = read.await?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.came.extend(&bytes[..length]);
        self.descriptors.extend(descriptors);
        Ok(())
    }

    /// The next message, with the first descriptor that came beside it. Safe to drop half way.
    async fn next(&mut self) -> Result<(Message, Option<OwnedFd>), Error> {
        loop {
            if let Some((message, length)) = message::read(&self.came)? {
                self.came.drain(..length);
                let count = message.descriptors.min(self.descriptors.len());
                let first = self.descriptors.drain(..count).next();
                return Ok((message, first));
            }
            self.receive().await?;
        }
    }

    async fn call(
        &mut self,
        method: Method,
        arguments: &[Argument<'_>],
    ) -> Result<(Message, Option<OwnedFd>), Error> {
        let answer = self.answer(method, arguments);
        let answer = tokio::time::timeout(ANSWER, answer).await;
        answer.map_err(|_| Error::Silent(method.member))?
    }

    async fn answer(
        &mut self,
        method: Method,
        arguments: &[Argument<'_>],
    ) -> Result<(Message, Option<OwnedFd>), Error> {
        self.serial += 1;
        let serial = self.serial;
        let call = message::call(serial, method, arguments);
        self.stream.write_all(&call).await?;
        loop {
            let (message, descriptor) = self.next().await?;
            match &message.kind {
                Kind::Return(to) if *to == serial => return Ok((message, descriptor)),
                Kind::Error(to, name) if *to == serial => {
                    let (member, name) = (method.member, name.clone());
                    return Err(Error::Call { member, name });
                }
                Kind::Signal { .. } if self.signals.len() < SIGNALS => {
                    self.signals.push_back(message);
                }
                _ => {}
            }
        }
    }

    /// For how long logind lets a shutdown be delayed.
    pub(super) async fn longest_delay(&mut self) -> Result<Duration, Error> {
        let method = Method {
            interface: "org.freedesktop.DBus.Properties",
            ..manager("Get")
        };
        let property = [MANAGER, "InhibitDelayMaxUSec"].map(Argument::String);
        let (answer, _) = self.call(method, &property).await?;
        let mut reader = Reader::new(&answer.body);
        match (&*answer.signature, &*reader.signature()?) {
            ("v", "t") => Ok(Duration::from_micros(reader.u64()?)),
            _ => Err(Error::Unexpected("InhibitDelayMaxUSec")),
        }
    }

    /// Delays shutdowns until what is returned is dropped.
    pub(super) async fn inhibit(&mut self) -> Result<OwnedFd, Error> {
        let why = "Pods are given time to end";
        let arguments = ["shutdown", "coracle", why, "delay"].map(Argument::String);
        let (_, descriptor) = self.call(manager("Inhibit"), &arguments).await?;
        descriptor.ok_or(Error::Unexpected("Inhibit"))
    }

    /// Has logind read its configuration again.
    pub(super) async fn reload(&mut self) -> Result<(), Error> {
        let method = Method {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "KillUnit",
        };
        let unit = ["systemd-logind.service", "all"].map(Argument::String);
        let hang_up = Argument::Int(libc::SIGHUP);
        self.call(method, &[unit[0], unit[1], hang_up]).await?;
        Ok(())
    }

    /// Waits until the machine is about to shut down (true), or is not any more. Safe to drop half
    /// way while nothing has come.
    pub(super) async fn shutdown(&mut self) -> Result<bool, Error> {
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.next().await?.0,
            };
            let Kind::Signal { interface, member } = &message.kind else {
                continue;
            };
            if (&**interface, &**member, &*message.signature) != (MANAGER, SIGNAL, "b") {
                continue;
            }
            let owner = Argument::String(LOGIND);
            let (owner, _) = self.call(bus_method("GetNameOwner"), &[owner]).await?;
            if Reader::new(&owner.body).string()? == message.sender {
                return Ok(Reader::new(&message.body).u32()? != 0);
            }
            tracing::warn!(
                sender = message.sender,
                "somebody else than logind tells of a shutdown"
            );
        }
    }
}

fn bus_method(member: &'static str) -> Method {
    Method {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
    }
}

fn manager(member: &'static str) -> Method {
    Method {
        destination: LOGIND,
        path: "/org/freedesktop/login1",
        interface: MANAGER,
        member,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bus_is_where_the_environment_says() {
        for (address, expected) in [
            ("", SYSTEM_BUS),
            ("unix:path=/a/b,guid=0", "/a/b"),
            ("unix:path=/a;unix:path=/b", "/a"),
            ("tcp:host=x", SYSTEM_BUS),
        ] {
            assert_eq!(bus_of(address), PathBuf::from(expected), "{address}");
        }
    }
}
