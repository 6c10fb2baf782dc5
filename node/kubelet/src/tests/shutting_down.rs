//! The node before a shutdown, told by a bus that knows nothing but logind.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use coracle_runtime::fake::{Behaviour, FakeRuntime};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

use super::world::{World, condition, is_ready, path};
use crate::shutdown::message::tests::sent;
use crate::{LogindPlaces, ShutdownPolicy};

const LOGIND: &str = ":1.5";

/// A bus on which there is a logind, for one client.
struct Bus {
    folder: tempfile::TempDir,
    /// Told of the client's socket once it has been let in, and its delays of shutdowns.
    clients: mpsc::Receiver<(UnixStream, OwnedFd)>,
}

impl Bus {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("bus")).unwrap();
        let (sender, clients) = mpsc::channel();
        let configuration = folder.path().join("logind.conf.d/99-coracle.conf");
        std::thread::spawn(move || {
            for client in listener.incoming() {
                // A client that breaks off is done.
                let _ = serve(client.unwrap(), &configuration, &sender);
            }
        });
        Self { folder, clients }
    }

    fn places(&self) -> LogindPlaces {
        LogindPlaces {
            bus: self.folder.path().join("bus"),
            configuration: self.folder.path().join("logind.conf.d"),
        }
    }

    /// Waits until the client delays shutdowns: its socket, and what tells that it delays no more.
    async fn delayed(self) -> (Self, UnixStream, OwnedFd) {
        let wait = tokio::task::spawn_blocking(move || {
            let (client, delay) = self.clients.recv_timeout(Duration::from_secs(20)).unwrap();
            (self, client, delay)
        });
        wait.await.unwrap()
    }
}

/// Tells of a shutdown, as `sender`.
fn signal(mut client: &UnixStream, sender: &str, begins: bool) {
    let of = (
        0,
        Some(("org.freedesktop.login1.Manager", "PrepareForShutdown")),
    );
    let signal = sent(of, sender, "b", &u32::from(begins).to_le_bytes(), 0);
    client.write_all(&signal).unwrap();
}

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    [&length[..], text.as_bytes(), b"\0"].concat()
}

fn serve(
    client: UnixStream,
    configuration: &Path,
    delays: &mpsc::Sender<(UnixStream, OwnedFd)>,
) -> std::io::Result<()> {
    let mut came = Vec::new();
    let mut stream = &client;
    let more = |came: &mut Vec<u8>| -> std::io::Result<()> {
        let mut bytes = [0; 512];
        match (&client).read(&mut bytes)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => {
                came.extend(&bytes[..length]);
                Ok(())
            }
        }
    };
    loop {
        // The first call comes right after the last line, which has no answer.
        let end = loop {
            match came.windows(2).position(|two| two == b"\r\n") {
                Some(at) => break at + 2,
                None => more(&mut came)?,
            }
        };
        let said = String::from_utf8(came.drain(..end).collect()).unwrap();
        let answer = match said.trim_start_matches('\0') {
            of if of.starts_with("AUTH EXTERNAL ") => "OK 0123\r\n",
            "NEGOTIATE_UNIX_FD\r\n" => "AGREE_UNIX_FD\r\n",
            "BEGIN\r\n" => break,
            other => panic!("{other:?}"),
        };
        stream.write_all(answer.as_bytes())?;
    }
    loop {
        let number = |came: &[u8], at: usize| {
            let bytes = came.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().unwrap()))
        };
        let call: Vec<u8> = loop {
            if let (Some(body), Some(fields)) = (number(&came, 4), number(&came, 12)) {
                let length = (16 + fields as usize).next_multiple_of(8) + body as usize;
                if came.len() >= length {
                    break came.drain(..length).collect();
                }
            }
            more(&mut came)?;
        };
        let serial = number(&call, 8).unwrap();
        let names = |member: &str| call.windows(member.len()).any(|of| of == member.as_bytes());
        let answer = |signature: &str, body: &[u8], descriptors: u32| {
            sent(
                (serial, None),
                "org.freedesktop.DBus",
                signature,
                body,
                descriptors,
            )
        };
        if names("PrepareForShutdown") || names("Hello\0") || names("KillUnit\0") {
            stream.write_all(&answer("", &[], 0))?;
        } else if names("GetNameOwner\0") {
            stream.write_all(&answer("s", &text(LOGIND), 0))?;
        } else if names("InhibitDelayMaxUSec\0") {
            let told = std::fs::read_to_string(configuration).unwrap_or_default();
            let seconds = told.split("InhibitDelayMaxSec=").nth(1).unwrap_or("5");
            let longest: u64 = seconds.trim().parse::<u64>().unwrap() * 1_000_000;
            let body = [&b"\x01t\0\0\0\0\0\0"[..], &longest.to_le_bytes()].concat();
            stream.write_all(&answer("v", &body, 0))?;
        } else if names("Inhibit\0") {
            let (mine, theirs) = rustix::pipe::pipe()?;
            let message = answer("h", &0_u32.to_le_bytes(), 1);
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            let descriptors = [theirs.as_fd()];
            assert!(beside.push(SendAncillaryMessage::ScmRights(&descriptors)));
            sendmsg(
                &client,
                &[IoSlice::new(&message)],
                &mut beside,
                SendFlags::empty(),
            )?;
            let _ = delays.send((client.try_clone()?, mine));
        } else {
            panic!("an unknown call: {:?}", String::from_utf8_lossy(&call));
        }
    }
}

