//! What a container is asked to do beside its own program: the commands of probes, and hooks
//! (`lifecycle`).

use std::net::IpAddr;
use std::time::Duration;

use coracle_runtime::streaming::{ExecConfig, Output, Session, Wanted};
use coracle_runtime::{ContainerId, RuntimeService};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, Probe};
use tokio::io::AsyncReadExt;

use crate::events::Severity;
use crate::node_context::NodeContext;
use crate::pod;
use crate::probes::dial::{Purpose, Target};
use crate::probes::tls;

/// How long a hook waits for the answer to its request.
const ANSWER: Duration = Duration::from_secs(30);
/// What is read of a command's output; the rest is let go.
const MAX_OUTPUT: usize = 10 << 10;

/// Why a command is no success.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    /// It has ended with another code than 0.
    #[error("{said}")]
    Failed {
        /// Its code.
        code: i32,
        /// What it has printed; what the code is if that is nothing.
        said: String,
    },
    /// It could not be run, or nobody knows how it has ended.
    #[error("{0}")]
    Unknown(String),
}

/// Runs a command to its end: its output, or why it is no success.
pub(crate) async fn command(
    runtime: &dyn RuntimeService,
    id: &ContainerId,
    command: &[String],
) -> Result<String, CommandError> {
    let config = ExecConfig {
        command: command.to_vec(),
        terminal: false,
        wanted: Wanted {
            stdin: false,
            stdout: true,
            stderr: true,
        },
        kill_on_drop: true,
    };
    let session = runtime.exec(id, config).await;
    let Session {
        stdout,
        stderr,
        exit,
        ..
    } = session.map_err(|error| CommandError::Unknown(error.to_string()))?;
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let reading = async {
        tokio::join!(read(stdout, &mut out), read(stderr, &mut errors));
        // What it has left behind may hold its output open.
        std::future::pending::<()>().await
    };
    let code = tokio::select! {
        biased;
        () = reading => Ok(0),
        code = exit => code,
    };
    let said = [out, errors].concat();
    let said = String::from_utf8_lossy(&said).trim_end().to_owned();
    match code {
        Ok(0) => Ok(said),
        Ok(code) => Err(CommandError::Failed {
            said: match said.is_empty() {
                true => format!("command failed with exit code {code}"),
                false => said,
            },
            code,
        }),
        Err(error) => Err(CommandError::Unknown(error.to_string())),
    }
}

async fn read(output: Option<Output>, into: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    let mut chunk = vec![0; MAX_OUTPUT];
    // What cannot be read has ended.
    while let Ok(n @ 1..) = output.read(&mut chunk).await {
        let room = MAX_OUTPUT.saturating_sub(into.len());
        into.extend_from_slice(&chunk[..n.min(room)]);
    }
}

/// The container whose hook it is.
pub(crate) struct Hooked<'a> {
    pub(crate) node: &'a NodeContext,
    pub(crate) runtime: &'a dyn RuntimeService,
    pub(crate) pod: &'a Pod,
    pub(crate) ips: &'a [IpAddr],
    pub(crate) container: &'a Container,
    pub(crate) id: &'a ContainerId,
}

impl Hooked<'_> {
    /// Does what a hook asks, however long its command takes. What it says of a failure is for those
    /// only who may see what its command has printed.
    pub(crate) async fn run(&self, hook: &LifecycleHandler) -> Result<(), String> {
        let failed = |hook: String, error: String| {
            let (name, of) = (&self.container.name, pod::long_name(self.pod));
            format!("{hook} for Container \"{name}\" in Pod \"{of}\" failed - error: {error}")
        };
        if let Some(exec) = &hook.exec {
            let asked = exec.command.clone().unwrap_or_default();
            let ran = command(self.runtime, self.id, &asked).await;
            return ran.map(drop).map_err(|error| {
                let asked = asked.join(" ");
                let error = match error {
                    CommandError::Failed { code, said } => {
                        format!("command '{asked}' exited with {code}: {said}, message: {said:?}")
                    }
                    CommandError::Unknown(why) => format!("{why}, message: \"\""),
                };
                failed(format!("Exec lifecycle hook ([{asked}])"), error)
            });
        }
        if let Some(sleep) = &hook.sleep {
            let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            return Ok(());
        }
        let request = Probe {
            http_get: hook.http_get.clone(),
            tcp_socket: hook.tcp_socket.clone(),
            ..Probe::default()
        };
        let target = Target::of(self.container, &request, self.ips);
        let told = match (self.tell(&target).await, target.plain()) {
            (Err(error), Some((plain, whom))) if tls::is_plain(&error) => {
                let told = self.tell(&plain).await.map_err(|_| error);
                if told.is_ok() {
                    let text = format!(
                        "request to HTTPS lifecycle hook {whom} got HTTP response, retry with HTTP \
                         succeeded"
                    );
                    let (recorder, reason) = (&self.node.recorder, "LifecycleHTTPFallback");
                    recorder.pod(self.pod, None, Severity::Warning, reason, text);
                }
                told
            }
            (told, _) => told,
        };
        told.map_err(|error| match &hook.http_get {
            Some(get) => {
                let path = get.path.as_deref().unwrap_or_default();
                failed(format!("HTTP lifecycle hook ({path})"), error)
            }
            None => failed("TCP lifecycle hook".to_owned(), error),
        })
    }

    /// Whatever is answered, it has been told. Who never answers does not hold the Pod.
    async fn tell(&self, target: &Target) -> Result<(), String> {
        let told = target.reach(self.node, pod::uid(self.pod), Purpose::Hook);
        match tokio::time::timeout(ANSWER, told).await {
            Ok(told) => told.map(drop),
            Err(_) => Err(format!("no answer within {} seconds", ANSWER.as_secs())),
        }
    }
}
