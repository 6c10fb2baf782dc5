#![allow(clippy::unwrap_used)]

use std::os::unix::net::UnixStream;
use std::path::Path;

use coracle_runtime::ContainerId;
use coracle_runtime::frames::{decode, encode};

use super::*;
use crate::protocol::{Confinement, FromShim};
use crate::spec::Capabilities;

fn start(folder: &Path) -> Start {
    Start {
        container: ContainerId("c".into()),
        bundle: folder.to_owned(),
        lowers: Vec::new(),
        cwd: "/".into(),
        cgroup: "/coracle/of-no-pod/c".into(),
        cgroup_folders: Vec::new(),
        filter_devices: None,
        devices: false,
        staged: Vec::new(),
        users: None,
        confinement: Confinement {
            filtered: false,
            profile: None,
            capabilities: Capabilities::default(),
        },
        log_file: folder.join("log"),
        log_limits: Default::default(),
        stdio: Default::default(),
        target: None,
        started_at: std::time::SystemTime::now(),
        exit_file: folder.join("exit.json"),
    }
}

/// An agent may die before it hears that a start has failed, and the next one asks the records.
#[test]
fn a_start_that_failed_is_recorded_and_told_before_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let mut shim = Shim::new(listener, None, None);
    let (near, mut far) = UnixStream::pair().unwrap();
    shim.agents.push(Agent::new(3, near).unwrap());
    let start = start(folder.path());
    let exit_file = start.exit_file.clone();
    let container = What::Container(Box::new(Container::unmade(start)));
    shim.tasks.insert(1, Task::unmade(container, (3, 7)));

    shim.made(1, Err("no such program".into()));

    let exit: Exit = disk::read_json(&exit_file).unwrap().unwrap();
    assert_eq!((exit.code, &*exit.reason), (128, "StartError"));
    assert_eq!((exit.started_at, &*exit.message), (None, "no such program"));
    assert!(shim.tasks.is_empty() && shim.running().is_empty());
    drop(shim);
    let mut sent = Vec::new();
    io::Read::read_to_end(&mut far, &mut sent).unwrap();
    let mut frames = Vec::new();
    while let Some(frame) = decode::<FromShim>(&mut sent).unwrap() {
        frames.push(frame);
    }
    let [FromProcess::Event(event), FromProcess::Response(answer)] = &frames[..] else {
        panic!("{frames:?}");
    };
    let Event::Exited { exit: told, .. } = event;
    assert_eq!(*told, exit);
    let failed = Response::Failed("no such program".into());
    assert_eq!((answer.id, &answer.body), (7, &failed));
}

#[test]
fn nothing_begins_in_a_shim_that_closes() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let mut shim = Shim::new(listener, None, None);
    let (near, mut far) = UnixStream::pair().unwrap();
    shim.agents.push(Agent::new(3, near).unwrap());
    shim.close();
    let asked = Numbered {
        id: 7,
        body: Request::Start(Box::new(start(folder.path()))),
    };
    io::Write::write_all(&mut far, &encode(&asked).unwrap()).unwrap();
    shim.hear(3);
    assert!(shim.tasks.is_empty());
    drop(shim);
    let mut sent = Vec::new();
    io::Read::read_to_end(&mut far, &mut sent).unwrap();
    let Some(FromProcess::Response(answer)) = decode::<FromShim>(&mut sent).unwrap() else {
        panic!("{sent:?}");
    };
    let failed = Response::Failed("the shim is closing".into());
    assert_eq!((answer.id, &answer.body), (7, &failed));
    // It would be made before a process is.
    assert!(!folder.path().join("log").exists());
}
