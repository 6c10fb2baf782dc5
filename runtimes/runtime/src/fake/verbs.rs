//! The verbs of the fake.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio::io::AsyncWriteExt;
use tokio_util::task::AbortOnDrop;

use super::{FakeRuntime, Verb, containers_of};
use crate::service::{Error, Result, RuntimeService, end_of_grace};
use crate::streaming::{ExecConfig, Session, Wanted};
use crate::usage::DiskUsage;
use crate::{
    Container, ContainerConfig, ContainerId, ContainerState, ContainerStats, ContainerUser, Image,
    ImageUser, Listener, OwnImage, PodSandbox, PodSandboxConfig, Protocol, Resources, RuntimeEvent,
    SandboxId, SandboxState,
};

fn write_output(sandbox: &PodSandboxConfig, config: &ContainerConfig, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let path = sandbox.log_directory.join(&config.log_path);
    let written = (|| {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(&path)?;
        for line in lines {
            writeln!(file, "2026-01-02T03:04:05.000000006Z stdout F {line}")?;
        }
        Ok::<_, std::io::Error>(())
    })();
    if let Err(error) = written {
        tracing::warn!(%error, path = %path.display(), "cannot write the log");
    }
}

/// A process that says something, and then what it hears, until it hears no more.
fn echo(said: String, listens: bool) -> (Session, tokio::task::JoinHandle<io::Result<()>>) {
    let (stdin, mut heard) = tokio::io::duplex(1024);
    let (mut says, stdout) = tokio::io::duplex(1024);
    let done = tokio::spawn(async move {
        says.write_all(said.as_bytes()).await?;
        if listens {
            tokio::io::copy(&mut heard, &mut says).await?;
        }
        Ok(())
    });
    let session = Session {
        stdin: listens.then(|| Box::pin(stdin) as _),
        stdout: Some(Box::pin(stdout)),
        stderr: None,
        resize: None,
        exit: Box::pin(std::future::pending()),
    };
    (session, done)
}

impl FakeRuntime {
    fn check_running(&self, id: &ContainerId) -> Result<()> {
        let state = self.state.lock();
        match state.containers.get(id).map(|container| &container.state) {
            Some(ContainerState::Running { .. }) => Ok(()),
            Some(_) => Err(Error::State(format!("container {} does not run", id.0))),
            None => Err(self.not_found("container", &id.0)),
        }
    }
}

#[async_trait]
impl RuntimeService for FakeRuntime {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> String {
        "1.0.0".to_owned()
    }

    async fn own_image(&self, reference: &str) -> Result<Option<OwnImage>> {
        let known = self.state.lock().own_images.contains(reference);
        Ok(known.then(|| OwnImage {
            digest: format!("sha256:{reference}"),
            resolved: format!("own/{reference}@sha256:00"),
            size_bytes: 1000,
        }))
    }

    async fn ensure_image(&self, image: &Image) -> Result<()> {
        let mut state = self.state.lock();
        state.fault(Verb::EnsureImage, &image.reference)?;
        if let Some(message) = state.invalid_images.get(&image.digest) {
            return Err(Error::InvalidImage(message.clone()));
        }
        state.images.insert(image.digest.clone());
        Ok(())
    }

    async fn image_user(&self, image: &Image) -> Result<Option<ImageUser>> {
        let state = self.state.lock();
        Ok(state.image_users.get(&image.reference).cloned())
    }

