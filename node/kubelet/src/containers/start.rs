//! Starting one container: image, configuration, sandbox, create, start.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_apimachinery::resources::{ResourceList, huge_pages, parse, whole_limits};
use coracle_runtime::{
    ContainerConfig, ContainerId, GuestUser, Hosts, IdRange, ImageUser, PodSandboxConfig, Port,
    Protocol, Resolution, Resources, RuntimeService, SandboxId, Stdio,
};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::access::{self, Readers};
use crate::containers::handler::Hooked;
use crate::containers::pull::Parts;
use crate::containers::stop;
use crate::containers::supported;
use crate::events::Severity;
use crate::images::{Kind, LocalImage};
use crate::node::machine;
use crate::node_context::NodeContext;
use crate::pod::env::{self, Sources};
use crate::pod::{self, cgroups, dns, security, service_env};
use crate::volumes::mounts::{self, VolumeImages};
use crate::volumes::pod_folder;

/// Label of a container that holds the image's full reference, which a restarted agent
/// reports again.
pub(crate) const RESOLVED_LABEL: &str = "coracle.dev/image-id";

/// What the worker has made ready for all containers of its Pod.
#[derive(Clone, Default)]
pub(crate) struct Prepared {
    /// None until the Pod is joined to the network.
    pub(crate) ips: Vec<IpAddr>,
    /// Its network namespace, if it has one of its own.
    pub(crate) namespace: Option<PathBuf>,
    pub(crate) handler: Option<String>,
    /// As whom its guests run, where that is not the agent's own user.
    pub(crate) user: Option<GuestUser>,
    /// One of its containers is a guest, as far as images are known.
    pub(crate) guests: bool,
    pub(crate) sources: Sources,
}

impl Prepared {
    /// What of the Pod reads what the kubelet makes for it.
    pub(crate) fn readers(&self, pod: &Pod) -> Readers {
        match (self.guests, self.user) {
            (true, Some(user)) => Readers::Guests(user),
            (false, _) if rustix::process::geteuid().is_root() => Readers::Containers {
                fs_group: security::fs_group(pod),
            },
            _ => Readers::Agent,
        }
    }
}

/// Why a container did not start. The event was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StartError {
    /// No image; the pull backs off.
    Image {
        reason: &'static str,
        message: String,
    },
    /// The configuration cannot be made now; an object is missing.
    Config(String),
    /// It was started, and stopped again, for its hook has failed.
    Hook(String),
    /// The runtime did not do it.
    Runtime {
        reason: &'static str,
        message: String,
    },
}

/// One container that is to be started.
pub(crate) struct Starter<'a> {
    pub(crate) node: &'a NodeContext,
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) prepared: &'a Prepared,
}

