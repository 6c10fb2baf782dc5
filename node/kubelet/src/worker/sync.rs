//! One look at a Pod that lives: what is missing is made, what should run is started.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::attach;
use super::run::{Outcome, Worker};
use super::state::Cause;
use crate::access::Readers;
use crate::containers::actions::{Actions, Failure, Start};
use crate::containers::lost;
use crate::containers::start::{Prepared, StartError, Starter};
use crate::containers::stop;
use crate::events::Severity;
use crate::images::Kind;
use crate::objects;
use crate::pod::env::{References, Sources, references};
use crate::pod::{self};
use crate::status::{self, Verdict};
use crate::volumes::{self, tokens, trust};

/// A Pod that starts within this time is reported once, when it runs.
const QUIET_START: Duration = Duration::from_millis(100);
/// Pause after something failed that others may mend.
pub(super) const RETRY: Duration = Duration::from_secs(2);
/// The first such pause for volumes: what they are made of may be made just now.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// Volumes that fail for longer are told of.
const PASSING: Duration = Duration::from_millis(400);
/// How often volumes are brought up to date with their ConfigMaps and Secrets, whether those are
/// known to have changed or not.
const VOLUME_REFRESH: Duration = Duration::from_secs(60);
/// How often at most where they are: what is changed all the time is not read all the time, and what
/// was fetched before the newest was heard of, or after, is settled then.
const STALE_REFRESH: Duration = Duration::from_secs(1);

impl Worker {
    pub(super) async fn sync(&mut self, pod: &Pod) -> Outcome {
        let now = SystemTime::now();
        let uid = pod::uid(pod);
        if !self.memory.admitted && self.has_finished(pod) {
            // Whatever the node could still give it: what has run does not run again.
            return Outcome::End(Cause::Finished, pod::grace(pod));
        }
        if let Some(outcome) = self.admit(pod).await {
            return outcome;
        }
        let deadline = deadline(pod);
        if deadline.is_some_and(|deadline| deadline <= now) {
            let verdict = Verdict {
                reason: "DeadlineExceeded".to_owned(),
                message: "Pod was active on the node longer than the specified deadline".to_owned(),
                disrupted: false,
            };
            let (reason, message) = (verdict.reason.clone(), verdict.message.clone());
            self.event(pod, None, Severity::Normal, &reason, message);
            return Outcome::End(Cause::Failed(verdict), pod::grace(pod));
        }
        let ends = Self::ends(self.inbox.clone());
        let prepared = tokio::select! {
            prepared = self.prepare(pod) => prepared,
            () = ends => return Outcome::Wait(None),
        };
        if let Err(problem) = prepared {
            let (reason, message) = problem;
            let pause = volume_pause(self.memory.volume_failures);
            if pause >= PASSING {
                self.event(pod, None, Severity::Warning, reason, message);
            }
            self.publish(pod, None, false);
            return Outcome::Wait(Some(now + pause));
        }
        let progress = self.act_within(pod).await;
        let now = SystemTime::now();
        self.settle_failures(pod, now);
        let runtime = self.node.cache.pod(uid);
        self.read_messages(pod, &runtime);
        self.run_probes(pod, &runtime);
        let actions = self.actions(pod, &runtime, now);
        self.announce_back_off(pod, &actions);
        if actions.finished {
            return Outcome::End(Cause::Finished, pod::grace(pod));
        }
        self.publish(pod, None, false);
        let refresh = volumes::may_change(pod).then(|| now + self.volume_refresh());
        let retry = (!progress).then(|| now + RETRY);
        let times = [
            actions.wake_at,
            self.memory.settles_at(),
            deadline,
            refresh,
            retry,
        ];
        Outcome::Wait(times.into_iter().flatten().min())
    }

