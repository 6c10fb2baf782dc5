//! The network of Pods, as a plugin that the runtime executes (the CNI specification).
//!
//! A runtime of the machine gives a Pod a network namespace of its own making and has plugins furnish
//! it; there is no way to hand it one. Ours has none to furnish: the node's network has made the
//! Pod's already, with its address, its routes and what knows it by those, and guests of the Pod may
//! live there. So the plugin mounts the node's namespace over the runtime's, and whoever joins the
//! Pod by that path joins the Pod:
//!
//! ```text
//!  agent                             runtime                       plugin (this program)
//!  network: /run/netns/cor…
//!  writes network/UID.json
//!  RunPodSandbox ──────────────────► makes /run/netns/cni-…
//!                                    ADD ────────────────────────► reads network/UID.json, mounts
//!                                                                  /run/netns/cor… on …/cni-…
//!                                    runs containers in …/cni-…
//!  StopPodSandbox ─────────────────► DEL ────────────────────────► unmounts it
//!                                    removes /run/netns/cni-…
//! ```
//!
//! The runtime finds it like every add-on for networks, by a file in its folder of networks. Whatever
//! else is configured there stays, and serves nobody while ours comes first. Where the node's network
//! has no namespaces, the runtime's is left as it is, with a loopback interface alone.
//!
//! **Invariant:** the plugin asks nobody: a Pod ends also while no agent is there.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coracle_runtime::{disk, mountinfo};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Name of the plugin, by which the runtime executes it.
const PLUGIN: &str = "coracle-cni";
/// Name of the file in the runtime's folder of networks: the first one counts.
const NETWORK: &str = "00-coracle.conflist";
/// The version of the specification that all runtimes of CRI v1 know.
const VERSION: &str = "0.4.0";

/// What the plugin is told of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    /// Its namespace, if the node's network has made one.
    pub(crate) namespace: Option<PathBuf>,
    /// Its addresses.
    pub(crate) ips: Vec<IpAddr>,
}

impl PodRecord {
    /// The file of a Pod in the folder of records.
    pub(crate) fn path(folder: &Path, uid: &str) -> PathBuf {
        folder.join(format!("{uid}.json"))
    }
}

/// Whether a UID can be a part of a file's name.
pub(crate) fn is_uid(uid: &str) -> bool {
    !uid.is_empty() && !uid.starts_with('.') && !uid.contains('/')
}

/// Makes the plugin known to a runtime: `folder` has the records of Pods.
pub(crate) fn install(
    networks: &Path,
    plugins: &Path,
    exe: &Path,
    folder: &Path,
) -> Result<(), String> {
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let file = networks.join(NETWORK);
    let known = fs::read(&file).ok();
    let known = known.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    if let Some(other) = known
        .as_ref()
        .and_then(|of| of["plugins"][0]["pods"].as_str())
        && Path::new(other) != folder
        && Path::new(other).exists()
    {
        return Err(format!(
            "the container runtime serves the node of {other} already: give this one another \
             runtime, or end that node with coracle reset"
        ));
    }
    if let Some(first) = others(networks).into_iter().find(|name| &**name < NETWORK) {
        return Err(format!(
            "{} comes before the network of this node's Pods, {NETWORK}: rename or remove it",
            networks.join(first).display()
        ));
    }
    fs::create_dir_all(plugins).map_err(|error| failed(plugins, error))?;
    let link = plugins.join(PLUGIN);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&link, error)),
        _ => {}
    }
    std::os::unix::fs::symlink(exe, &link).map_err(|error| failed(&link, error))?;
    let network = json!({
        "cniVersion": VERSION,
        "name": "coracle",
        "plugins": [{"type": PLUGIN, "pods": folder}],
    });
    fs::create_dir_all(networks).map_err(|error| failed(networks, error))?;
    disk::write_json(&file, &network).map_err(|error| failed(&file, error))
}