/// Waits until a delay is over.
async fn released(delay: OwnedFd) {
    let wait = tokio::task::spawn_blocking(move || {
        let mut delay = std::fs::File::from(delay);
        delay.read(&mut [0]).unwrap()
    });
    let read = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert_eq!(read.expect("the shutdown goes on").unwrap(), 0);
}

fn ended(pod: &Value) -> bool {
    pod["status"]["phase"] == "Failed" && pod["status"]["reason"] == "Terminated"
}

#[test]
fn what_logind_was_told_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let places = LogindPlaces {
        bus: folder.path().join("bus"),
        configuration: folder.path().to_owned(),
    };
    let own = folder.path().join("own");
    let forget = || crate::forget_shutdown(&places, &own).unwrap();
    assert!(!forget());
    let file = folder.path().join("99-coracle.conf");
    std::fs::write(&file, "").unwrap();
    assert!(forget() && !forget());
    for (owner, taken_back) in [
        (own.as_path(), true),
        // Another node's, which is there, and which is not.
        (folder.path(), false),
        (Path::new("/none"), true),
    ] {
        let line = format!(
            "# Pods are given time to end that are in {}",
            owner.display()
        );
        std::fs::write(&file, line).unwrap();
        assert_eq!(forget(), taken_back, "{owner:?}");
    }
}

#[tokio::test]
async fn pods_end_in_their_order_before_the_machine_does() {
    let bus = Bus::new();
    let mut world = World::new();
    world.logind = Some(bus.places());
    world.policy.shutdown = ShutdownPolicy {
        grace: Duration::from_secs(30),
        critical: Duration::from_secs(10),
        ..ShutdownPolicy::default()
    };
    let stubborn = Behaviour {
        ignores_stop: true,
        ..Behaviour::default()
    };
    world.runtime.behave("stubborn:v1", stubborn);
    let kubelet = world.start();
    let (bus, client, delay) = bus.delayed().await;
    let written = std::fs::read_to_string(bus.places().configuration.join("99-coracle.conf"));
    assert!(written.unwrap().contains("InhibitDelayMaxSec=30\n"));
    let slow = json!({"image": "stubborn:v1"});
    world.pod("slow", slow, json!({"terminationGracePeriodSeconds": 1}));
    let critical = json!({"priority": 2_000_000_000});
    world.pod("critical", json!({}), critical);
    for name in ["slow", "critical"] {
        world.api.object(&path(name), "it is ready", is_ready).await;
    }

    // Whoever is not logind has no say.
    signal(&client, ":1.66", true);
    signal(&client, LOGIND, true);
    let node = "/api/v1/nodes/n1";
    let unready = |node: &Value| {
        let text = node["status"]["conditions"].to_string();
        condition(node, "Ready") == "False" && text.contains("node is shutting down")
    };
    world
        .api
        .object(node, "the node is not ready", unready)
        .await;
    world.pod("late", json!({}), json!({}));
    let refused = |pod: &Value| pod["status"]["reason"] == "NodeShutdown";
    let late = world
        .api
        .object(&path("late"), "it is refused", refused)
        .await;
    assert_eq!(
        late["status"]["message"],
        "Pod was rejected as the node is shutting down."
    );
    let slow = world.api.object(&path("slow"), "it has ended", ended).await;
    assert_eq!(condition(&slow, "DisruptionTarget"), "True");
    let critical = world
        .api
        .object(&path("critical"), "it has ended", ended)
        .await;
    let message = "Pod was terminated in response to imminent node shutdown.";
    assert_eq!(critical["status"]["message"], message);
    let finished = |pod: &Value| {
        let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        state["finishedAt"].as_str().unwrap().to_owned()
    };
    assert!(finished(&slow) <= finished(&critical), "{slow} {critical}");
    released(delay).await;

    // It was called off.
    signal(&client, LOGIND, false);
    let (_bus, _client, _delay) = bus.delayed().await;
    world.api.object(node, "the node is ready", is_ready).await;
    world.pod("later", json!({}), json!({}));
    world
        .api
        .object(&path("later"), "it is taken", is_ready)
        .await;
    kubelet.stop().await;
}

#[tokio::test]
async fn a_bus_that_breaks_off_is_found_again() {
    let bus = Bus::new();
    let mut world = World::new();
    world.logind = Some(bus.places());
    world.policy.shutdown.grace = Duration::from_secs(2);
    let kubelet = world.start();
    let (bus, client, delay) = bus.delayed().await;
    client.shutdown(std::net::Shutdown::Both).unwrap();
    released(delay).await;
    let (_bus, client, _delay) = bus.delayed().await;
    world.pod("web", json!({}), json!({}));
    world
        .api
        .object(&path("web"), "it is ready", is_ready)
        .await;
    signal(&client, LOGIND, true);
    world.api.object(&path("web"), "it has ended", ended).await;
    let none = |runtime: &FakeRuntime| runtime.running() == 0;
    world.runtime.wait_until("nothing runs", none).await;
    kubelet.stop().await;
}
