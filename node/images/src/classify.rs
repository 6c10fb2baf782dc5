//! Decides from a manifest and a configuration what an image is. Pure.

use std::collections::BTreeMap;

use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE, ImageIndexEntry, OciDescriptor,
    OciImageManifest,
};
use serde::Deserialize;

use crate::media_types::{self, is_wasm_layer};
use crate::{Digest, ImageConfig};

/// A layer, with what the manifest says of it checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    pub(crate) title: Option<String>,
}

/// What has to be done with an image.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The layer at this index is the module.
    WasmLayer { module: usize },
    /// The module is the file of this path in the file system that the layers make.
    WasmFile { path: String },
    /// Layers are for the container runtime; the digests of the archives in them, in order.
    Container { diff_ids: Vec<Digest> },
}

/// The image configuration, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigFile {
    architecture: Option<String>,
    os: Option<String>,
    config: Option<RunConfig>,
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RunConfig {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    /// The keys are what counts.
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

/// Checks a descriptor of a manifest.
pub(crate) fn layer(descriptor: &OciDescriptor) -> Result<Layer, String> {
    let title = descriptor.annotations.as_ref().and_then(|annotations| {
        let title = annotations.get(media_types::TITLE)?;
        Some(title.clone())
    });
    Ok(Layer {
        digest: descriptor
            .digest
            .parse()
            .map_err(|error: crate::DigestError| error.to_string())?,
        size: u64::try_from(descriptor.size)
            .map_err(|_| format!("blob {} has a negative size", descriptor.digest))?,
        media_type: descriptor.media_type.clone(),
        title,
    })
}

/// The entry of an index to pull: WebAssembly if there is any, else what this machine's
/// containers run on.
pub(crate) fn choose(entries: &[ImageIndexEntry], architecture: &str) -> Result<usize, String> {
    let platform = |entry: &ImageIndexEntry| {
        let platform = entry.platform.as_ref()?;
        Some((platform.os.to_string(), platform.architecture.to_string()))
    };
    let find = |fits: &dyn Fn(&str, &str) -> bool| {
        entries
            .iter()
            .position(|entry| platform(entry).is_some_and(|(os, arch)| fits(&os, &arch)))
    };
    find(&|os, arch| os.starts_with("wasi") || arch == "wasm" || arch == "wasm32")
        .or_else(|| find(&|os, arch| os == "linux" && arch == architecture))
        // An index of one entry without a platform leaves no choice.
        .or_else(|| match entries {
            [only] if only.platform.is_none() => Some(0),
            _ => None,
        })
        .ok_or_else(|| {
            let offered: Vec<String> = entries
                .iter()
                .filter_map(platform)
                .take(16)
                .map(|(os, arch)| format!("{os}/{arch}"))
                .collect();
            format!(
                "no match for platform wasi/wasm or linux/{architecture} in the image index \
                 (it offers {})",
                offered.join(", ")
            )
        })
}

/// This machine's architecture, in the words of OCI.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What an image is and how it wants to be run.
pub(crate) fn classify(
    manifest: &OciImageManifest,
    layers: &[Layer],
    config: &[u8],
) -> Result<(Plan, ImageConfig), String> {
    let wasm: Vec<usize> = (0..layers.len())
        .filter(|&index| is_wasm_layer(&layers[index].media_type))
        .collect();
    match wasm[..] {
        [module] => return Ok((Plan::WasmLayer { module }, ImageConfig::default())),
        [_, _, ..] => {
            return Err(format!(
                "the artifact has {} WebAssembly layers where one is supported: compose its \
                 components into one",
                wasm.len()
            ));
        }
        [] => {}
    }
    let config_type = manifest.config.media_type.as_str();
    if config_type == media_types::WASM_CONFIG {
        let wasm_layer = media_types::WASM_LAYER;
        return Err(format!(
            "the wasm artifact has no layer of type {wasm_layer}"
        ));
    }
    if ![IMAGE_CONFIG_MEDIA_TYPE, IMAGE_DOCKER_CONFIG_MEDIA_TYPE].contains(&config_type) {
        return Err(format!(
            "neither a wasm artifact nor a container image: its configuration has type \
             {config_type:?}"
        ));
    }
    let file: ConfigFile = serde_json::from_slice(config)
        .map_err(|error| format!("the image configuration is not valid: {error}"))?;
    let run = file.config.unwrap_or_default();
    let mut config = ImageConfig {
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.unwrap_or_default(),
        user: run.user.unwrap_or_default(),
        working_dir: run.working_dir.unwrap_or_default(),
        stop_signal: run.stop_signal.unwrap_or_default(),
        volumes: run.volumes.unwrap_or_default().into_keys().collect(),
    };
    let for_wasm = file.os.is_some_and(|os| os.starts_with("wasi"))
        || file
            .architecture
            .is_some_and(|arch| arch.starts_with("wasm"));
    let command = config.entrypoint.iter().chain(&config.cmd).next();
    match command {
        Some(path) if path.ends_with(".wasm") || for_wasm => {
            let path = if path.starts_with('/') {
                path.clone()
            } else {
                format!("{}/{path}", config.working_dir)
            };
            // The program is the image's whatever a Pod gives it, and none of its arguments.
            if config.entrypoint.is_empty() {
                config.entrypoint = config.cmd.drain(..1).collect();
            }
            Ok((Plan::WasmFile { path }, config))
        }
        None if for_wasm => Err("the wasm image names no entrypoint".into()),
        _ => {
            let diff_ids = file.rootfs.diff_ids;
            if diff_ids.len() != layers.len() {
                return Err(format!(
                    "the image has {} layers, and its configuration names {}",
                    layers.len(),
                    diff_ids.len()
                ));
            }
            let parsed = diff_ids.iter().map(|id| id.parse::<Digest>());
            let diff_ids = parsed.collect::<Result<_, _>>();
            let diff_ids = diff_ids.map_err(|error| error.to_string())?;
            Ok((Plan::Container { diff_ids }, config))
        }
    }
}

/// Layers by title, see [`crate::ImageKind::Wasm`].
pub(crate) fn titles(layers: &[Layer]) -> BTreeMap<String, Digest> {
    layers
        .iter()
        .filter_map(|layer| Some((layer.title.clone()?, layer.digest.clone())))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(config_type: &str, layer_types: &[&str], config: serde_json::Value) -> String {
        let digest = Digest::of(b"").to_string();
        let manifest: OciImageManifest = serde_json::from_value(json!({
            "schemaVersion": 2,
            "config": {"mediaType": config_type, "digest": digest, "size": 2},
            "layers": layer_types
                .iter()
                .map(|t| json!({"mediaType": t, "digest": digest, "size": 1}))
                .collect::<Vec<_>>(),
        }))
        .unwrap();
        let layers: Vec<Layer> = manifest.layers.iter().map(|l| layer(l).unwrap()).collect();
        match classify(&manifest, &layers, config.to_string().as_bytes()) {
            Ok((plan, _)) => format!("{plan:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn table() {
        const IMAGE: &str = IMAGE_CONFIG_MEDIA_TYPE;
        const TAR: &str = media_types::OCI_LAYER_GZIP;
        let entry = |value| json!({"os": "linux", "config": {"Entrypoint": value}});
        let rootfs = |diff_ids| json!({"os": "linux", "rootfs": {"diff_ids": diff_ids}});
        let id = Digest::of(b"").to_string();
        for (config_type, layers, config, expected) in [
            (
                media_types::WASM_CONFIG,
                vec!["application/wasm"],
                json!({}),
                "WasmLayer { module: 0 }",
            ),
            (
                "application/vnd.wasm.config.v1+json",
                vec!["application/vnd.wasm.content.layer.v1+wasm"],
                json!({}),
                "WasmLayer { module: 0 }",
            ),
            (
                "application/vnd.oci.empty.v1+json",
                vec![
                    "text/plain",
                    "application/vnd.module.wasm.content.layer.v1+wasm",
                ],
                json!({}),
                "WasmLayer { module: 1 }",
            ),
            (
                media_types::WASM_CONFIG,
                vec!["application/wasm"; 2],
                json!({}),
                "2 WebAssembly layers",
            ),
            (
                media_types::WASM_CONFIG,
                vec!["text/plain"],
                json!({}),
                "no layer of type",
            ),
            (
                IMAGE,
                vec![TAR],
                entry(json!(["/app.wasm", "-v"])),
                "path: \"/app.wasm\"",
            ),
            (
                IMAGE,
                vec![TAR],
                json!({"config": {"Cmd": ["app.wasm"], "WorkingDir": "/srv"}}),
                "path: \"/srv/app.wasm\"",
            ),
            (
                IMAGE,
                vec![TAR],
                json!({"os": "wasip1", "config": {"Entrypoint": ["/app"]}}),
                "path: \"/app\"",
            ),
            (
                IMAGE,
                vec![TAR],
                json!({"architecture": "wasm", "os": "linux"}),
                "names no entrypoint",
            ),
            (IMAGE, vec![TAR], rootfs(json!([id])), "Container"),
            (IMAGE, vec![], entry(json!(["/bin/sh"])), "Container"),
            (IMAGE, vec![TAR], entry(json!(null)), "names 0"),
            (IMAGE, vec![], rootfs(json!([id])), "names 1"),
            (
                IMAGE,
                vec![TAR],
                rootfs(json!(["sha512:00"])),
                "not supported",
            ),
            (IMAGE, vec![TAR], json!([1]), "not valid"),
            (
                "application/vnd.cncf.helm.config.v1+json",
                vec![TAR],
                json!({}),
                "neither a wasm artifact nor a container image",
            ),
        ] {
            let found = check(config_type, &layers, config);
            assert!(found.contains(expected), "{found} lacks {expected}");
        }
    }

    #[test]
    fn the_program_of_a_guest_is_no_argument() {
        let digest = Digest::of(b"").to_string();
        let of_type = |of: &str| json!({"mediaType": of, "digest": digest, "size": 2});
        let manifest = serde_json::from_value(json!({
            "schemaVersion": 2, "config": of_type(IMAGE_CONFIG_MEDIA_TYPE), "layers": [],
        }));
        let manifest: OciImageManifest = manifest.unwrap();
        for (config, entrypoint, cmd) in [
            (json!({"Cmd": ["app.wasm", "-v"]}), &["app.wasm"], &["-v"]),
            (
                json!({"Entrypoint": ["app.wasm"], "Cmd": ["-v"]}),
                &["app.wasm"],
                &["-v"],
            ),
        ] {
            let file = json!({"config": config}).to_string();
            let (_, config) = classify(&manifest, &[], file.as_bytes()).unwrap();
            assert_eq!(config.entrypoint, entrypoint);
            assert_eq!(config.cmd, cmd);
        }
    }

    #[test]
    fn platforms() {
        let choose = |platforms: &[Option<(&str, &str)>]| {
            let entries: Vec<ImageIndexEntry> = platforms
                .iter()
                .map(|platform| {
                    let platform = platform
                        .map(|(os, architecture)| json!({"os": os, "architecture": architecture}));
                    let mut entry = json!({"mediaType": "", "digest": "", "size": 1});
                    if let Some(platform) = platform {
                        entry["platform"] = platform;
                    }
                    serde_json::from_value(entry).unwrap()
                })
                .collect();
            choose(&entries, "amd64")
        };
        let (amd, arm) = (Some(("linux", "amd64")), Some(("linux", "arm64")));
        let unknown = Some(("unknown", "unknown"));
        assert_eq!(choose(&[arm, amd, unknown]), Ok(1));
        assert_eq!(choose(&[amd, Some(("wasi", "wasm"))]), Ok(1));
        assert_eq!(choose(&[amd, Some(("wasip2", "wasm"))]), Ok(1));
        assert_eq!(choose(&[None]), Ok(0));
        assert!(choose(&[arm]).unwrap_err().contains("linux/arm64"));
        assert!(choose(&[]).is_err());
    }
}
