//! What a guest process is told: the container's configuration over the image's.

use std::path::PathBuf;
use std::time::SystemTime;

use coracle_images::ImageConfig;
use coracle_runtime::ledger::ContainerRecord;
use coracle_runtime::{Mount, PodSandbox, Protocol};

use super::home::Home;
use crate::compile::Artifact;
use crate::protocol::GuestSpec;

/// Where an HTTP guest is served that names no port.
const DEFAULT_PORT: u16 = 8080;
/// What a guest finds as its own name if neither the Pod nor the image says.
const DEFAULT_ARGV0: &str = "main.wasm";

/// The specification of a guest, with its volumes as they lie on the host.
pub(super) fn guest(
    record: &ContainerRecord,
    sandbox: &PodSandbox,
    image: &ImageConfig,
    mounts: Vec<Mount>,
    artifact: Artifact,
    started_at: SystemTime,
    exit_file: PathBuf,
) -> GuestSpec {
    let config = &record.config;
    let port = config
        .ports
        .iter()
        .find(|port| port.protocol == Protocol::Tcp)
        .map_or(DEFAULT_PORT, |port| port.port);
    GuestSpec {
        container: record.id.clone(),
        sandbox: record.sandbox.clone(),
        pod: record.pod.clone(),
        kind: artifact.kind,
        artifact: artifact.code,
        argv: argv(&config.command, &config.args, image),
        env: image.environment(&[("HOSTNAME", &sandbox.config.hostname)], &config.env),
        working_dir: config
            .working_dir
            .clone()
            .or_else(|| Some(image.working_dir.clone()).filter(|folder| !folder.is_empty())),
        mounts,
        resources: config.resources.clone(),
        port,
        ips: sandbox.config.ips.clone(),
        network_snapshot: sandbox.config.network_snapshot.clone(),
        attachment: Home::of(sandbox).attachment(),
        log_file: sandbox.config.log_directory.join(&config.log_path),
        log_limits: config.log_limits,
        termination_message: config.termination_message.clone(),
        termination_path: config.termination_path.clone(),
        stdio: config.stdio,
        started_at,
        exit_file,
    }
}

/// What a guest finds as its arguments: the first is its name.
fn argv(command: &[String], args: &[String], image: &ImageConfig) -> Vec<String> {
    let mut argv = image.argv(command, args);
    if command.is_empty() && image.entrypoint.is_empty() {
        argv.insert(0, DEFAULT_ARGV0.to_owned());
    }
    argv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_without_a_name_gets_one() {
        let image = ImageConfig {
            entrypoint: vec!["app.wasm".to_owned()],
            ..ImageConfig::default()
        };
        let bare = ImageConfig::default();
        let x = ["x".to_owned()];
        assert_eq!(argv(&[], &x, &image), ["app.wasm", "x"]);
        assert_eq!(argv(&[], &x, &bare), ["main.wasm", "x"]);
        assert_eq!(argv(&x, &[], &bare), ["x"]);
    }
}