    /// Addresses as far as they are known, the objects that the Pod reads, and its volumes.
    async fn prepare(&mut self, pod: &Pod) -> Result<(), (&'static str, String)> {
        let mount = |error: volumes::VolumeError| ("FailedMount", error.to_string());
        volumes::check(pod).map_err(mount)?;
        if self.memory.prepared.is_none() {
            let event = "FailedCreatePodSandBox";
            let sandbox = |error| (event, format!("Failed to create pod sandbox: {error}"));
            let handler = objects::runtime_handler(&self.node.client, pod).await;
            let handler = handler.map_err(|message| (event, message))?;
            if let Some(handler) = &handler {
                let known = self.node.router.check_handler(handler);
                known.map_err(|error| sandbox(error.to_string()))?;
            }
            let user = self
                .node
                .router
                .guest_user(pod::namespace(pod), handler.as_deref());
            let user = user.map_err(|error| sandbox(format!("no user for guests: {error}")))?;
            let mut prepared = Prepared {
                ips: Vec::new(),
                namespace: None,
                guests: self.has_guests(pod, handler.as_deref()).await,
                handler,
                user,
                sources: Sources::default(),
            };
            if pod::spec(pod).host_network == Some(true) {
                prepared.ips = self.node.host_ips.clone();
            } else if let Some(wanted) = self.attachment(pod, prepared.handler.as_deref()).await {
                let attached = attach::attach(&self.node, pod, wanted, &mut prepared).await;
                attached.map_err(sandbox)?;
            }
            self.memory.prepared = Some(prepared);
        }
        // Services are part of the environment of whatever starts here; of a static Pod's if they
        // are known, for it may be what makes them known.
        if !pod::is_static(pod) {
            self.node.services_known().await;
        }
        if let Err(error) = self.set_up_volumes(pod).await {
            if !self.memory.volumes {
                self.memory.volume_failures += 1;
                return Err(("FailedMount", error));
            }
            // They stay as they were; what runs goes on.
            self.event(pod, None, Severity::Warning, "FailedMount", error);
        }
        self.memory.volumes = true;
        self.memory.volume_failures = 0;
        Ok(())
    }

    /// How long volumes are left as they are when they have been looked after.
    fn volume_refresh(&self) -> Duration {
        match self.memory.following.is_stale() {
            true => STALE_REFRESH,
            false => VOLUME_REFRESH,
        }
    }

    /// Makes the volumes, or brings them up to date when it is time, or when what they are made of
    /// or tell of the Pod itself has changed.
    async fn set_up_volumes(&mut self, pod: &Pod) -> Result<(), String> {
        if pod::spec(pod).volumes.iter().flatten().next().is_none() {
            return Ok(());
        }
        let now = SystemTime::now();
        let shown = (
            pod.metadata.labels.clone(),
            pod.metadata.annotations.clone(),
            pod.metadata.generation,
        );
        let made = self.memory.volumes_made.as_ref();
        let same = made.is_some_and(|(_, of)| *of == shown);
        let refresh = self.volume_refresh();
        if same && made.is_some_and(|(at, _)| *at + refresh > now) {
            return Ok(());
        }
        let mut wanted = References::default();
        volumes::references(pod, &mut wanted);
        let following = &mut self.memory.following;
        self.node
            .followed
            .follow(pod, &self.handle, &wanted, following);
        let (sources, tokens, trust) = tokio::join!(
            objects::fetch(&self.node, pod::namespace(pod), &wanted),
            tokens::refresh(&self.node.client, pod, &mut self.memory.tokens, now),
            trust::fetch(&self.node.client, pod),
        );
        let mut sources = sources.map_err(|error| format!("cannot read objects: {error}"))?;
        (sources.tokens, sources.trust) = (tokens?, trust?);
        self.memory.following.has(&sources);
        let fingerprint = sources.fingerprint();
        if same && self.memory.volume_sources == Some(fingerprint) {
            // Thousands of idle Pods come by here every minute.
            self.memory.volumes_made = Some((now, shown));
            return Ok(());
        }
        let prepared = self.memory.prepared.as_ref();
        let ips = prepared.map(|prepared| prepared.ips.as_slice());
        let around = self.node.surroundings(ips.unwrap_or_default());
        let (root, pod) = (self.node.root.clone(), pod.clone());
        let readers = prepared.map_or(Readers::Agent, |prepared| prepared.readers(&pod));
        let of = pod.clone();
        let set_up = tokio::task::spawn_blocking(move || {
            volumes::set_up(&root, &of, &sources, &around, readers)
                .map_err(|error| error.to_string())
        });
        let on_disk = set_up.await.map_err(|error| error.to_string())??;
        for volume in on_disk {
            if self.memory.on_disk.insert(volume.clone()) {
                let message = format!(
                    "volume \"{volume}\" with medium Memory is an ordinary folder: this node's agent \
                     may not mount file systems; run it as root to have the volume in memory"
                );
                self.event(
                    &pod,
                    None,
                    Severity::Warning,
                    "MemoryMediumUnavailable",
                    message,
                );
            }
        }
        self.memory.volumes_made = Some((now, shown));
        self.memory.volume_sources = Some(fingerprint);
        Ok(())
    }

