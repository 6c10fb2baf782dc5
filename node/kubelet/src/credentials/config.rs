//! The file that says which plugins give credentials: `CredentialProviderConfig` of
//! `kubelet.config.k8s.io/v1`.
//!
//! Deliberately absent: `tokenAttributes`, by which a plugin gets tokens of ServiceAccounts; a file
//! that has them is refused.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_apimachinery::{duration, yaml};
use serde::Deserialize;
use serde_json::Value;

const CONFIG: (&str, &str) = ("kubelet.config.k8s.io/v1", "CredentialProviderConfig");
/// What requests and answers of plugins are written in.
pub(super) const PROTOCOL: &str = "credentialprovider.kubelet.k8s.io/v1";

/// A plugin, and the images for which it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialProvider {
    /// The program.
    pub(super) program: PathBuf,
    /// Patterns of repositories.
    pub(super) images: Vec<String>,
    /// How long an answer holds that does not say so itself.
    pub(super) cached_for: Duration,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
}

/// Plugins that give credentials for pulls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialPolicy {
    /// The file that names them, or a folder of such files.
    pub config: Option<PathBuf>,
    /// The folder in which they lie.
    pub bin_dir: Option<PathBuf>,
    /// Them, once read.
    pub(crate) providers: Vec<CredentialProvider>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    providers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    token_attributes: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

impl CredentialPolicy {
    /// Reads the file, and looks for the plugins.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn load(&mut self) -> Result<(), String> {
        let (config, folder) = match (&self.config, &self.bin_dir) {
            (None, None) => return Ok(()),
            (Some(config), Some(folder)) => (config, folder),
            _ => {
                return Err("image-credential-provider-config and \
                    image-credential-provider-bin-dir go together"
                    .to_owned());
            }
        };
        let mut entries = Vec::new();
        for file in files(config)? {
            let text = std::fs::read_to_string(&file);
            let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            let read = read(&file.to_string_lossy(), &text);
            entries.extend(read.map_err(|error| format!("{}: {error}", file.display()))?);
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = entries.iter().find(|entry| !names.insert(&*entry.name)) {
            return Err(format!("there are two providers {:?}", twice.name));
        }
        self.providers = entries
            .into_iter()
            .map(|entry| entry.provider(folder))
            .collect::<Result<_, _>>()?;
        Ok(())
    }
}

/// The file, or those of the folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error| format!("cannot read {}: {error}", path.display());
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        let kind = file.extension().and_then(|of| of.to_str());
        if matches!(kind, Some("json" | "yaml" | "yml")) {
            files.push(file);
        }
    }
    files.sort();
    match files.is_empty() {
        true => Err(format!("there is no .yaml or .json in {}", path.display())),
        false => Ok(files),
    }
}

fn read(name: &str, text: &str) -> Result<Vec<Entry>, String> {
    let value = yaml::read_one(name, text).map_err(|error| error.reason)?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let is = (field("apiVersion"), field("kind"));
    if is != CONFIG {
        return Err(format!(
            "it is no {} of {}, but {:?} of {:?}",
            CONFIG.1, CONFIG.0, is.1, is.0
        ));
    }
    let file: File = serde_json::from_value(value).map_err(|error| error.to_string())?;
    match file.providers.is_empty() {
        true => Err("providers: at least one is required".to_owned()),
        false => Ok(file.providers),
    }
}

