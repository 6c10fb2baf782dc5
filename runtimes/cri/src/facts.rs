//! What a runtime says of itself when a node begins to use it: its version, its handlers, where it
//! looks for the network, and how it names control groups.
//!
//! The interface has a part of that; the rest is in the JSON that containerd gives beside it, and
//! where others say nothing, what is usual is taken.

use std::path::PathBuf;

use coracle_runtime::grpc::{Status, UNIMPLEMENTED};
use serde_json::Value;

use crate::client::Client;
use crate::wire::{
    Empty, IMAGE_FS_INFO, RUNTIME_CONFIG, STATUS, StatusRequest, StatusResponse, VERSION,
    VersionRequest, cgroup_driver,
};

/// What is known of a runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// `containerd://1.7.2`.
    pub(crate) version: String,
    /// Its handlers, without the default one.
    pub(crate) handlers: Vec<String>,
    /// Whether systemd keeps its control groups.
    pub(crate) systemd: bool,
    /// Whether it makes mounts read-only at all depths.
    pub(crate) recursive_read_only: bool,
    /// Whether it can leave out the groups of images, and tells as whom containers began.
    pub(crate) strict_groups: bool,
    /// Where it looks for networks, and for the programs that make them.
    pub(crate) network_folder: PathBuf,
    pub(crate) plugins_folder: PathBuf,
    /// Where images are unpacked.
    pub(crate) images_folder: Option<PathBuf>,
}

/// Asks a runtime; the error is one line that says what is wrong with the endpoint.
pub(crate) async fn ask(client: &Client, endpoint: &str) -> Result<Facts, String> {
    let failed = |status: Status| match status.code {
        UNIMPLEMENTED => format!(
            "what listens at {endpoint} does not serve runtime.v1.RuntimeService (CRI v1): is it a \
             container runtime, and is its CRI not disabled? {}",
            status.message
        ),
        _ => format!(
            "no container runtime answers at {endpoint}: {}",
            status.message
        ),
    };
    let request = VersionRequest {
        version: "v1".into(),
    };
    let version = client.call(VERSION, &request).await.map_err(failed)?;
    let verbose = StatusRequest { verbose: true };
    let status = client.call(STATUS, &verbose).await.map_err(failed)?;
    // Runtimes before that call have the driver in what they say of themselves.
    let driver = client.call(RUNTIME_CONFIG, &Empty {}).await.ok();
    let disk = client.call(IMAGE_FS_INFO, &Empty {}).await;
    let disk = disk.map_err(failed)?;
    let not_ready = condition(&status, "RuntimeReady").err();
    if let Some(why) = not_ready {
        return Err(format!(
            "the container runtime at {endpoint} is not ready: {why}"
        ));
    }
    let mut facts = read(&status);
    facts.version = format!("{}://{}", version.runtime_name, version.runtime_version);
    if let Some(linux) = driver.and_then(|config| config.linux) {
        facts.systemd = linux.cgroup_driver == cgroup_driver::SYSTEMD;
    }
    let disk = disk.image_filesystems.into_iter().next();
    let folder = disk.and_then(|disk| disk.fs_id).map(|id| id.mountpoint);
    facts.images_folder = folder.map(PathBuf::from);
    Ok(facts)
}

/// Whether a condition is met; the error says why not.
pub(crate) fn condition(status: &StatusResponse, kind: &str) -> Result<(), String> {
    let conditions = status.status.iter().flat_map(|status| &status.conditions);
    let Some(condition) = conditions.into_iter().find(|known| known.kind == kind) else {
        return Err(format!("it does not say whether it has {kind}"));
    };
    match condition.status {
        true => Ok(()),
        false => Err(format!("{} {}", condition.reason, condition.message)),
    }
}