    /// Brings what runs to what should run; false if something failed that is to be tried
    /// again soon.
    pub(super) async fn act(&mut self, pod: &Pod) -> bool {
        loop {
            let runtime = self.node.cache.pod(pod::uid(pod));
            self.read_messages(pod, &runtime);
            lost::note(&mut self.memory.lost, pod, &runtime);
            let actions = self.actions(pod, &runtime, SystemTime::now());
            let idle = actions.start.is_empty()
                && actions.kill.is_empty()
                && actions.remove.is_empty()
                && actions.remove_sandboxes.is_empty();
            if idle || self.inbox.borrow().end().is_some() {
                return true;
            }
            let quiet = self.publish_if_slow(pod);
            let progress = self.apply(pod, actions).await;
            quiet.abort();
            if !progress {
                return false;
            }
        }
    }

    /// Sends what is now if the start takes long; it is dropped if it does not.
    fn publish_if_slow(&mut self, pod: &Pod) -> tokio::task::AbortHandle {
        let status = self.status(pod, None, false);
        let (publisher, pod) = (self.node.publisher.clone(), pod.clone());
        let task = tokio::spawn(async move {
            tokio::time::sleep(QUIET_START).await;
            publisher.publish(&pod, status);
        });
        task.abort_handle()
    }

    async fn apply(&mut self, pod: &Pod, actions: Actions) -> bool {
        let uid = pod::uid(pod);
        let runtime = self.node.cache.pod(uid);
        let mut progress = true;
        for kill in &actions.kill {
            let Some(of) = runtime.container(&kill.id) else {
                continue;
            };
            if kill.restarts {
                self.memory.killed.insert(kill.id.0.clone());
            }
            let (message, grace) = stop::killing(pod, kill);
            self.event(pod, Some(&kill.name), Severity::Normal, "Killing", message);
            self.probes.remove(&kill.id);
            let deadline = tokio::time::Instant::now() + grace;
            let (_keep, deadline) = tokio::sync::watch::channel(deadline);
            tokio::select! {
                () = stop::stop_one(&self.node, pod, of, deadline) => {}
                // The end of the Pod goes on with this, within its own grace period.
                () = Self::ends(self.inbox.clone()) => return true,
            }
        }
        let begins_anew = actions.anew && actions.kill.is_empty();
        if begins_anew {
            // How they have ended is told when nothing of them is left.
            self.memory.status = Some(self.status(pod, None, false));
        }
        for id in &actions.remove {
            progress &= self.remove_container(pod, id).await;
        }
        for id in &actions.remove_sandboxes {
            progress &= self.remove_sandbox(uid, id).await;
        }
        if !progress {
            return false;
        }
        if begins_anew {
            self.memory.begin_anew(pod, &runtime, SystemTime::now());
            if let Some(status) = &mut self.memory.status {
                status::containers::remove_all(status);
                self.node.publisher.publish(pod, status.clone());
            }
        }
        for start in &actions.start {
            if self.inbox.borrow().end().is_some() {
                return true;
            }
            self.start(pod, start).await;
        }
        if !actions.start.is_empty() {
            // What is reported as ready can be dialled.
            self.node.listeners.settled().await;
        }
        true
    }

    async fn start(&mut self, pod: &Pod, start: &Start) {
        let Some((container, _)) = pod::container(pod, &start.name) else {
            return;
        };
        let container = container.as_ref();
        let now = SystemTime::now();
        // A start that failed has lengthened the delay already.
        let counted = self.memory.failures.get(&start.name);
        if let Some(failed) = start.after_failure
            && counted.is_none_or(Failure::has_started)
        {
            self.memory.back_off.next(&start.name, failed, now);
        }
        match self.begin(pod, container, start.attempt).await {
            Ok(true) => self.memory.started(&start.name),
            Ok(false) => {}
            Err(error) => self.memory.failed(&start.name, error, SystemTime::now()),
        }
    }

