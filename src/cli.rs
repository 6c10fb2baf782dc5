//! The command line. Flags follow k3s where k3s has the same thing.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::Ipv4Net;

use crate::api_server::ApiOptions;
use crate::defaults;
use crate::kubelet_args::KubeletArg;

/// A Kubernetes that runs WebAssembly first and OCI containers beside it.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a whole cluster on this machine, in the foreground
    Up(UpOptions),
    /// Start a control-plane member, and a node unless --no-node is given
    Server(ServerOptions),
    /// Start a worker node and join it to a server
    Agent(AgentOptions),
    /// Push a wasm file, or the guests of a sample's folder, to the embedded registry
    Push(PushOptions),
    /// End the Pods that a stopped node has left, and remove its mounts and its network
    Reset(ResetOptions),
    /// Show the admin's kubeconfig
    Kubeconfig {
        /// Print where it is instead of what it says
        #[arg(long)]
        path: bool,
        #[command(flatten)]
        data: DataOptions,
    },
    /// Manage the tokens with which nodes join
    Token {
        #[command(subcommand)]
        command: TokenCommand,
        #[command(flatten)]
        data: DataOptions,
    },
    /// Work with the embedded registry
    Registry {
        #[command(subcommand)]
        command: RegistryCommand,
        #[command(flatten)]
        data: DataOptions,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DataOptions {
    /// Folder that holds everything; default $XDG_DATA_HOME/coracle (~/.local/share/coracle), as root
    /// /var/lib/coracle
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LogOptions {
    /// What to log to standard error: error, warn, info, debug, or a tracing filter
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// What `up` and `server` have in common.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeOptions {
    #[command(flatten)]
    pub(crate) data: DataOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) listen: ListenOptions,
    #[command(flatten)]
    pub(crate) api: ApiOptions,
    #[command(flatten)]
    pub(crate) cluster: ClusterOptions,
    #[command(flatten)]
    pub(crate) service_accounts: ServiceAccountOptions,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    pub(crate) serve: ServeOptions,
    /// Nodes to start
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1))]
    pub(crate) nodes: u32,
    /// A manifest, or a folder of manifests and guests, to deploy; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) apply: Vec<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListenOptions {
    /// Address of the API server
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6443")]
    pub(crate) listen: SocketAddr,
    /// Address of the embedded registry
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5000")]
    pub(crate) registry_listen: SocketAddr,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterOptions {
    /// Range of the addresses of Pods
    #[arg(long, value_name = "CIDR", default_value = defaults::CLUSTER_CIDR)]
    pub(crate) cluster_cidr: Ipv4Net,
    /// Range of the addresses of Services
    #[arg(long, value_name = "CIDR", default_value = defaults::SERVICE_CIDR)]
    pub(crate) service_cidr: Ipv4Net,
    /// Prefix length of a node's part of --cluster-cidr; default 24, for `up` 18
    #[arg(long, value_name = "BITS")]
    pub(crate) node_cidr_mask_size: Option<u8>,
}

/// Tokens of service accounts, with Kubernetes' flags.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServiceAccountOptions {
    /// Issuer of tokens of service accounts, a URL; where it is repeated, the first is written into
    /// tokens and all are believed
    #[arg(long, value_name = "URL", default_value = defaults::SERVICE_ACCOUNT_ISSUER)]
    pub(crate) service_account_issuer: Vec<String>,
    /// File with the private key (PEM, PKCS#8, RSA or ECDSA) of new tokens; default one in the
    /// data directory
    #[arg(long, value_name = "FILE")]
    pub(crate) service_account_signing_key_file: Option<PathBuf>,
    /// File with keys (PEM, public or private) by which tokens are believed beside that of new
    /// ones; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) service_account_key_file: Vec<PathBuf>,
    /// Audiences that mean the API server, by comma; default the issuer
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) api_audiences: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct NodeOptions {
    /// Name of the node; default the host's name
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Address of the node; default that of the interface with the default route
    #[arg(long, value_name = "IP")]
    pub(crate) node_ip: Option<IpAddr>,
    /// Pods that the node takes at most; default 110, for `up` 16000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_pods: Option<u32>,
    /// Whether Pods get a network namespace: where the node has the rights for it, always, or
    /// never
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub(crate) pod_network: PodNetworkForm,
    /// Socket of a container runtime of the machine (CRI v1, as containerd's
    /// unix:///run/containerd/containerd.sock) that runs containers in place of the built-in one
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) container_runtime_endpoint: Option<String>,
    /// A flag of the kubelet, as image-gc-high-threshold=85; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) kubelet_arg: Vec<KubeletArg>,
    /// Port of the kubelet's API; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    pub(crate) kubelet_port: Option<u16>,
}

/// Where the addresses of Pods are.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum PodNetworkForm {
    /// Namespaced as root, else virtual
    #[default]
    Auto,
    /// In a network namespace of the node's Pods
    Namespaced,
    /// On this machine's loopback, behind a map
    Virtual,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServerOptions {
    #[command(flatten)]
    pub(crate) serve: ServeOptions,
    /// Do not run a node here
    #[arg(long)]
    pub(crate) no_node: bool,
    /// Another name or address for the serving certificate; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) tls_san: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct AgentOptions {
    #[command(flatten)]
    pub(crate) data: DataOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// The server to join, https://HOST:PORT
    #[arg(long, short, value_name = "URL")]
    pub(crate) server: url::Url,
    /// The token from `coracle token create`; needed at the first start
    #[arg(long, short, value_name = "TOKEN", conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// A file that holds the token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PushOptions {
    #[command(flatten)]
    pub(crate) data: DataOptions,
    /// A .wasm file, or a folder with guests and the manifests that name them
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Name of the image, as in app:v1; a folder's manifests name theirs
    #[arg(value_name = "IMAGE")]
    pub(crate) image: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ResetOptions {
    #[command(flatten)]
    pub(crate) data: DataOptions,
    /// Delete the data directory too: objects, keys, images, volumes
    #[arg(long)]
    pub(crate) delete_data: bool,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it
    Create {
        /// How long it is valid, as in 30m or 24h; 0 is for ever
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        ttl: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// List tokens
    List,
    /// Delete a token, by its id or whole
    Delete {
        /// The token
        token: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Print the user:password with which to push
    Credentials,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let Command::Up(up) =
            Cli::parse_from(["coracle", "up", "--apply", "a", "--apply", "b"]).command
        else {
            panic!("up");
        };
        let listen = up.serve.listen;
        assert_eq!(listen.listen.to_string(), "127.0.0.1:6443");
        assert_eq!(listen.registry_listen.to_string(), "127.0.0.1:5000");
        assert_eq!(up.apply.len(), 2);
        assert!(Cli::try_parse_from(["coracle", "up", "--nodes", "2"]).is_err());
    }
}
