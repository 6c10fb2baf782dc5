//! The suite that every runtime must pass.
//!
//! A runtime's tests implement [`Factory`] and call [`run`]. The suite holds what the kubelet
//! relies on and nothing that only one kind of runtime can do: identity and idempotence of the
//! verbs, exits and their codes, grace periods, sessions, logs, events, listing, and adoption by a
//! next agent.
//!
//! Deliberately absent: limits, volumes and sockets of guests, which are each runtime's own
//! tests.

mod sessions;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;

use crate::{
    Container, ContainerConfig, ContainerId, ContainerState, Error, Exit, Image, PodIdentity,
    PodSandboxConfig, RuntimeEvent, RuntimeService, SandboxId, SandboxState,
};

/// How long anything in the suite may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Images whose behaviour the suite knows.
#[derive(Clone, Debug)]
pub struct Fixtures {
    /// Runs until it is asked to end.
    pub runs: Image,
    /// The line that `runs` writes when it hears if it is asked; none where it does from the start.
    pub hears: Option<&'static str>,
    /// Runs and does not react to a request to end.
    pub ignores_stop: Image,
    /// Writes the line `hello` to stdout and exits with 0.
    pub prints_hello: Image,
    /// Exits with 3.
    pub exits_3: Image,
    /// A command that writes what it reads, in the container of `runs`; none where nothing runs beside
    /// a container's program.
    pub echoes: Option<Vec<String>>,
    /// Is in the content store, but the runtime cannot run it.
    pub invalid: Image,
}

/// Makes the runtime under test.
#[async_trait]
pub trait Factory: Send + Sync {
    /// The runtime of the first agent.
    async fn start(&self) -> Arc<dyn RuntimeService>;

    /// The runtime of the next agent, over the same state; the earlier one was detached.
    async fn restart(&self) -> Arc<dyn RuntimeService>;

    /// Images that can be run.
    fn fixtures(&self) -> Fixtures;

    /// A folder for logs and files of the test.
    fn scratch(&self) -> &Path;
}

/// Runs the suite.
///
/// # Panics
/// With what the runtime did wrong.
pub async fn run(factory: &dyn Factory) {
    let suite = Suite {
        runtime: factory.start().await,
        fixtures: factory.fixtures(),
        scratch: factory.scratch().to_owned(),
        number: std::process::id(),
        pods: AtomicU32::new(0),
        attempts: AtomicU32::new(0),
    };
    suite.sandboxes_come_and_go().await;
    suite.a_container_lives_and_ends().await;
    suite.exit_codes_and_logs().await;
    suite.stopping_is_bounded_by_grace().await;
    suite.a_shorter_grace_wins().await;
    suite.the_longest_grace_is_kept().await;
    suite.sessions_end_their_processes_or_not().await;
    suite.removal_ends_what_runs().await;
    suite.wrong_states_are_refused().await;
    suite.images_are_checked().await;
    suite.events_lead_to_changes().await;
    suite.the_next_agent_adopts(factory).await;
}

struct Suite {
    runtime: Arc<dyn RuntimeService>,
    fixtures: Fixtures,
    scratch: PathBuf,
    /// Of this process: others on the machine have Pods of their own.
    number: u32,
    pods: AtomicU32,
    attempts: AtomicU32,
}

impl Suite {
    fn sandbox_config(&self) -> PodSandboxConfig {
        let n = self.pods.fetch_add(1, Ordering::Relaxed);
        PodSandboxConfig {
            pod: PodIdentity {
                namespace: "conformance".to_owned(),
                name: format!("pod-{n}"),
                uid: format!("{:08x}-0000-4000-8000-{n:012}", self.number),
            },
            hostname: format!("pod-{n}"),
            ips: vec![std::net::IpAddr::from([127, 0, 0, 1])],
            network_snapshot: self.scratch.join("network-snapshot"),
            log_directory: self.scratch.join(format!("logs/pod-{n}")),
            labels: BTreeMap::from([("n".to_owned(), n.to_string())]),
            ..Default::default()
        }
    }

    async fn sandbox(&self) -> (SandboxId, PodSandboxConfig) {
        let config = self.sandbox_config();
        std::fs::create_dir_all(&config.log_directory).expect("scratch folder is writable");
        let made = self.runtime.run_pod_sandbox(config.clone()).await;
        (made.expect("run_pod_sandbox"), config)
    }