    async fn remove_image(&self, digest: &str) -> Result<()> {
        self.state.lock().images.remove(digest);
        Ok(())
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId> {
        let (id, pod_uid) = {
            let mut state = self.state.lock();
            state.fault(Verb::RunPodSandbox, &config.pod.name)?;
            let id = SandboxId(state.id());
            let pod_uid = config.pod.uid.clone();
            let sandbox = PodSandbox {
                id: id.clone(),
                config,
                state: SandboxState::Ready,
                created_at: SystemTime::now(),
            };
            state.sandboxes.insert(id.clone(), sandbox);
            (id, pod_uid)
        };
        let event_id = id.clone();
        self.tell(RuntimeEvent::Sandbox {
            pod_uid,
            id: event_id,
        });
        Ok(id)
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        {
            let mut state = self.state.lock();
            state.fault(Verb::StopPodSandbox, &id.0)?;
        }
        self.crash_sandbox(id);
        Ok(())
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        self.state.lock().fault(Verb::RemovePodSandbox, &id.0)?;
        self.crash_sandbox(id);
        {
            let mut state = self.state.lock();
            for container in containers_of(&state, id) {
                state.containers.remove(&container);
            }
            state.sandboxes.remove(id);
        }
        self.changed.send_modify(|n| *n += 1);
        Ok(())
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<PodSandbox>> {
        Ok(self.sandboxes())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        let (id, pod_uid) = {
            let mut state = self.state.lock();
            state.fault(Verb::CreateContainer, &config.name)?;
            let Some(of) = state.sandboxes.get(sandbox) else {
                return Err(self.not_found("sandbox", &sandbox.0));
            };
            if of.state != SandboxState::Ready {
                return Err(Error::State(format!("sandbox {} is stopped", sandbox.0)));
            }
            let pod = of.config.pod.clone();
            if !state.images.contains(&config.image_digest) {
                return Err(self.not_found("image", &config.image_digest));
            }
            let id = ContainerId(state.id());
            let pod_uid = pod.uid.clone();
            let security = &config.security;
            let user = security.user.map(|uid| ContainerUser {
                uid,
                gid: security.group.unwrap_or(0),
                supplemental_groups: security.supplemental_groups.clone(),
            });
            let container = Container {
                id: id.clone(),
                sandbox: sandbox.clone(),
                pod,
                config,
                state: ContainerState::Created,
                user,
                created_at: SystemTime::now(),
            };
            state.containers.insert(id.clone(), container);
            (id, pod_uid)
        };
        let event_id = id.clone();
        self.tell(RuntimeEvent::Container {
            pod_uid,
            id: event_id,
        });
        Ok(id)
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        let (behaviour, pod_uid) = {
            let mut state = self.state.lock();
            let Some(container) = state.containers.get(id).cloned() else {
                return Err(self.not_found("container", &id.0));
            };
            state.fault(Verb::StartContainer, &container.config.name)?;
            if container.state != ContainerState::Created {
                return Err(Error::State(format!("container {} was started", id.0)));
            }
            let behaviour = state.behaviour(&container.config);
            if let Some(sandbox) = state.sandboxes.get(&container.sandbox) {
                write_output(&sandbox.config, &container.config, &behaviour.output);
            }
            let started_at = SystemTime::now();
            if let Some(container) = state.containers.get_mut(id) {
                container.state = ContainerState::Running { started_at };
            }
            (behaviour, container.pod.uid)
        };
        let event_id = id.clone();
        self.tell(RuntimeEvent::Container {
            pod_uid,
            id: event_id,
        });
        if !behaviour.listens.is_empty() {
            self.tell(RuntimeEvent::Listeners);
        }
        if let Some(code) = behaviour.exits {
            let reason = if code == 0 { "Completed" } else { "Error" };
            self.end(id, code, reason, "");
        }
        Ok(())
    }

    async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let ignores = {
            let mut state = self.state.lock();
            let Some(container) = state.containers.get(id).cloned() else {
                return Ok(());
            };
            state.fault(Verb::StopContainer, &container.config.name)?;
            let running = matches!(container.state, ContainerState::Running { .. });
            running && state.behaviour(&container.config).ignores_stop
        };
        if !ignores {
            self.end(id, 0, "Completed", "");
            return Ok(());
        }
        self.changed.send_modify(|n| *n += 1);
        let mut changed = self.changed.subscribe();
        let deadline = end_of_grace(grace);
        loop {
            let ended = match self.state.lock().containers.get(id) {
                None => true,
                Some(container) => matches!(container.state, ContainerState::Exited(_)),
            };
            if ended {
                return Ok(());
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(deadline) => self.end(id, 137, "Error", ""),
            }
        }
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let name = match self.state.lock().containers.get(id) {
            Some(container) => container.config.name.clone(),
            None => return Ok(()),
        };
        self.state.lock().fault(Verb::RemoveContainer, &name)?;
        self.end(id, 137, "Error", "");
        self.state.lock().containers.remove(id);
        self.changed.send_modify(|n| *n += 1);
        Ok(())
    }

    async fn list_containers(&self) -> Result<Vec<Container>> {
        let mut state = self.state.lock();
        state.fault(Verb::ListContainers, "")?;
        Ok(state.containers.values().cloned().collect())
    }

    async fn container_status(&self, id: &ContainerId) -> Result<Container> {
        let state = self.state.lock();
        let found = state.containers.get(id).cloned();
        found.ok_or_else(|| self.not_found("container", &id.0))
    }

    async fn exec(&self, id: &ContainerId, config: ExecConfig) -> Result<Session> {
        self.check_running(id)?;
        let said = config.command.join(" ");
        let code = config.command.last().and_then(|word| word.parse().ok());
        let (mut session, done) = echo(said, config.wanted.stdin);
        let killed = config.kill_on_drop.then(|| done.abort_handle());
        let killed = killed.map(AbortOnDrop::new);
        session.exit = Box::pin(async move {
            let _killed = killed;
            // Without an echo it ends all the same.
            let _ = done.await;
            Ok(code.unwrap_or(0))
        });
        Ok(session)
    }

    async fn attach(&self, id: &ContainerId, wanted: Wanted) -> Result<Session> {
        self.check_running(id)?;
        let (mut session, _) = echo(String::new(), wanted.stdin);
        let (this, id) = (self.clone(), id.clone());
        session.exit = Box::pin(async move {
            let mut changed = this.changed.subscribe();
            while this.check_running(&id).is_ok() {
                // The sender lives as long as `this`.
                let _ = changed.changed().await;
            }
            Ok(0)
        });
        Ok(session)
    }

    async fn update_container_resources(&self, id: &ContainerId, r: Resources) -> Result<()> {
        let mut state = self.state.lock();
        let name = state.containers.get(id).map(|of| of.config.name.clone());
        let name = name.ok_or_else(|| self.not_found("container", &id.0))?;
        state.fault(Verb::UpdateContainer, &name)?;
        if let Some(container) = state.containers.get_mut(id) {
            container.config.resources = r;
        }
        Ok(())
    }

    async fn update_pod_sandbox_resources(&self, id: &SandboxId, r: Resources) -> Result<()> {
        let mut state = self.state.lock();
        let name = state.sandboxes.get(id).map(|of| of.config.pod.name.clone());
        let name = name.ok_or_else(|| self.not_found("sandbox", &id.0))?;
        state.fault(Verb::UpdatePodSandbox, &name)?;
        if let Some(sandbox) = state.sandboxes.get_mut(id) {
            sandbox.config.resources = r;
        }
        Ok(())
    }

    async fn stats(&self) -> Result<Vec<ContainerStats>> {
        let state = self.state.lock();
        let running = |c: &&Container| matches!(c.state, ContainerState::Running { .. });
        let stats = state.containers.values().filter(running);
        Ok(stats
            .map(|c| ContainerStats {
                id: c.id.clone(),
                at: SystemTime::now(),
                cpu: Duration::from_millis(1),
                memory_bytes: 1 << 20,
                traps: 0,
            })
            .collect())
    }

    async fn writable_layer(&self, id: &ContainerId) -> Result<DiskUsage> {
        let state = self.state.lock();
        let container = state.containers.get(id);
        let container = container.ok_or_else(|| self.not_found("container", &id.0))?;
        let layer = state.layers.get(&container.config.name);
        Ok(layer.copied().unwrap_or_default())
    }

    async fn listeners(&self) -> Result<Vec<Listener>> {
        let state = self.state.lock();
        let mut listeners = Vec::new();
        for container in state.containers.values() {
            if !matches!(container.state, ContainerState::Running { .. }) {
                continue;
            }
            let Some(sandbox) = state.sandboxes.get(&container.sandbox) else {
                continue;
            };
            for port in state.behaviour(&container.config).listens {
                for ip in &sandbox.config.ips {
                    listeners.push(Listener {
                        sandbox: container.sandbox.clone(),
                        pod_ips: sandbox.config.ips.clone(),
                        protocol: Protocol::Tcp,
                        address: SocketAddr::new(*ip, port),
                        actual: SocketAddr::from(([127, 0, 0, 1], port)),
                    });
                }
            }
        }
        Ok(listeners)
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        crate::ledger::stream(&self.events)
    }

    async fn detach(&self) {}
}
