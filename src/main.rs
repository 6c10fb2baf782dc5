//! Coracle: a Kubernetes in one binary.
//!
//! The binary wires the parts together and owns nothing that a part could own: options, the
//! data directory, certificates, and the order in which things start and stop. Guests run in
//! processes of this same binary; their hidden subcommands are taken before anything else, so
//! that no thread and no runtime exists in them yet.

mod agent;
mod api_server;
mod apply;
mod cli;
mod cluster_facts;
mod cluster_network;
mod containers;
mod defaults;
mod host;
mod identity;
mod kubelet_args;
mod logging;
mod memory;
mod paths;
mod pod_network;
mod push;
mod registry_relay;
mod registry_tls;
mod reset;
mod server;
mod service_feed;
mod shutdown;
mod up;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use coracle_network::SnapshotNetwork;
use coracle_runtime::{Attachment, GuestNetwork};

use cli::{Cli, Command, DataOptions, RegistryCommand, TokenCommand};
use identity::token;
use paths::DataDir;
use tokio_util::task::AbortOnDropHandle;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if let Some(code) = coracle_cri::plugin(arguments.next().as_deref()) {
        return code;
    }
    let arguments: Vec<_> = arguments.collect();
    if let Some(code) = coracle_oci::subcommand(&arguments) {
        return code;
    }
    if let Some(code) = coracle_wasm::subcommand(&arguments, guest_network) {
        return code;
    }
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("coracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The network of a guest's process.
fn guest_network(
    snapshot: &Path,
    addresses: &[IpAddr],
    attachment: Attachment,
) -> io::Result<Arc<dyn GuestNetwork>> {
    let network = SnapshotNetwork::open(snapshot, addresses)?;
    Ok(Arc::new(network.attached(attachment)))
}

/// Takes as many open files as the system grants: each client, watch and Pod has some, and the
/// usual limit of 1,024 is for programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        eprintln!("coracle: raising the limit of open files: {error}");
    }
}

fn run(cli: Cli) -> Result<()> {
    raise_file_limit();
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok()
        .context("a TLS provider is installed already")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let _giving_back = AbortOnDropHandle::new(runtime.spawn(memory::give_back()));
    runtime.block_on(async {
        match cli.command {
            Command::Up(options) => up::up(options).await,
            Command::Server(options) => up::server(options).await,
            Command::Agent(options) => agent::run(options).await,
            Command::Push(options) => push::run(options).await,
            Command::Reset(options) => reset::run(options).await,
            Command::Kubeconfig { path, data } => kubeconfig(path, data),
            Command::Token { command, data } => tokens(command, data).await,
            Command::Registry { command, data } => registry(command, data),
        }
    })
}

fn kubeconfig(path: bool, data: DataOptions) -> Result<()> {
    let file = DataDir::new(data.data_dir)?.kubeconfig();
    if path {
        println!("{}", file.display());
    } else {
        print!("{}", read_running(&file)?);
    }
    Ok(())
}

fn registry(command: RegistryCommand, data: DataOptions) -> Result<()> {
    let data = DataDir::new(data.data_dir)?;
    match command {
        RegistryCommand::Credentials => {
            println!("{}", read_running(&data.registry_credentials())?.trim());
        }
    }
    Ok(())
}

/// Reads a file that a running server has made.
fn read_running(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| {
        format!(
            "cannot read {}: start a cluster with `coracle up`, or name its --data-dir",
            file.display()
        )
    })
}

async fn tokens(command: TokenCommand, data: DataOptions) -> Result<()> {
    let data = DataDir::new(data.data_dir)?;
    let kubeconfig = serde_yaml::from_str(&read_running(&data.kubeconfig())?)?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    let client = kube::Client::try_from(config)?;
    match command {
        TokenCommand::Create { ttl, description } => {
            let authority = read_running(&data.pki().join("ca.crt"))?;
            let pin = identity::authority::fingerprint(&authority)?;
            let ttl = time_to_live(&ttl)?;
            let token = token::create(&client, &pin, ttl, description.as_deref()).await?;
            println!("{token}");
        }
        TokenCommand::List => {
            println!("{:<10}{:<28}DESCRIPTION", "ID", "EXPIRES");
            for token in token::list(&client).await? {
                let expires = token
                    .expires
                    .map_or("never".to_owned(), |end| format!("{end:.0}"));
                println!("{:<10}{expires:<28}{}", token.id, token.description);
            }
        }
        TokenCommand::Delete { token } => {
            println!("token {} deleted", token::delete(&client, &token).await?);
        }
    }
    Ok(())
}

/// A duration as in Go (`1h30m`); none for 0.
fn time_to_live(text: &str) -> Result<Option<jiff::SignedDuration>> {
    if text == "0" {
        return Ok(None);
    }
    let span: jiff::SignedDuration = text
        .parse()
        .with_context(|| format!("--ttl {text:?} is no duration: try 24h, or 0 for ever"))?;
    anyhow::ensure!(span.is_positive(), "--ttl must be positive, or 0 for ever");
    Ok(Some(span))
}
