//! What the content store knows of an image.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Access, Digest};

/// An image that the store holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredImage {
    /// Digest of the manifest for this platform (`sha256:…`); the image's identity.
    pub digest: String,
    /// What runs it.
    pub kind: ImageKind,
    /// What the image says of how it is to be run; empty for artifacts without such a
    /// configuration.
    pub config: ImageConfig,
    /// Sum of the sizes of its blobs, bytes, as the manifest states them.
    pub size_bytes: u64,
    /// References that lead to it: `registry/repository:tag` and `registry/repository@digest`.
    pub references: Vec<String>,
    /// All blobs that the image needs: manifest, configuration, layers, extracted module.
    pub blobs: Vec<Digest>,
    /// With whose credentials it was pulled, by `registry/repository`. None at all are those of an
    /// image that was there before this was kept.
    #[serde(default)]
    pub pulled: BTreeMap<String, Access>,
}

/// Which runtime an image is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageKind {
    /// A WebAssembly module or component.
    Wasm {
        /// The blob to run: bytes of a module or component.
        module: Digest,
        /// Layers by their title (`org.opencontainers.image.title`), where they have one; for
        /// instance several modules in one artifact, or files beside the module.
        layers: BTreeMap<String, Digest>,
    },
    /// A root file system for a container.
    Container {
        /// Its layers, the lowest first; none where the node has no use for them and did not
        /// fetch them.
        layers: Option<Vec<ImageLayer>>,
    },
}

/// A layer of a root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageLayer {
    /// The blob.
    pub digest: Digest,
    /// Its type.
    pub media_type: String,
    /// Digest of the archive in it, as the image's configuration states it.
    pub diff_id: Digest,
}

impl ImageKind {
    /// Whether the wasm runtime runs it.
    pub fn is_wasm(&self) -> bool {
        matches!(self, Self::Wasm { .. })
    }
}

/// How an image wants to be run (`config` of the OCI image configuration).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageConfig {
    /// Command, unless the container names one.
    pub entrypoint: Vec<String>,
    /// Arguments, unless the container names some.
    pub cmd: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// User, as `user`, `uid`, `user:group` or `uid:gid`; empty if none is named.
    pub user: String,
    /// Working directory; empty if none is named.
    pub working_dir: String,
    /// Signal that asks the container to end, by name or number; empty if none is named.
    pub stop_signal: String,
    /// Folders whose content is to be kept apart from the image's.
    pub volumes: Vec<String>,
}

impl ImageConfig {
    /// What is run: `command` and `args` over the image's entrypoint and cmd, by the rules of the
    /// Pod API: a command discards both of the image's.
    pub fn argv(&self, command: &[String], args: &[String]) -> Vec<String> {
        let (entrypoint, cmd): (&[String], &[String]) = match (command.is_empty(), args.is_empty())
        {
            (false, _) => (command, args),
            (true, false) => (&self.entrypoint, args),
            (true, true) => (&self.entrypoint, &self.cmd),
        };
        entrypoint.iter().chain(cmd).cloned().collect()
    }

    /// The environment: the runtime's own entries, then the image's, then the container's; the
    /// last entry of a name wins and keeps the place of the first.
    pub fn environment(
        &self,
        own: &[(&str, &str)],
        config: &[(String, String)],
    ) -> Vec<(String, String)> {
        let own = own.iter().copied();
        let image = self.env.iter().filter_map(|entry| entry.split_once('='));
        let config = config.iter().map(|(name, value)| (&**name, &**value));
        let mut env: Vec<(String, String)> = Vec::new();
        for (name, value) in own.chain(image).chain(config) {
            match env.iter_mut().find(|(known, _)| known == name) {
                Some(entry) => entry.1 = value.to_owned(),
                None => env.push((name.to_owned(), value.to_owned())),
            }
        }
        env
    }
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
            entrypoint: strings(&["app"]),
            cmd: strings(&["serve"]),
            ..ImageConfig::default()
        };
        let bare = ImageConfig::default();
        for (command, args, image, expected) in [
            (&[][..], &[][..], &image, &["app", "serve"][..]),
            (&[], &["x"], &image, &["app", "x"]),
            (&["y"], &[], &image, &["y"]),
            (&["y"], &["x"], &image, &["y", "x"]),
            (&[], &["x"], &bare, &["x"]),
            (&[], &[], &bare, &[]),
        ] {
            let got = image.argv(&strings(command), &strings(args));
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
        let env = image.environment(&[("HOSTNAME", "pod")], &config);
        let text: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text, ["HOSTNAME=pod", "A=3", "B=2"]);
    }
}
