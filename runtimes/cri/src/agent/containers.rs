//! Containers: made, started, found, stopped, removed, measured.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use coracle_runtime::grpc::NOT_FOUND;
use coracle_runtime::usage::DiskUsage;
use coracle_runtime::{
    Container, ContainerConfig, ContainerId, ContainerState, ContainerStats, ContainerUser, Error,
    Exit, PodSandbox, Resources, Result, SandboxId, SandboxState, huge_pages,
};

use super::{Inner, at, broken, gone, sandbox_folder};
use crate::client::PATIENCE;
use crate::plan::{self, Kept};
use crate::staging;
use crate::wire::{
    self, CONTAINER_STATS, CONTAINER_STATUS, CREATE_CONTAINER, ContainerFilter,
    ContainerStatsFilter, CreateContainerRequest, LIST_CONTAINER_STATS, LIST_CONTAINERS,
    ListContainerStatsRequest, ListContainersRequest, REMOVE_CONTAINER, START_CONTAINER,
    STOP_CONTAINER, StopContainerRequest, UPDATE_CONTAINER_RESOURCES,
    UpdateContainerResourcesRequest, container_state,
};

/// The longest grace period, which nobody waits for: 30 years.
const LONGEST: u64 = 30 * 365 * 86400;

/// What a runtime has told of a container.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    state: ContainerState,
    user: Option<ContainerUser>,
}

fn named(id: &ContainerId) -> wire::ContainerId {
    wire::ContainerId {
        container_id: id.0.clone(),
    }
}

