//! The environment of a container.
//!
//! `plan` of the names of ConfigMaps and Secrets that are needed is [`references`]; the I/O of
//! fetching them is the caller's, who hands them over as [`Sources`].

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, FileKeySelector, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::env_file;
use super::expand::expand;
use super::fields::{self, FieldError, Surroundings};
use super::namespace;
use crate::volumes::tokens::TokenKey;
use crate::volumes::trust::Trust;

/// Names of the objects that a Pod's environment or volumes read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
}

/// What files say, by volume and path; none for one that does not exist, or why it cannot be read.
pub(crate) type EnvFiles = BTreeMap<(String, String), Result<Option<String>, String>>;

/// Those objects, none for one that does not exist; tokens and certificates of volumes; and files in them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Option<Secret>>,
    pub(crate) tokens: BTreeMap<TokenKey, String>,
    pub(crate) trust: Trust,
    pub(crate) files: EnvFiles,
}

impl Sources {
    pub(crate) fn config_map(&self, name: &str) -> Option<&ConfigMap> {
        self.config_maps.get(name).and_then(Option::as_ref)
    }

    pub(crate) fn secret(&self, name: &str) -> Option<&Secret> {
        self.secrets.get(name).and_then(Option::as_ref)
    }

    /// What tells these sources from any other state of them.
    pub(crate) fn fingerprint(&self) -> u64 {
        fn version(meta: &ObjectMeta) -> (Option<&str>, Option<&str>) {
            (meta.uid.as_deref(), meta.resource_version.as_deref())
        }
        let mut hasher = DefaultHasher::new();
        for (name, map) in &self.config_maps {
            let version = map.as_ref().map(|map| version(&map.metadata));
            (name, version).hash(&mut hasher);
        }
        for (name, secret) in &self.secrets {
            let version = secret.as_ref().map(|secret| version(&secret.metadata));
            (name, version).hash(&mut hasher);
        }
        self.tokens.hash(&mut hasher);
        self.trust.hash(&mut hasher);
        hasher.finish()
    }
}

/// Why the environment cannot be made; the container waits with `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("{kind} \"{name}\" not found")]
    ObjectNotFound { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    KeyNotFound {
        kind: &'static str,
        namespace: String,
        name: String,
        key: String,
    },
    #[error("key {key} of {kind} {namespace}/{name} is not text")]
    NotText {
        kind: &'static str,
        namespace: String,
        name: String,
        key: String,
    },
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("couldn't parse env file \"{path}\": {cause}")]
    File { path: String, cause: String },
    #[error("environment variable key \"{key}\" not found in file \"{path}\"")]
    NotInFile { key: String, path: String },
}

/// The files in volumes that the environment of a container reads.
pub(crate) fn file_keys(container: &Container) -> impl Iterator<Item = &FileKeySelector> {
    let variables = container.env.iter().flatten();
    variables.filter_map(|variable| variable.value_from.as_ref()?.file_key_ref.as_ref())
}

/// What the environment of a container reads.
pub(crate) fn references(container: &Container, references: &mut References) {
    for from in container.env_from.iter().flatten() {
        if let Some(source) = &from.config_map_ref {
            references.config_maps.insert(source.name.clone());
        }
        if let Some(source) = &from.secret_ref {
            references.secrets.insert(source.name.clone());
        }
    }
    for from in container.env.iter().flatten() {
        let Some(from) = &from.value_from else {
            continue;
        };
        if let Some(source) = &from.config_map_key_ref {
            references.config_maps.insert(source.name.clone());
        }
        if let Some(source) = &from.secret_key_ref {
            references.secrets.insert(source.name.clone());
        }
    }
}

/// The environment in order: Services, `envFrom`, `env`; later entries win.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    services: Vec<(String, String)>,
    sources: &Sources,
    around: &Surroundings,
) -> Result<Vec<(String, String)>, EnvError> {
    let maker = Maker {
        pod,
        container,
        sources,
        around,
    };
    let mut from = BTreeMap::new();
    maker.env_from(&mut from)?;
    let mut env = Ordered::default();
    let service_names: BTreeMap<&str, &str> = services
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    for (name, value) in from {
        env.set(name, value);
    }
    for variable in container.env.iter().flatten() {
        let known = |name: &str| env.get(name).or_else(|| service_names.get(name).copied());
        if let Some(value) = maker.value(variable, known)? {
            env.set(variable.name.clone(), value);
        }
    }
    let Ordered { entries, index } = env;
    let mut all: Vec<(String, String)> = services
        .into_iter()
        .filter(|(name, _)| !index.contains_key(name))
        .collect();
    all.extend(entries);
    Ok(all)
}

/// Entries in the order of their first mention.
#[derive(Default)]
struct Ordered {
    entries: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Ordered {
    fn get(&self, name: &str) -> Option<&str> {
        let at = self.index.get(name)?;
        Some(self.entries[*at].1.as_str())
    }

    fn set(&mut self, name: String, value: String) {
        match self.index.get(&name) {
            Some(at) => self.entries[*at].1 = value,
            None => {
                self.index.insert(name.clone(), self.entries.len());
                self.entries.push((name, value));
            }
        }
    }
}

struct Maker<'a> {
    pod: &'a Pod,
    container: &'a Container,
    sources: &'a Sources,
    around: &'a Surroundings,
}