    fn container_config(&self, image: &Image) -> ContainerConfig {
        ContainerConfig {
            name: "main".to_owned(),
            image_digest: image.digest.clone(),
            image: image.reference.clone(),
            env: vec![("A".to_owned(), "b".to_owned())],
            log_path: PathBuf::from("main/0.log"),
            ..Default::default()
        }
    }

    async fn create(&self, sandbox: &SandboxId, image: &Image) -> ContainerId {
        let ensured = self.runtime.ensure_image(image).await;
        ensured.expect("ensure_image of a good image");
        let config = ContainerConfig {
            // As one that follows on another, which may be there still.
            attempt: self.attempts.fetch_add(1, Ordering::Relaxed),
            ..self.container_config(image)
        };
        let created = self.runtime.create_container(sandbox, config).await;
        created.expect("create_container")
    }

    async fn start(&self, sandbox: &SandboxId, image: &Image) -> ContainerId {
        let id = self.create(sandbox, image).await;
        let started = self.runtime.start_container(&id).await;
        started.expect("start_container");
        id
    }

    async fn status(&self, id: &ContainerId) -> Container {
        let status = self.runtime.container_status(id).await;
        status.expect("container_status")
    }

    /// Waits for the exit, woken by events.
    async fn exit(&self, id: &ContainerId) -> Exit {
        let mut events = self.runtime.events();
        let wait = async {
            loop {
                if let ContainerState::Exited(exit) = self.status(id).await.state {
                    return exit;
                }
                events.next().await;
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        waited.expect("the container ends, and an event says so")
    }

    async fn remove(&self, sandbox: &SandboxId) {
        let removed = self.runtime.remove_pod_sandbox(sandbox).await;
        removed.expect("remove_pod_sandbox");
    }

    async fn sandboxes_come_and_go(&self) {
        let (id, config) = self.sandbox().await;
        assert_eq!(id.0.len(), 64, "a sandbox's ID has 64 digits");
        let listed = self.runtime.list_pod_sandboxes().await.expect("list");
        let found = listed.iter().find(|s| s.id == id).expect("it is listed");
        assert_eq!(found.config, config, "listed as it was made");
        assert_eq!(found.state, SandboxState::Ready);

        for _ in 0..2 {
            let stopped = self.runtime.stop_pod_sandbox(&id).await;
            stopped.expect("stopping twice is no error");
        }
        let listed = self.runtime.list_pod_sandboxes().await.expect("list");
        let found = listed.iter().find(|s| s.id == id);
        assert_eq!(
            found.map(|s| s.state),
            Some(SandboxState::NotReady),
            "a stopped sandbox is kept"
        );
        for _ in 0..2 {
            self.remove(&id).await;
        }
        let listed = self.runtime.list_pod_sandboxes().await.expect("list");
        assert!(listed.iter().all(|s| s.id != id), "a removed one is gone");
    }

    async fn a_container_lives_and_ends(&self) {
        let (sandbox, pod) = self.sandbox().await;
        let id = self.create(&sandbox, &self.fixtures.runs).await;
        assert_eq!(id.0.len(), 64, "a container's ID has 64 digits");
        let created = self.status(&id).await;
        assert_eq!(created.state, ContainerState::Created);
        assert_eq!((&created.sandbox, &created.pod), (&sandbox, &pod.pod));
        let asked = ContainerConfig {
            attempt: created.config.attempt,
            ..self.container_config(&self.fixtures.runs)
        };
        assert_eq!(created.config, asked);

        let started = self.runtime.start_container(&id).await;
        started.expect("start_container");
        let running = self.status(&id).await;
        assert!(
            matches!(running.state, ContainerState::Running { .. }),
            "{:?}",
            running.state
        );
        for _ in 0..2 {
            let stopped = self.runtime.stop_container(&id, DEADLINE).await;
            stopped.expect("stopping twice is no error");
        }
        let ContainerState::Exited(exit) = self.status(&id).await.state else {
            panic!("stop_container returned before the container had ended");
        };
        assert!(exit.started_at.is_some_and(|at| at <= exit.finished_at));
        let listed = self.runtime.list_containers().await.expect("list");
        assert!(listed.iter().any(|c| c.id == id), "an ended one is kept");
        for _ in 0..2 {
            let removed = self.runtime.remove_container(&id).await;
            removed.expect("removing twice is no error");
        }
        let gone = self.runtime.container_status(&id).await;
        assert!(matches!(gone, Err(Error::NotFound { .. })), "{gone:?}");
        self.remove(&sandbox).await;
    }

    async fn exit_codes_and_logs(&self) {
        let (sandbox, pod) = self.sandbox().await;
        let id = self.start(&sandbox, &self.fixtures.prints_hello).await;
        let exit = self.exit(&id).await;
        assert_eq!((exit.code, exit.reason.as_str()), (0, "Completed"));
        let path = pod.log_directory.join("main/0.log");
        let log = std::fs::read_to_string(&path).expect("the log is where it was asked for");
        let line = log.lines().next().expect("the log has a line");
        let mut parts = line.splitn(4, ' ');
        let time = parts.next().expect("a time");
        assert!(
            time.ends_with('Z') || time.contains('+'),
            "RFC 3339: {time}"
        );
        let rest: Vec<&str> = parts.collect();
        assert_eq!(rest, ["stdout", "F", "hello"], "CRI log format: {line}");

        let failing = self.start(&sandbox, &self.fixtures.exits_3).await;
        let exit = self.exit(&failing).await;
        assert_eq!((exit.code, exit.reason.as_str()), (3, "Error"));
        self.remove(&sandbox).await;
    }

    async fn stopping_is_bounded_by_grace(&self) {
        let (sandbox, _) = self.sandbox().await;
        let id = self.start(&sandbox, &self.fixtures.ignores_stop).await;
        let before = Instant::now();
        let grace = Duration::from_millis(300);
        let stopped = self.runtime.stop_container(&id, grace).await;
        stopped.expect("stop_container");
        let took = before.elapsed();
        assert!(
            took < DEADLINE / 3,
            "killed {took:?} after a grace of {grace:?}"
        );
        let ContainerState::Exited(exit) = self.status(&id).await.state else {
            panic!("stop_container returned before the container had ended");
        };
        assert_ne!(exit.code, 0, "what was killed did not complete");
        self.remove(&sandbox).await;
    }

    /// The kubelet shortens a grace period by a second call while the first one waits.
    async fn a_shorter_grace_wins(&self) {
        let (sandbox, _) = self.sandbox().await;
        let id = self.start(&sandbox, &self.fixtures.ignores_stop).await;
        let before = Instant::now();
        let (long, short) = tokio::join!(
            self.runtime.stop_container(&id, DEADLINE),
            self.runtime.stop_container(&id, Duration::ZERO),
        );
        long.expect("the first stop");
        short.expect("the second stop");
        let took = before.elapsed();
        assert!(took < DEADLINE / 3, "the shorter grace wins, took {took:?}");
        self.remove(&sandbox).await;
    }

    /// It is the user's to choose, and any number of seconds.
    async fn the_longest_grace_is_kept(&self) {
        let (sandbox, pod) = self.sandbox().await;
        let id = self.start(&sandbox, &self.fixtures.runs).await;
        // The first process of a Pod does not end by a signal that it does not handle yet.
        let hears = async {
            let log = pod.log_directory.join("main/0.log");
            let said = |line| std::fs::read_to_string(&log).is_ok_and(|log| log.contains(line));
            while self.fixtures.hears.is_some_and(|line| !said(line)) {
                tokio::task::yield_now().await;
            }
        };
        let heard = tokio::time::timeout(DEADLINE, hears).await;
        heard.expect("the line that it writes");
        let grace = Duration::from_secs(i64::MAX as u64);
        let stopped = tokio::time::timeout(DEADLINE, self.runtime.stop_container(&id, grace)).await;
        stopped.expect("it ends as asked").expect("stop_container");
        self.exit(&id).await;
        self.remove(&sandbox).await;
    }

    async fn removal_ends_what_runs(&self) {
        let (sandbox, _) = self.sandbox().await;
        let first = self.start(&sandbox, &self.fixtures.runs).await;
        let removed = self.runtime.remove_container(&first).await;
        removed.expect("a running container can be removed");
        let second = self.start(&sandbox, &self.fixtures.runs).await;
        let stopped = self.runtime.stop_pod_sandbox(&sandbox).await;
        stopped.expect("stop_pod_sandbox");
        self.exit(&second).await;
        self.remove(&sandbox).await;
        let listed = self.runtime.list_containers().await.expect("list");
        let left = listed.iter().filter(|c| c.sandbox == sandbox).count();
        assert_eq!(left, 0, "removing a sandbox removes its containers");
    }

    async fn wrong_states_are_refused(&self) {
        let nobody = ContainerId("0".repeat(64));
        let status = self.runtime.container_status(&nobody).await;
        assert!(matches!(status, Err(Error::NotFound { .. })), "{status:?}");
        let started = self.runtime.start_container(&nobody).await;
        assert!(
            matches!(started, Err(Error::NotFound { .. })),
            "{started:?}"
        );
        let stop = self.runtime.stop_container(&nobody, Duration::ZERO).await;
        stop.expect("stopping what is gone is no error");

        let image = &self.fixtures.runs;
        let config = self.container_config(image);
        let nowhere = SandboxId("0".repeat(64));
        let created = self.runtime.create_container(&nowhere, config).await;
        assert!(
            matches!(created, Err(Error::NotFound { .. })),
            "{created:?}"
        );

        let (sandbox, _) = self.sandbox().await;
        let id = self.start(&sandbox, image).await;
        let again = self.runtime.start_container(&id).await;
        assert!(matches!(again, Err(Error::State(_))), "{again:?}");
        let stopped = self.runtime.stop_pod_sandbox(&sandbox).await;
        stopped.expect("stop_pod_sandbox");
        let config = self.container_config(image);
        let late = self.runtime.create_container(&sandbox, config).await;
        assert!(late.is_err(), "nothing is created in a stopped sandbox");
        self.remove(&sandbox).await;
    }

    async fn images_are_checked(&self) {
        let refused = self.runtime.ensure_image(&self.fixtures.invalid).await;
        assert!(
            matches!(refused, Err(Error::InvalidImage(_))),
            "{refused:?}"
        );
        let good = &self.fixtures.prints_hello;
        for _ in 0..2 {
            let ensured = self.runtime.ensure_image(good).await;
            ensured.expect("ensuring twice is no error");
        }
        let removed = self.runtime.remove_image(&good.digest).await;
        removed.expect("remove_image");
        let (sandbox, _) = self.sandbox().await;
        let id = self.start(&sandbox, good).await;
        assert_eq!(self.exit(&id).await.code, 0, "an image can come back");
        self.remove(&sandbox).await;
    }

    async fn events_lead_to_changes(&self) {
        let (sandbox, pod) = self.sandbox().await;
        let mut events = self.runtime.events();
        let id = self.start(&sandbox, &self.fixtures.runs).await;
        let stopped = self.runtime.stop_container(&id, DEADLINE).await;
        stopped.expect("stop_container");
        let wait = async {
            while let Some(event) = events.next().await {
                if let RuntimeEvent::Container { pod_uid, id: of } = event
                    && of == id
                {
                    return pod_uid;
                }
            }
            panic!("the stream of events ended");
        };
        let pod_uid = tokio::time::timeout(DEADLINE, wait).await;
        assert_eq!(pod_uid.expect("an event for the container"), pod.pod.uid);
        self.remove(&sandbox).await;
    }

    async fn the_next_agent_adopts(mut self, factory: &dyn Factory) {
        let (sandbox, pod) = self.sandbox().await;
        let running = self.start(&sandbox, &self.fixtures.runs).await;
        let ended = self.start(&sandbox, &self.fixtures.exits_3).await;
        self.exit(&ended).await;
        let before = (self.status(&running).await, self.status(&ended).await);
        self.runtime.detach().await;
        self.runtime = factory.restart().await;

        let listed = self.runtime.list_pod_sandboxes().await.expect("list");
        let found = listed.iter().find(|s| s.id == sandbox);
        let found = found.expect("the sandbox survives the agent");
        assert_eq!((&found.config, found.state), (&pod, SandboxState::Ready));
        let after = (self.status(&running).await, self.status(&ended).await);
        assert_eq!(before, after, "containers survive the agent unchanged");
        let stopped = self.runtime.stop_container(&running, DEADLINE).await;
        stopped.expect("an adopted container can be stopped");
        self.exit(&running).await;
        self.remove(&sandbox).await;
    }
}

#[cfg(test)]
mod tests;