/// Other networks of a folder, sorted.
fn others(networks: &Path) -> Vec<String> {
    let entries = fs::read_dir(networks).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_network = |name: &String| {
        let kind = Path::new(name).extension().and_then(OsStr::to_str);
        matches!(kind, Some("conf" | "conflist" | "json")) && name != NETWORK
    };
    let mut found: Vec<String> = names.filter(is_network).collect();
    found.sort();
    found
}

/// Takes away what [`install`] has put there, unless it is another node's.
pub(crate) fn uninstall(networks: &Path, plugins: &Path, folder: &Path) -> io::Result<()> {
    let gone = |removed: io::Result<()>| match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let file = networks.join(NETWORK);
    let known: Option<Value> = disk::read_json(&file)?;
    let ours = known.is_some_and(|known| known["plugins"][0]["pods"] == json!(folder));
    if ours {
        gone(fs::remove_file(&file))?;
        gone(fs::remove_file(plugins.join(PLUGIN)))?;
    }
    Ok(())
}

/// Runs the plugin if this program was executed by its name. To be called before a runtime or any
/// thread is started; `None` means that this is not for us.
pub fn plugin(program: Option<&OsStr>) -> Option<ExitCode> {
    if Path::new(program?).file_name()? != PLUGIN {
        return None;
    }
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let answer = answer(&Call {
        command: variable("CNI_COMMAND"),
        namespace: variable("CNI_NETNS"),
        interface: variable("CNI_IFNAME"),
        arguments: variable("CNI_ARGS"),
    });
    let (text, code) = match answer {
        Ok(None) => return Some(ExitCode::SUCCESS),
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(message) => (
            // From 100 on codes are a plugin's own.
            json!({"cniVersion": VERSION, "code": 100, "msg": message}),
            ExitCode::FAILURE,
        ),
    };
    println!("{text}");
    Some(code)
}

/// What the plugin is asked.
struct Call {
    command: String,
    namespace: String,
    interface: String,
    arguments: String,
}

fn answer(call: &Call) -> Result<Option<Value>, String> {
    match &*call.command {
        "VERSION" => Ok(Some(json!({
            "cniVersion": VERSION,
            "supportedVersions": ["0.3.1", VERSION, "1.0.0"],
        }))),
        "ADD" => add(call).map(Some),
        "DEL" => del(&call.namespace).map(|()| None),
        "CHECK" | "GC" | "STATUS" => Ok(None),
        other => Err(format!("{other:?} is no command of the CNI")),
    }
}

#[derive(Deserialize)]
struct Network {
    #[serde(rename = "cniVersion", default)]
    version: String,
    pods: PathBuf,
}

fn add(call: &Call) -> Result<Value, String> {
    let mut text = Vec::new();
    let read = io::stdin().lock().take(1 << 20).read_to_end(&mut text);
    read.map_err(|error| format!("reading the network's configuration: {error}"))?;
    let network: Network = serde_json::from_slice(&text)
        .map_err(|error| format!("the network's configuration does not read: {error}"))?;
    let uid = argument(&call.arguments, "K8S_POD_UID");
    let uid = uid.filter(|uid| is_uid(uid));
    let uid = uid.ok_or("the runtime does not say whose sandbox it is (K8S_POD_UID)")?;
    let record: Option<PodRecord> = disk::read_json(&PodRecord::path(&network.pods, uid))
        .map_err(|error| format!("reading what is known of Pod {uid}: {error}"))?;
    let record = record.ok_or_else(|| {
        format!("Pod {uid} is not one of the node to which this runtime's network belongs")
    })?;
    if let Some(namespace) = &record.namespace {
        mount_bind(namespace, Path::new(&call.namespace)).map_err(|error| {
            let namespace = namespace.display();
            format!("mounting {namespace} on {}: {error}", call.namespace)
        })?;
    }
    Ok(result(call, &network.version, &record))
}