impl Inner {
    pub(super) async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        let known = self.sandbox(sandbox).await?;
        if known.state != SandboxState::Ready {
            return Err(Error::State(format!("sandbox {} has ended", sandbox.0)));
        }
        let image = self.find_image(&config.image_digest).await?;
        let image = image.ok_or_else(|| self.not_found("image", &config.image_digest))?;
        let folder = sandbox_folder(&self.config.state_dir, &known.config);
        let places = folder.join(format!("{}_{}", config.name, config.attempt));
        let log = known.config.log_directory.join(&config.log_path);
        let stage = {
            let (mounts, places) = (config.mounts.clone(), places.clone());
            move || {
                if let Some(folder) = log.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                // Of a container that was not made, if there are any.
                staging::clear(&places)?;
                staging::stage(&mounts, &places)
            }
        };
        let staged = tokio::task::spawn_blocking(stage).await;
        let staged = staged.map_err(io::Error::other).flatten();
        let staged = staged.map_err(|error| Error::InvalidConfig(error.to_string()))?;
        let huge_pages = huge_pages::reserved(Path::new(huge_pages::FOLDER));
        let huge_pages: Vec<u64> = huge_pages.into_keys().collect();
        let asked = plan::container(&plan::Input {
            sandbox: &known.config,
            config: &config,
            image: &image,
            node: &self.node,
            files: &folder,
            recursive_read_only: self.facts.recursive_read_only,
            huge_pages: &huge_pages,
            unified: self.unified,
            strict_groups: self.facts.strict_groups,
            staged: &staged,
        });
        let of_sandbox = plan::sandbox(&known.config, &self.node, self.facts.systemd);
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.0.clone(),
            config: Some(asked.map_err(Error::InvalidConfig)?),
            sandbox_config: Some(of_sandbox.map_err(Error::InvalidConfig)?),
        };
        let created = self.client.call(CREATE_CONTAINER, &request).await;
        self.look.notify_one();
        match created {
            Ok(created) => Ok(ContainerId(created.container_id)),
            Err(status) => match self.sandbox(sandbox).await {
                // It ended meanwhile.
                Ok(PodSandbox {
                    state: SandboxState::NotReady,
                    ..
                }) => Err(Error::State(status.message)),
                Err(error @ Error::NotFound { .. }) => Err(error),
                _ => Err(Error::InvalidConfig(status.message)),
            },
        }
    }

    pub(super) async fn start_container(&self, id: &ContainerId) -> Result<()> {
        let status = self.status(id).await?;
        if status.state != container_state::CREATED {
            return Err(Error::State(format!(
                "container {} was started already",
                id.0
            )));
        }
        let started = self.client.call(START_CONTAINER, &named(id)).await;
        self.look.notify_one();
        started
            .map(drop)
            .map_err(|status| Error::Start(status.message))
    }

    pub(super) async fn stop_container(&self, id: &ContainerId, grace: Duration) -> Result<()> {
        let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
        let seconds = seconds.min(LONGEST);
        let request = StopContainerRequest {
            container_id: id.0.clone(),
            timeout: seconds as i64,
        };
        let patience = Duration::from_secs(seconds) + PATIENCE;
        let stopped = self.client.call_within(patience, STOP_CONTAINER, &request);
        let stopped = stopped.await;
        self.look.notify_one();
        gone("stopping a container", stopped)
    }

    pub(super) async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let known = match self.container(id).await {
            Err(Error::NotFound { .. }) => return Ok(()),
            known => known?,
        };
        self.stop_container(id, Duration::ZERO).await?;
        let removed = self.client.call(REMOVE_CONTAINER, &named(id)).await;
        self.look.notify_one();
        gone("removing a container", removed)?;
        let Ok(sandbox) = self.sandbox(&known.sandbox).await else {
            return Ok(());
        };
        let folder = sandbox_folder(&self.config.state_dir, &sandbox.config);
        let Container { config, .. } = known;
        let places = folder.join(format!("{}_{}", config.name, config.attempt));
        let cleared = tokio::task::spawn_blocking(move || staging::clear(&places)).await;
        let cleared = cleared.map_err(io::Error::other).flatten();
        cleared.map_err(|error| Error::io("removing the volumes of a container", error))
    }

    /// What is listed of this node's containers, or of the one of an ID.
    pub(super) async fn listed(&self, id: Option<&ContainerId>) -> Result<Vec<wire::Container>> {
        let filter = ContainerFilter {
            id: id.map(|id| id.0.clone()).unwrap_or_default(),
            label_selector: plan::ours(&self.node),
        };
        let request = ListContainersRequest {
            filter: Some(filter),
        };
        let listed = self.client.call(LIST_CONTAINERS, &request).await;
        let listed = listed.map_err(|status| broken("listing containers", status))?;
        Ok(listed.containers)
    }

    pub(super) async fn containers(&self) -> Result<Vec<Container>> {
        let listed = self.listed(None).await?;
        let known: HashSet<&str> = listed.iter().map(|of| &*of.id).collect();
        let states = &self.states;
        states.lock().retain(|id, _| known.contains(&*id.0));
        let mut containers = Vec::with_capacity(listed.len());
        for of in listed {
            match self.read(of).await {
                Ok(container) => containers.push(container),
                // It went since.
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(containers)
    }

    pub(super) async fn container(&self, id: &ContainerId) -> Result<Container> {
        let listed = self.listed(Some(id)).await?.into_iter().next();
        let listed = listed.ok_or_else(|| self.not_found("container", &id.0))?;
        self.read(listed).await
    }

    async fn read(&self, listed: wire::Container) -> Result<Container> {
        let id = ContainerId(listed.id.clone());
        let known = self.states.lock().get(&id).cloned();
        let seen = match known {
            Some((of, seen)) if of == listed.state => seen,
            _ => {
                let status = self.status(&id).await?;
                let seen = Seen {
                    state: state(&status),
                    user: user(&status),
                };
                let of = (status.state, seen.clone());
                self.states.lock().insert(id.clone(), of);
                seen
            }
        };
        let kept = listed.annotations.get(plan::CONFIG);
        let kept: Option<Kept> = kept.and_then(|text| serde_json::from_str(text).ok());
        // What cannot be read can still be ended.
        let (pod, config) = kept.map(|kept| (kept.pod, kept.config)).unwrap_or_default();
        Ok(Container {
            id,
            sandbox: SandboxId(listed.pod_sandbox_id),
            pod,
            config,
            state: seen.state,
            user: seen.user,
            created_at: at(listed.created_at),
        })
    }

    async fn status(&self, id: &ContainerId) -> Result<wire::ContainerStatus> {
        match self.client.call(CONTAINER_STATUS, &named(id)).await {
            Ok(answer) => answer.status,
            Err(status) if status.code == NOT_FOUND => None,
            Err(status) => return Err(broken("asking for a container", status)),
        }
        .ok_or_else(|| self.not_found("container", &id.0))
    }

    pub(super) async fn update_container(&self, id: &ContainerId, r: &Resources) -> Result<()> {
        if self.status(id).await?.state != container_state::RUNNING {
            return Err(Error::State(format!("container {} does not run", id.0)));
        }
        let request = UpdateContainerResourcesRequest {
            container_id: id.0.clone(),
            linux: Some(plan::resources(r)),
        };
        let updated = self.client.call(UPDATE_CONTAINER_RESOURCES, &request).await;
        let failed = |status| broken(&format!("changing limits of container {}", id.0), status);
        updated.map(drop).map_err(failed)
    }

    pub(super) async fn stats(&self) -> Result<Vec<ContainerStats>> {
        let request = ListContainerStatsRequest {
            filter: Some(ContainerStatsFilter {
                label_selector: plan::ours(&self.node),
            }),
        };
        let listed = self.client.call(LIST_CONTAINER_STATS, &request).await;
        let listed = listed.map_err(|status| broken("measuring containers", status))?;
        // Of one that has just begun nothing is known yet.
        Ok(listed.stats.into_iter().filter_map(stats).collect())
    }

    pub(super) async fn writable_layer(&self, id: &ContainerId) -> Result<DiskUsage> {
        let measured = self.client.call(CONTAINER_STATS, &named(id)).await;
        let measured = measured.map_err(|status| match status.code {
            NOT_FOUND => self.not_found("container", &id.0),
            _ => broken("measuring a container", status),
        })?;
        let layer = measured.stats.and_then(|stats| stats.writable_layer);
        let layer = layer.unwrap_or_default();
        let value = |of: Option<wire::UInt64Value>| of.map_or(0, |of| of.value);
        Ok(DiskUsage {
            bytes: value(layer.used_bytes),
            inodes: value(layer.inodes_used),
        })
    }
}

fn stats(of: wire::ContainerStats) -> Option<ContainerStats> {
    let (cpu, memory) = (of.cpu?, of.memory?);
    Some(ContainerStats {
        id: ContainerId(of.attributes?.id),
        at: at(cpu.timestamp),
        cpu: Duration::from_nanos(cpu.usage_core_nano_seconds?.value),
        memory_bytes: memory.working_set_bytes?.value,
        traps: 0,
    })
}

/// As whom a container began, of those runtimes that say.
fn user(status: &wire::ContainerStatus) -> Option<ContainerUser> {
    let of = status.user.as_ref()?.linux.as_ref()?;
    let groups = of.supplemental_groups.iter().copied();
    Some(ContainerUser {
        uid: of.uid.try_into().ok()?,
        gid: of.gid.try_into().ok()?,
        supplemental_groups: groups.filter_map(|group| group.try_into().ok()).collect(),
    })
}

/// A state as the kubelet knows it.
fn state(status: &wire::ContainerStatus) -> ContainerState {
    let started_at = (status.started_at > 0).then(|| at(status.started_at));
    let (code, reason) = match status.state {
        container_state::CREATED => return ContainerState::Created,
        container_state::RUNNING => {
            let started_at = at(status.started_at);
            return ContainerState::Running { started_at };
        }
        container_state::EXITED => (status.exit_code, &*status.reason),
        // The runtime has lost it, and may have lost how it ended (the kubelet's words).
        _ => (137, "ContainerStatusUnknown"),
    };
    ContainerState::Exited(Exit {
        started_at,
        finished_at: at(status.finished_at),
        code,
        reason: match (reason, code) {
            ("", 0) => "Completed".to_owned(),
            ("", _) => "Error".to_owned(),
            (reason, _) => reason.to_owned(),
        },
        message: status.message.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_the_kubelets() {
        let mut status = wire::ContainerStatus::default();
        assert_eq!(state(&status), ContainerState::Created);
        status.state = container_state::RUNNING;
        status.started_at = 5;
        let running = ContainerState::Running { started_at: at(5) };
        assert_eq!(state(&status), running);
        let mut exited = |of: i32, code, reason: &str| {
            (status.state, status.exit_code) = (of, code);
            status.reason = reason.into();
            match state(&status) {
                ContainerState::Exited(exit) => (exit.code, exit.reason),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(exited(2, 0, ""), (0, "Completed".into()));
        assert_eq!(exited(2, 3, "Error"), (3, "Error".into()));
        assert_eq!(exited(2, 137, "OOMKilled"), (137, "OOMKilled".into()));
        assert_eq!(exited(3, 0, ""), (137, "ContainerStatusUnknown".into()));
    }

    #[test]
    fn what_was_not_measured_yet_is_left_out() {
        let number = |value| Some(wire::UInt64Value { value });
        let mut of = wire::ContainerStats {
            attributes: Some(wire::ContainerAttributes { id: "a".into() }),
            cpu: Some(wire::CpuUsage {
                timestamp: 9,
                usage_core_nano_seconds: number(7),
            }),
            ..Default::default()
        };
        assert_eq!(stats(of.clone()), None);
        of.memory = Some(wire::MemoryUsage {
            working_set_bytes: number(8),
        });
        let found = stats(of).map(|stats| (stats.cpu, stats.memory_bytes));
        assert_eq!(found, Some((Duration::from_nanos(7), 8)));
    }
}