impl Starter<'_> {
    /// Makes the container. Short, and runs to its end once begun.
    pub(crate) async fn create(&self, parts: &Parts) -> Result<ContainerId, StartError> {
        let Parts { runtime, image, .. } = parts;
        let config = match self.image_user(runtime.as_ref(), image).await {
            Ok(user) => self.config((runtime.name(), user), image, &parts.volumes),
            Err(error) => Err(error.to_string()),
        };
        let config = match config {
            Ok(config) => config,
            Err(message) => {
                self.own_event(Severity::Warning, "Failed", format!("Error: {message}"));
                return Err(StartError::Config(message));
            }
        };
        let created = self.create_in_sandbox(runtime, image.kind, config).await?;
        let id = created.map_err(|error| self.failed("CreateContainerError", &error))?;
        self.own_event(Severity::Normal, "Created", "Container created".to_owned());
        Ok(id)
    }

    /// As whom the image runs, where that decides whether it may.
    async fn image_user(
        &self,
        runtime: &dyn RuntimeService,
        image: &LocalImage,
    ) -> coracle_runtime::Result<Option<ImageUser>> {
        match security::needs_image_user(self.pod, self.container) {
            true => runtime.image_user(&image.image).await,
            false => Ok(None),
        }
    }

    /// Starts it. A guest may take its time over that, so it may be dropped.
    pub(crate) async fn start(
        &self,
        runtime: &Arc<dyn RuntimeService>,
        id: &ContainerId,
    ) -> Result<(), StartError> {
        let started = runtime.start_container(id).await;
        let uid = pod::uid(self.pod);
        let seen = self.node.cache.refresh(runtime.as_ref(), uid, id).await;
        started.map_err(|error| self.failed("RunContainerError", &error))?;
        seen.map_err(|error| self.failed("RunContainerError", &error))?;
        self.own_event(Severity::Normal, "Started", "Container started".to_owned());
        Ok(())
    }

    /// Does what the container wants done when it has been started, however long it takes; should
    /// that fail, the container is stopped, and is started again as its Pod says.
    pub(crate) async fn post_start(
        &self,
        runtime: &Arc<dyn RuntimeService>,
        id: &ContainerId,
    ) -> Result<(), StartError> {
        let hooks = self.container.lifecycle.as_ref();
        let Some(hook) = hooks.and_then(|hooks| hooks.post_start.as_ref()) else {
            return Ok(());
        };
        let uid = pod::uid(self.pod);
        let hooked = Hooked {
            node: self.node,
            runtime: runtime.as_ref(),
            pod: self.pod,
            ips: &self.prepared.ips,
            container: self.container,
            id,
        };
        let Err(error) = hooked.run(hook).await else {
            return Ok(());
        };
        let name = &*self.container.name;
        tracing::warn!(
            uid,
            container = name,
            error,
            "a hook has failed after a start"
        );
        // What its command has printed may be secret, and events are not.
        let text = "PostStartHook failed".to_owned();
        self.own_event(Severity::Warning, "FailedPostStartHook", text);
        let text = "FailedPostStartHook".to_owned();
        self.own_event(Severity::Normal, "Killing", text);
        let known = self.node.cache.pod(uid);
        if let Some(of) = known.container(id) {
            let deadline = Instant::now() + pod::grace(self.pod);
            let (_keep, deadline) = watch::channel(deadline);
            stop::stop_one(self.node, self.pod, of, deadline).await;
        }
        Err(StartError::Hook(error))
    }

    /// Creates it in the sandbox that is known, or in a new one if that has died unnoticed.
    async fn create_in_sandbox(
        &self,
        runtime: &Arc<dyn RuntimeService>,
        kind: Kind,
        config: ContainerConfig,
    ) -> Result<coracle_runtime::Result<ContainerId>, StartError> {
        let sandbox = self.sandbox(runtime, kind).await?;
        let created = runtime.create_container(&sandbox, config.clone()).await;
        let dead = match &created {
            Err(coracle_runtime::Error::State(_)) => true,
            Err(coracle_runtime::Error::NotFound { kind, .. }) => *kind == "sandbox",
            _ => false,
        };
        if !dead {
            return Ok(created);
        }
        self.node
            .cache
            .update(pod::uid(self.pod), |pod| pod.sandbox_died(&sandbox));
        let sandbox = self.sandbox(runtime, kind).await?;
        Ok(runtime.create_container(&sandbox, config).await)
    }

    fn failed(&self, reason: &'static str, error: &coracle_runtime::Error) -> StartError {
        let message = error.to_string();
        self.own_event(Severity::Warning, "Failed", format!("Error: {message}"));
        StartError::Runtime { reason, message }
    }

    /// The sandbox of that runtime, for what is of that kind; made if the Pod has none that is ready.
    async fn sandbox(
        &self,
        runtime: &Arc<dyn RuntimeService>,
        kind: Kind,
    ) -> Result<SandboxId, StartError> {
        let uid = pod::uid(self.pod);
        let known = self.node.cache.pod(uid);
        if let Some(sandbox) = known.ready_sandbox(runtime.name()) {
            return Ok(sandbox.id.clone());
        }
        // Guests look names up in the network's way, and have no files beside their volumes.
        let is_container = kind == Kind::Container;
        let hosts = is_container.then(|| self.hosts()).transpose()?;
        let hosts = hosts.unwrap_or_default();
        let of_machine = pod::spec(self.pod).host_network == Some(true);
        let hostname = match &hosts.full {
            // With its network it has its name.
            _ if of_machine => machine::hostname().unwrap_or_else(|| pod::hostname(self.pod)),
            Some(full) if pod::is_known_in_full(self.pod) => full.clone(),
            _ => pod::hostname(self.pod),
        };
        // A guest has no users.
        let users = match kind {
            Kind::Container => self.users()?,
            Kind::Wasm => None,
        };
        let network = self.prepared.namespace.as_deref();
        let config = PodSandboxConfig {
            pod: pod::identity(self.pod),
            attempt: known.next_sandbox_attempt(runtime.name()),
            hostname,
            ips: self.prepared.ips.clone(),
            network_snapshot: self.node.network.snapshot_path(),
            log_directory: self.node.pod_logs(self.pod),
            labels: self.pod.metadata.labels.clone().unwrap_or_default(),
            cgroup_parent: Some(cgroups::path(self.pod)),
            handler: self.prepared.handler.clone(),
            privileged: security::has_privileged(self.pod),
            resources: cgroups::resources(self.pod),
            pids_limit: Some(cgroups::PIDS),
            namespaces: security::namespaces(self.pod, network, users),
            resolution: is_container.then(|| self.resolution()).transpose()?,
            hosts,
            strict_groups: security::strict_groups(self.pod),
        };
        if config.attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.event(None, Severity::Normal, "SandboxChanged", message);
        }
        let made = runtime.run_pod_sandbox(config.clone()).await;
        let id = made.map_err(|error| self.no_sandbox(error))?;
        let sandbox = coracle_runtime::PodSandbox {
            id: id.clone(),
            config,
            state: coracle_runtime::SandboxState::Ready,
            created_at: std::time::SystemTime::now(),
        };
        self.node
            .cache
            .update(uid, |pod| pod.put_sandbox(runtime.name(), sandbox));
        Ok(id)
    }

    /// The IDs of the Pod's own users, if it has some.
    fn users(&self) -> Result<Option<IdRange>, StartError> {
        let readers = self.prepared.readers(self.pod);
        let given = self.node.users.give(self.pod, readers);
        given.map_err(|message| self.no_sandbox(message))
    }

    fn resolution(&self) -> Result<Resolution, StartError> {
        let machine = match std::fs::read_to_string(dns::RESOLV_CONF) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("cannot read {}: {error}", dns::RESOLV_CONF);
                return Err(StartError::Config(message));
            }
            machine => machine.unwrap_or_default(),
        };
        let cluster = self.node.network.dns();
        let found = dns::resolution(self.pod, cluster.as_ref(), &machine);
        let (found, told) = found.map_err(|error| self.no_sandbox(error))?;
        for message in told {
            self.event(None, Severity::Warning, "DNSConfigForming", message);
        }
        Ok(found)
    }

    /// What the Pod's containers find in their file of hosts beside themselves.
    fn hosts(&self) -> Result<Hosts, StartError> {
        let cluster = self.node.network.dns();
        let full = pod::full_name(self.pod, cluster.as_ref().map(|dns| dns.domain.as_str()));
        Ok(Hosts {
            full: full.map_err(StartError::Config)?,
            aliases: pod::host_aliases(self.pod),
        })
    }

    /// Says that the Pod has no place where it could run.
    pub(crate) fn no_sandbox(&self, message: impl std::fmt::Display) -> StartError {
        let message = format!("Failed to create pod sandbox: {message}");
        let event = "FailedCreatePodSandBox";
        self.event(None, Severity::Warning, event, message.clone());
        let reason = "ContainerCreating";
        StartError::Runtime { reason, message }
    }

    fn config(
        &self,
        (runtime, user_of_image): (&str, Option<ImageUser>),
        image: &LocalImage,
        volumes: &VolumeImages,
    ) -> Result<ContainerConfig, String> {
        let (node, pod, container) = (self.node, self.pod, self.container);
        let target = match pod::ephemeral::named(pod, &container.name) {
            Some(of) => {
                let known = node.cache.pod(pod::uid(pod));
                let namespace = self.prepared.namespace.as_deref();
                pod::ephemeral::place(pod, of, (runtime, image.kind), &known, namespace)?
            }
            None => None,
        };
        supported::check(pod, container, image.kind)?;
        let mut security = security::security(pod, container, &node.seccomp)?;
        if image.kind == Kind::Wasm {
            security::check_for_guest(&security)?;
            supported::check_sysctls(pod, self.prepared.namespace.as_deref())?;
        }
        let readers = self.prepared.readers(pod);
        if image.kind == Kind::Container {
            security::check_non_root(pod, container, &security, user_of_image.as_ref())?;
            supported::check_users(pod, readers.guests().is_some())?;
        }
        // The Pod's volumes are that group's.
        let group = readers.guests().map(|user| user.gid);
        security.supplemental_groups.extend(group);
        let around = node.surroundings(&self.prepared.ips);
        let services = node.services.state();
        let links = pod::spec(pod).enable_service_links.unwrap_or(true);
        let services = service_env::service_env(&services, pod::namespace(pod), links);
        let sources = &self.prepared.sources;
        let env = env::environment(pod, container, services, sources, &around);
        let env = env.map_err(|error| error.to_string())?;
        let mounts = mounts::mounts(&node.root, pod, container, &env, volumes);
        let mounts = mounts.map_err(|error| error.to_string())?;
        if image.kind == Kind::Wasm {
            mounts::check_for_guest(pod, container, &mounts).map_err(|error| error.to_string())?;
        }
        let uid = pod::uid(pod);
        let message = node.termination_file(uid, &container.name, self.attempt);
        // A container has users that only itself knows.
        let is_guest = image.kind == Kind::Wasm;
        let user = readers.guests().filter(|_| is_guest);
        let folder = pod_folder(&node.root, uid);
        access::pod_folder(&node.root, &folder, readers)
            .and_then(|()| make_message_file(&folder, &message, readers, user))
            .map_err(|error| format!("cannot make the file of the termination message: {error}"))?;
        let pod_logs = node.pod_logs(pod);
        let logs = pod_logs.join(&container.name);
        access::pod_folder(&node.log_root, &pod_logs, readers)
            .and_then(|()| access::own_folder(&logs, user))
            .map_err(|error| format!("cannot make {}: {error}", logs.display()))?;
        let mut labels = pod.metadata.labels.clone().unwrap_or_default();
        labels.insert(RESOLVED_LABEL.to_owned(), image.resolved.clone());
        let memory = machine::memory();
        Ok(ContainerConfig {
            name: container.name.clone(),
            attempt: self.attempt,
            image_digest: image.image.digest.clone(),
            image: container.image.clone().unwrap_or_default(),
            command: env::expand_all(container.command.as_ref(), &env),
            args: env::expand_all(container.args.as_ref(), &env),
            working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
            env,
            mounts,
            resources: units(container.resources.as_ref(), &whole_limits(pod::spec(pod))),
            ports: ports(container),
            log_path: PathBuf::from(&container.name).join(format!("{}.log", self.attempt)),
            log_limits: node.log_limits,
            termination_message: Some(message),
            termination_path: container
                .termination_message_path
                .clone()
                .map(PathBuf::from),
            labels,
            stdio: Stdio {
                stdin: container.stdin == Some(true),
                once: container.stdin_once == Some(true),
                terminal: container.tty == Some(true),
            },
            security,
            stop_signal: container
                .lifecycle
                .as_ref()
                .and_then(|hooks| hooks.stop_signal.clone()),
            oom_score_adj: memory.map(|memory| pod::oom::score(pod, container, memory.total)),
            target,
        })
    }

    pub(super) fn own_event(&self, severity: Severity, reason: &str, message: String) {
        self.event(Some(&self.container.name), severity, reason, message);
    }

    pub(super) fn event(
        &self,
        of: Option<&str>,
        severity: Severity,
        reason: &str,
        message: String,
    ) {
        self.node
            .recorder
            .pod(self.pod, of, severity, reason, message);
    }
}