    /// Starts a container; false if its Pod is to end before that is done.
    async fn begin(
        &mut self,
        pod: &Pod,
        container: &Container,
        attempt: u32,
    ) -> Result<bool, StartError> {
        let mut prepared = self.memory.prepared.clone().unwrap_or_default();
        let mut wanted = References::default();
        references(container, &mut wanted);
        if wanted != References::default() {
            let namespace = pod::namespace(pod);
            let sources = objects::fetch(&self.node, namespace, &wanted).await;
            prepared.sources = sources
                .map_err(|error| StartError::Config(format!("cannot read objects: {error}")))?;
        }
        let inbox = self.inbox.clone();
        let node = self.node.clone();
        let mut starter = Starter {
            node: &node,
            pod,
            container,
            attempt,
            prepared: &prepared,
        };
        let parts = tokio::select! {
            found = starter.parts() => found?,
            () = Self::ends(inbox.clone()) => return Ok(false),
        };
        let runtime = &parts.runtime;
        let first = (container.name.as_str(), parts.image.kind);
        let wanted = tokio::select! {
            wanted = attach::late(&node, pod, first, &prepared) => wanted,
            () = Self::ends(inbox.clone()) => return Ok(false),
        };
        let mut late = prepared.clone();
        if let Some(wanted) = wanted {
            let attached = attach::attach(&node, pod, wanted, &mut late).await;
            attached.map_err(|message| starter.no_sandbox(message))?;
        }
        let first_guest = parts.image.kind == Kind::Wasm && !prepared.guests;
        late.guests |= first_guest;
        if let Some(known) = &mut self.memory.prepared {
            (known.ips, known.namespace) = (late.ips.clone(), late.namespace.clone());
            known.guests = late.guests;
        }
        if first_guest {
            self.memory.volumes_made = None;
            self.memory.volume_sources = None;
            let set_up = self.set_up_volumes(pod).await;
            set_up.map_err(StartError::Config)?;
        }
        // Its init containers may have written them.
        late.sources.files = volumes::env_files(&node.root, pod, container);
        starter.prepared = &late;
        let id = starter.create(&parts).await?;
        // What is given up half started is ended with the Pod's sandbox.
        let start = async {
            starter.start(runtime, &id).await?;
            starter.post_start(runtime, &id).await?;
            Ok(true)
        };
        tokio::select! {
            started = start => started,
            () = Self::ends(inbox) => Ok(false),
        }
    }

    fn settle_failures(&mut self, pod: &Pod, now: SystemTime) {
        let image = |name: &str| {
            let container = pod::container(pod, name);
            container
                .and_then(|(c, _)| c.image.clone())
                .unwrap_or_default()
        };
        for name in self.memory.settle(now, image) {
            let message = format!("Back-off pulling image \"{}\"", image(&name));
            self.event(pod, Some(&name), Severity::Normal, "BackOff", message);
            let message = "Error: ImagePullBackOff".to_owned();
            self.event(pod, Some(&name), Severity::Warning, "Failed", message);
        }
    }

    fn announce_back_off(&mut self, pod: &Pod, actions: &Actions) {
        let runtime = self.node.cache.pod(pod::uid(pod));
        for name in actions.crash_loop.keys() {
            let attempt = runtime
                .latest(name)
                .map_or(0, |of| of.container.config.attempt);
            if self.memory.announced.insert((name.clone(), attempt)) {
                let message = format!(
                    "Back-off restarting failed container {name} in pod {}",
                    pod::long_name(pod)
                );
                self.event(pod, Some(name), Severity::Warning, "BackOff", message);
            }
        }
        let latest = |name: &str, attempt| {
            let of = runtime.latest(name);
            of.is_some_and(|of| of.container.config.attempt == attempt)
        };
        self.memory
            .announced
            .retain(|(name, attempt)| latest(name, *attempt));
    }

    pub(super) fn event(
        &self,
        pod: &Pod,
        container: Option<&str>,
        severity: Severity,
        reason: &str,
        message: String,
    ) {
        self.node
            .recorder
            .pod(pod, container, severity, reason, message);
    }
}

/// Pause before a Pod whose preparation failed is tried again, where its volumes have failed so
/// often in a row.
fn volume_pause(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        Some(doublings) => RETRY.min(FIRST_RETRY * 2_u32.pow(doublings.min(16))),
        None => RETRY,
    }
}

/// When the Pod has been active for too long.
fn deadline(pod: &Pod) -> Option<SystemTime> {
    let seconds = u64::try_from(pod::spec(pod).active_deadline_seconds?).ok()?;
    let started = pod::status(pod).start_time.as_ref()?;
    SystemTime::from(started.0).checked_add(Duration::from_secs(seconds))
}