impl Maker<'_> {
    fn env_from(&self, env: &mut BTreeMap<String, String>) -> Result<(), EnvError> {
        for from in self.container.env_from.iter().flatten() {
            let prefix = from.prefix.as_deref().unwrap_or_default();
            if let Some(source) = &from.config_map_ref {
                match self.sources.config_map(&source.name) {
                    Some(map) => {
                        for (key, value) in map.data.iter().flatten() {
                            env.insert(format!("{prefix}{key}"), value.clone());
                        }
                    }
                    None if source.optional == Some(true) => {}
                    None => return Err(self.no_object("configmap", &source.name)),
                }
            }
            if let Some(source) = &from.secret_ref {
                match self.sources.secret(&source.name) {
                    Some(secret) => {
                        for (key, value) in secret.data.iter().flatten() {
                            let text = self.text("secret", &source.name, key, &value.0)?;
                            env.insert(format!("{prefix}{key}"), text);
                        }
                    }
                    None if source.optional == Some(true) => {}
                    None => return Err(self.no_object("secret", &source.name)),
                }
            }
        }
        Ok(())
    }

    /// The value of one variable; none where an optional source is absent.
    fn value<'v>(
        &self,
        variable: &EnvVar,
        known: impl Fn(&str) -> Option<&'v str>,
    ) -> Result<Option<String>, EnvError> {
        let Some(from) = &variable.value_from else {
            let value = variable.value.as_deref().unwrap_or_default();
            return Ok(Some(expand(value, known)));
        };
        if let Some(source) = &from.field_ref {
            let value = fields::field(self.pod, self.around, &source.field_path)?;
            return Ok(Some(value));
        }
        if let Some(source) = &from.resource_field_ref {
            let own = Some(self.container);
            let value = fields::resource(self.pod, self.around, own, source)?;
            return Ok(Some(value));
        }
        if let Some(source) = &from.config_map_key_ref {
            let optional = source.optional == Some(true);
            let Some(map) = self.sources.config_map(&source.name) else {
                return self.absent(optional, || self.no_object("configmap", &source.name));
            };
            let value = map.data.as_ref().and_then(|data| data.get(&source.key));
            return match value {
                Some(value) => Ok(Some(value.clone())),
                None => self.absent(optional, || {
                    self.no_key("ConfigMap", &source.name, &source.key)
                }),
            };
        }
        if let Some(source) = &from.secret_key_ref {
            let optional = source.optional == Some(true);
            let Some(secret) = self.sources.secret(&source.name) else {
                return self.absent(optional, || self.no_object("secret", &source.name));
            };
            let value = secret.data.as_ref().and_then(|data| data.get(&source.key));
            return match value {
                Some(value) => {
                    let text = self.text("secret", &source.name, &source.key, &value.0)?;
                    Ok(Some(text))
                }
                None => self.absent(optional, || {
                    self.no_key("Secret", &source.name, &source.key)
                }),
            };
        }
        if let Some(source) = &from.file_key_ref {
            return self.of_file(source);
        }
        Ok(Some(String::new()))
    }

    fn of_file(&self, source: &FileKeySelector) -> Result<Option<String>, EnvError> {
        let path = &source.path;
        let broken = |cause: String| EnvError::File {
            path: path.clone(),
            cause,
        };
        let named = (source.volume_name.clone(), path.clone());
        let text = match self.sources.files.get(&named) {
            Some(Ok(text)) => text.as_deref().unwrap_or_default(),
            Some(Err(cause)) => return Err(broken(cause.clone())),
            None => "",
        };
        match env_file::value(text, &source.key).map_err(broken)? {
            Some(value) => Ok(Some(value)),
            None => self.absent(source.optional == Some(true), || EnvError::NotInFile {
                key: source.key.clone(),
                path: path.clone(),
            }),
        }
    }

    fn absent(
        &self,
        optional: bool,
        error: impl FnOnce() -> EnvError,
    ) -> Result<Option<String>, EnvError> {
        match optional {
            true => Ok(None),
            false => Err(error()),
        }
    }

    fn no_object(&self, kind: &'static str, name: &str) -> EnvError {
        let name = name.to_owned();
        EnvError::ObjectNotFound { kind, name }
    }

    fn no_key(&self, kind: &'static str, name: &str, key: &str) -> EnvError {
        EnvError::KeyNotFound {
            kind,
            namespace: namespace(self.pod).to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
        }
    }

    fn text(
        &self,
        kind: &'static str,
        name: &str,
        key: &str,
        bytes: &[u8],
    ) -> Result<String, EnvError> {
        String::from_utf8(bytes.to_vec()).map_err(|_| EnvError::NotText {
            kind,
            namespace: namespace(self.pod).to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
        })
    }
}

/// Commands and arguments with their references expanded.
pub(crate) fn expand_all(texts: Option<&Vec<String>>, env: &[(String, String)]) -> Vec<String> {
    let known: BTreeMap<&str, &str> = env
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let expanded = |text: &String| expand(text, |name| known.get(name).copied());
    texts.into_iter().flatten().map(expanded).collect()
}

#[cfg(test)]
#[path = "env_tests.rs"]
mod tests;