/// What a status says.
fn read(status: &StatusResponse) -> Facts {
    let config = status.info.get("config");
    let config: Value = config
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let runtimes = config.pointer("/containerd/runtimes");
    let runtimes = runtimes.and_then(Value::as_object);
    let default = config.pointer("/containerd/defaultRuntimeName");
    let default = default.and_then(Value::as_str).unwrap_or("runc");
    let systemd = runtimes
        .and_then(|all| all.get(default))
        .and_then(|runtime| runtime.pointer("/options/SystemdCgroup"));
    let mut handlers: Vec<String> = status
        .runtime_handlers
        .iter()
        .map(|handler| handler.name.clone())
        .chain(runtimes.into_iter().flat_map(|all| all.keys().cloned()))
        .filter(|name| !name.is_empty())
        .collect();
    handlers.sort();
    handlers.dedup();
    let text = |pointer: &str| config.pointer(pointer).and_then(Value::as_str);
    let folder = |found: Option<&str>, usual: &str| {
        PathBuf::from(found.filter(|path| !path.is_empty()).unwrap_or(usual))
    };
    let usual = status.runtime_handlers.iter().find(|handler| {
        // The default one has no name.
        handler.name.is_empty()
    });
    let features = usual.and_then(|handler| handler.features.as_ref());
    Facts {
        version: String::new(),
        handlers,
        systemd: systemd.and_then(Value::as_bool) == Some(true),
        recursive_read_only: features.is_some_and(|of| of.recursive_read_only_mounts),
        strict_groups: status
            .features
            .as_ref()
            .is_some_and(|of| of.supplemental_groups_policy),
        network_folder: folder(text("/cni/confDir"), "/etc/cni/net.d"),
        plugins_folder: folder(
            text("/cni/binDirs/0").or(text("/cni/binDir")),
            "/opt/cni/bin",
        ),
        images_folder: None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use crate::wire::{
        RuntimeCondition, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus,
    };

    use super::*;

    #[test]
    fn containerd_says_what_the_interface_has_not() {
        let config = json!({
            "containerd": {
                "defaultRuntimeName": "runc",
                "runtimes": {
                    "runc": {"options": {"SystemdCgroup": true}},
                    "runsc": {"options": null},
                },
            },
            "cni": {"binDir": "/usr/lib/cni", "confDir": "/etc/cni/own.d"},
        });
        let status = StatusResponse {
            info: [("config".into(), config.to_string())].into(),
            ..Default::default()
        };
        let found = read(&status);
        assert_eq!(found.handlers, ["runc", "runsc"]);
        assert!(found.systemd && !found.recursive_read_only && !found.strict_groups);
        assert_eq!(found.plugins_folder, Path::new("/usr/lib/cni"));
        assert_eq!(found.network_folder, Path::new("/etc/cni/own.d"));
    }

    #[test]
    fn where_nothing_is_said_the_usual_is_taken() {
        let handler = |name: &str, all_depths| RuntimeHandler {
            name: name.into(),
            features: Some(RuntimeHandlerFeatures {
                recursive_read_only_mounts: all_depths,
            }),
        };
        let status = StatusResponse {
            runtime_handlers: vec![handler("", true), handler("kata", false)],
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
            }),
            ..Default::default()
        };
        let found = read(&status);
        assert_eq!(found.handlers, ["kata"]);
        assert!(found.recursive_read_only && !found.systemd && found.strict_groups);
        assert_eq!(found.network_folder, Path::new("/etc/cni/net.d"));
        assert_eq!(found.plugins_folder, Path::new("/opt/cni/bin"));
    }

    #[test]
    fn conditions_say_why_they_are_not_met() {
        let of = |status: bool| StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![RuntimeCondition {
                    kind: "NetworkReady".into(),
                    status,
                    reason: "NetworkPluginNotReady".into(),
                    message: "no config".into(),
                }],
            }),
            ..Default::default()
        };
        assert_eq!(condition(&of(true), "NetworkReady"), Ok(()));
        let why = condition(&of(false), "NetworkReady");
        assert_eq!(why, Err("NetworkPluginNotReady no config".into()));
        assert!(condition(&of(true), "RuntimeReady").is_err());
    }
}