impl Entry {
    fn provider(self, folder: &Path) -> Result<CredentialProvider, String> {
        let name = self.name.clone();
        self.check()
            .map_err(|error| format!("provider {name:?}: {error}"))?;
        let program = folder.join(&self.name);
        let metadata = std::fs::metadata(&program);
        let metadata =
            metadata.map_err(|error| format!("plugin {}: {error}", program.display()))?;
        if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
            return Err(format!("plugin {} is no program", program.display()));
        }
        Ok(CredentialProvider {
            program,
            cached_for: period(self.default_cache_duration.as_deref()).unwrap_or_default(),
            images: self.match_images,
            arguments: self.args,
            environment: self.env.into_iter().map(|of| (of.name, of.value)).collect(),
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.name.is_empty()
            || self.name.contains(['/', ' '])
            || [".", ".."].contains(&&*self.name)
        {
            return Err("a name is that of a file, without spaces".to_owned());
        }
        if self.api_version != PROTOCOL {
            return Err(format!(
                "apiVersion {:?}: supported is {PROTOCOL:?}",
                self.api_version
            ));
        }
        if self.match_images.is_empty() {
            return Err("matchImages: at least one is required".to_owned());
        }
        let odd = |image: &&String| image.is_empty() || image.contains("://");
        if let Some(image) = self.match_images.iter().find(odd) {
            return Err(format!(
                "matchImages {image:?}: a registry without a scheme is expected"
            ));
        }
        if self.default_cache_duration.is_none() {
            return Err("defaultCacheDuration is required".to_owned());
        }
        if period(self.default_cache_duration.as_deref()).is_none() {
            return Err("defaultCacheDuration is no duration, as 10m".to_owned());
        }
        if let Some(odd) = self
            .env
            .iter()
            .find(|of| of.name.is_empty() || of.name.contains('='))
        {
            return Err(format!("env {:?} is no name of a variable", odd.name));
        }
        match &self.token_attributes {
            Some(_) => Err("tokenAttributes are not supported on this node".to_owned()),
            None => Ok(()),
        }
    }
}

/// A duration of Go that is not negative.
pub(super) fn period(text: Option<&str>) -> Option<Duration> {
    let nanos = duration::parse(text?)?;
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n\
        providers:\n- name: helper\n  apiVersion: credentialprovider.kubelet.k8s.io/v1\n  \
        matchImages: ['*.r.example', 'q.example:5000/team']\n  defaultCacheDuration: 1m\n  \
        args: [get]\n  env: [{name: A, value: b}]\n";

    fn load(text: &str) -> Result<Vec<CredentialProvider>, String> {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("helper"), "").unwrap();
        std::fs::set_permissions(at("helper"), PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(at("data"), "").unwrap();
        std::fs::write(at("config.yaml"), text).unwrap();
        let mut policy = CredentialPolicy {
            config: Some(at("config.yaml")),
            bin_dir: Some(folder.path().to_owned()),
            ..CredentialPolicy::default()
        };
        let loaded = policy.load();
        // A folder of files says the same.
        policy.config = Some(folder.path().to_owned());
        assert_eq!(policy.load().is_ok(), loaded.is_ok());
        loaded.map(|()| policy.providers)
    }

    #[test]
    fn a_file_is_read() {
        let provider = load(GOOD).unwrap().remove(0);
        assert!(provider.program.ends_with("helper"));
        assert_eq!(provider.images, ["*.r.example", "q.example:5000/team"]);
        assert_eq!(provider.cached_for, Duration::from_secs(60));
        assert_eq!(provider.arguments, ["get"]);
        assert_eq!(provider.environment, [("A".to_owned(), "b".to_owned())]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, reason) in [
            (
                "",
                "no CredentialProviderConfig of kubelet.config.k8s.io/v1",
            ),
            (
                &GOOD.replace("k8s.io/v1\nkind", "k8s.io/v1beta1\nkind"),
                "\"kubelet.config.k8s.io/v1beta1\"",
            ),
            (
                &GOOD.replace("- name: helper", "- name: helper\n  surprise: 1"),
                "surprise",
            ),
            (GOOD.split("- name").next().unwrap(), "invalid type"),
            (
                &GOOD.replace("helper", "../helper"),
                "a name is that of a file",
            ),
            (&GOOD.replace("helper", "absent"), "absent: No such file"),
            (&GOOD.replace("helper", "data"), "data is no program"),
            (
                &GOOD.replace("provider.kubelet.k8s.io/v1", "provider.kubelet.k8s.io/v9"),
                "supported is",
            ),
            (
                &GOOD.replace("'*.r.example', 'q.example:5000/team'", ""),
                "matchImages",
            ),
            (
                &GOOD.replace("'*.r.example'", "'https://r.example'"),
                "without a scheme",
            ),
            (
                &GOOD.replace("  defaultCacheDuration: 1m\n", ""),
                "defaultCacheDuration is required",
            ),
            (&GOOD.replace("1m", "-1m"), "no duration"),
            (
                &GOOD.replace("args: [get]", "tokenAttributes: {}"),
                "tokenAttributes are not supported",
            ),
            (
                &format!("{GOOD}{}", &GOOD[GOOD.find("- name").unwrap()..]),
                "two providers \"helper\"",
            ),
        ] {
            let said = load(text).unwrap_err();
            assert!(said.contains(reason), "{said}");
        }
        let mut half = CredentialPolicy {
            config: Some("/x".into()),
            ..CredentialPolicy::default()
        };
        assert!(half.load().unwrap_err().contains("go together"));
        assert_eq!(CredentialPolicy::default().load(), Ok(()));
    }
}
