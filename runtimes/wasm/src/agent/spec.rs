//! What a guest process is told: the container's configuration over the image's.

use std::path::PathBuf;
use std::time::SystemTime;

use coracle_images::ImageConfig;
use coracle_runtime::{PodSandbox, Protocol};

use super::records::ContainerRecord;
use crate::compile::Artifact;
use crate::protocol::GuestSpec;

/// Where an HTTP guest is served that names no port.
const DEFAULT_PORT: u16 = 8080;
/// What a guest finds as its own name if neither the Pod nor the image says.
const DEFAULT_ARGV0: &str = "main.wasm";

/// The specification of a guest.
pub(super) fn guest(
    record: &ContainerRecord,
    sandbox: &PodSandbox,
    image: &ImageConfig,
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
        env: env(&sandbox.config.hostname, &config.env, image),
        working_dir: config
            .working_dir
            .clone()
            .or_else(|| Some(image.working_dir.clone()).filter(|folder| !folder.is_empty())),
        mounts: config.mounts.clone(),
        resources: config.resources.clone(),
        port,
        ips: sandbox.config.ips.clone(),
        network_snapshot: sandbox.config.network_snapshot.clone(),
        log_file: sandbox.config.log_directory.join(&config.log_path),
        log_limits: config.log_limits,
        termination_message: config.termination_message.clone(),
        started_at,
        exit_file,
    }
}

/// `command` and `args` over the image's entrypoint and cmd, by the rules of the Pod API: a
/// command discards both of the image's.
fn argv(command: &[String], args: &[String], image: &ImageConfig) -> Vec<String> {
    let (entrypoint, cmd): (&[String], &[String]) = match (command.is_empty(), args.is_empty()) {
        (false, _) => (command, args),
        (true, false) => (&image.entrypoint, args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let mut argv: Vec<String> = entrypoint.iter().chain(cmd).cloned().collect();
    if entrypoint.is_empty() {
        argv.insert(0, DEFAULT_ARGV0.to_owned());
    }
    argv
}

/// The host's name, then the image's environment, then the container's; the last entry of a name
/// wins and keeps the place of the first.
fn env(hostname: &str, config: &[(String, String)], image: &ImageConfig) -> Vec<(String, String)> {
    let hostname = [("HOSTNAME".to_owned(), hostname.to_owned())];
    let image = image
        .env
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut env: Vec<(String, String)> = Vec::new();
    for (name, value) in hostname
        .into_iter()
        .chain(image)
        .chain(config.iter().cloned())
    {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => env.push((name, value)),
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(of: &[&str]) -> Vec<String> {
        of.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn command_and_args_override_as_the_pod_api_says() {
        let image = ImageConfig {
            entrypoint: strings(&["app.wasm"]),
            cmd: strings(&["serve"]),
            ..ImageConfig::default()
        };
        let bare = ImageConfig::default();
        for (command, args, image, expected) in [
            (&[][..], &[][..], &image, &["app.wasm", "serve"][..]),
            (&[], &["x"], &image, &["app.wasm", "x"]),
            (&["y"], &[], &image, &["y"]),
            (&["y"], &["x"], &image, &["y", "x"]),
            (&[], &["x"], &bare, &["main.wasm", "x"]),
            (&[], &[], &bare, &["main.wasm"]),
        ] {
            let got = argv(&strings(command), &strings(args), image);
            assert_eq!(got, strings(expected), "{command:?} {args:?}");
        }
    }

    #[test]
    fn the_last_entry_of_a_name_wins() {
        let image = ImageConfig {
            env: strings(&["A=1", "B=2"]),
            ..ImageConfig::default()
        };
        let config = [("A".to_owned(), "3".to_owned())];
        let env = env("pod", &config, &image);
        let text: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text, ["HOSTNAME=pod", "A=3", "B=2"]);
    }
}