/// What the runtime hears of a Pod.
fn result(call: &Call, version: &str, record: &PodRecord) -> Value {
    let ips = record.ips.iter().map(|ip| {
        let (family, bits) = match ip {
            IpAddr::V4(_) => ("4", 32),
            IpAddr::V6(_) => ("6", 128),
        };
        json!({"version": family, "address": format!("{ip}/{bits}"), "interface": 0})
    });
    json!({
        "cniVersion": if version.is_empty() { VERSION } else { version },
        "interfaces": [{"name": call.interface, "sandbox": call.namespace}],
        "ips": ips.collect::<Vec<Value>>(),
        "dns": {},
    })
}

/// Takes away what lies on the runtime's namespace. There may be none any more.
fn del(namespace: &str) -> Result<(), String> {
    if namespace.is_empty() {
        return Ok(());
    }
    let failed = |error: io::Error| format!("unmounting what is on {namespace}: {error}");
    let path = match Path::new(namespace).canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        path => path.map_err(failed)?,
    };
    let mounts = mountinfo::of_this_process().map_err(failed)?;
    // The lowest one is the runtime's own.
    let ours = mounts.iter().filter(|mount| mount.path == path).skip(1);
    for _ in ours {
        unmount(&path, UnmountFlags::DETACH).map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// The value of a name in `A=b;C=d`.
fn argument<'a>(arguments: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
    pairs
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_finds_the_plugin_and_forgets_it() {
        let root = tempfile::tempdir().unwrap();
        let [networks, plugins, pods] = ["net.d", "bin", "pods"].map(|name| root.path().join(name));
        fs::create_dir_all(&pods).unwrap();
        let install = |pods: &Path| install(&networks, &plugins, Path::new("/exe"), pods);
        for _ in 0..2 {
            install(&pods).unwrap();
        }
        assert_eq!(
            fs::read_link(plugins.join(PLUGIN)).unwrap(),
            Path::new("/exe")
        );
        fs::write(networks.join("10-other.conflist"), "{}").unwrap();
        install(&pods).unwrap();
        let other = root.path().join("other");
        let error = install(&other).unwrap_err();
        assert!(error.contains("serves the node of"), "{error}");
        uninstall(&networks, &plugins, &other).unwrap();
        assert!(networks.join(NETWORK).exists(), "it is another's");
        fs::write(networks.join("00-a.conf"), "{}").unwrap();
        let error = install(&pods).unwrap_err();
        assert!(error.contains("00-a.conf"), "{error}");
        for _ in 0..2 {
            uninstall(&networks, &plugins, &pods).unwrap();
        }
        assert!(!networks.join(NETWORK).exists() && !plugins.join(PLUGIN).exists());
        assert!(networks.join("10-other.conflist").exists());
    }

    #[test]
    fn the_plugin_says_what_a_pod_has() {
        let call = |command: &str| Call {
            command: command.into(),
            namespace: String::new(),
            interface: "eth0".into(),
            arguments: String::new(),
        };
        assert_eq!(plugin(Some(OsStr::new("/usr/bin/coracle"))), None);
        assert!(answer(&call("VERSION")).unwrap().is_some());
        assert_eq!(answer(&call("DEL")), Ok(None));
        assert!(answer(&call("JUMP")).is_err());
        let record = PodRecord {
            namespace: None,
            ips: vec![[10, 42, 0, 7].into()],
        };
        let said = result(&call("ADD"), "1.0.0", &record);
        assert_eq!(said["ips"][0]["address"], "10.42.0.7/32");
        assert_eq!(said["cniVersion"], "1.0.0");
        assert_eq!(said["interfaces"][0]["name"], "eth0");
        let arguments = "IgnoreUnknown=1;K8S_POD_UID=a-b;K8S_POD_NAME=n";
        assert_eq!(argument(arguments, "K8S_POD_UID"), Some("a-b"));
        assert_eq!(argument(arguments, "K8S_POD"), None);
    }
}