/// Makes the file below the Pod's folder, for a guest of that user.
fn make_message_file(
    pod: &Path,
    path: &Path,
    readers: Readers,
    user: Option<GuestUser>,
) -> std::io::Result<()> {
    let folders = path.ancestors().skip(1);
    for folder in folders.take_while(|folder| *folder != pod) {
        access::passage(folder, readers.guests())?;
    }
    std::fs::write(path, "")?;
    access::give_file(path, user)
}

/// Requests and limits of a container in the units of the kernel. Where it has no limit of its own it
/// may have all that its Pod may as a whole.
pub(crate) fn units(own: Option<&ResourceRequirements>, whole: &ResourceList) -> Resources {
    let requests = parse(own.and_then(|own| own.requests.as_ref()));
    let mut limits = parse(own.and_then(|own| own.limits.as_ref()));
    limits.retain(|_, limit| !limit.is_zero());
    for (name, limit) in whole {
        limits.entry(name.clone()).or_insert(*limit);
    }
    let unsigned = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    Resources {
        cpu_request_millis: requests.get("cpu").and_then(|q| unsigned(q.milli_value())),
        cpu_limit_millis: limits.get("cpu").and_then(|q| unsigned(q.milli_value())),
        memory_limit_bytes: limits.get("memory").and_then(|q| unsigned(q.value())),
        huge_pages: huge_pages(&limits),
    }
}

fn ports(container: &Container) -> Vec<Port> {
    let ports = container.ports.iter().flatten();
    let of = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        let protocol = match port.protocol.as_deref() {
            None | Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some(_) => return None,
        };
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            port: u16::try_from(port.container_port).ok()?,
            protocol,
        })
    };
    ports.filter_map(of).collect()
}
