//! Which files a configMap, secret, downwardAPI or projected volume has.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, KeyToPath, Pod, Volume,
};

use super::VolumeError;
use super::tokens::TokenKey;
use super::trust::TrustKey;
use crate::pod;
use crate::pod::env::Sources;
use crate::pod::fields::{self, Surroundings};
use crate::pod::security;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    /// Whose it is among containers, where it is not everybody's.
    pub(crate) user: Option<u32>,
}

/// Files by path, relative to the volume; a later source of a path wins.
pub(crate) type Files = BTreeMap<PathBuf, File>;

/// Mode of files for which nothing is said.
const DEFAULT_MODE: i32 = 0o644;

/// Mode of a token, and of certificates, where the Pod says as whom it runs: its owner's alone, and its group's where
/// there is one.
const TOKEN_MODE: i32 = 0o600;

/// The files of a volume.
pub(crate) fn files(
    pod: &Pod,
    volume: &Volume,
    sources: &Sources,
    around: &Surroundings,
) -> Result<Files, VolumeError> {
    let mut maker = Maker {
        pod,
        volume: &volume.name,
        sources,
        around,
        files: Files::new(),
    };
    if let Some(map) = &volume.config_map {
        let mode = map.default_mode;
        maker.config_map(&map.name, map.items.as_deref(), map.optional, mode)?;
    }
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let mode = secret.default_mode;
        maker.secret(name, secret.items.as_deref(), secret.optional, mode)?;
    }
    if let Some(downward) = &volume.downward_api {
        maker.downward(downward.items.as_deref(), downward.default_mode)?;
    }
    if let Some(projected) = &volume.projected {
        let mode = projected.default_mode;
        for part in projected.sources.iter().flatten() {
            if let Some(map) = &part.config_map {
                maker.config_map(&map.name, map.items.as_deref(), map.optional, mode)?;
            }
            if let Some(secret) = &part.secret {
                let items = secret.items.as_deref();
                maker.secret(&secret.name, items, secret.optional, mode)?;
            }
            if let Some(downward) = &part.downward_api {
                maker.downward(downward.items.as_deref(), mode)?;
            }
            if let Some(bundle) = &part.cluster_trust_bundle {
                maker.trust(bundle, mode)?;
            }
            if let Some(token) = &part.service_account_token {
                let key = TokenKey::new(token.audience.as_deref(), token.expiration_seconds);
                maker.token(&key, &token.path, mode)?;
            }
        }
    }
    Ok(maker.files)
}

struct Maker<'a> {
    pod: &'a Pod,
    volume: &'a str,
    sources: &'a Sources,
    around: &'a Surroundings,
    files: Files,
}

impl Maker<'_> {
    fn config_map(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: Option<i32>,
    ) -> Result<(), VolumeError> {
        let optional = optional == Some(true);
        let Some(map) = self.sources.config_map(name) else {
            return self.missing("configmap", name, optional);
        };
        let mut data: BTreeMap<&str, &[u8]> = BTreeMap::new();
        for (key, text) in map.data.iter().flatten() {
            data.insert(key, text.as_bytes());
        }
        for (key, bytes) in map.binary_data.iter().flatten() {
            data.insert(key, &bytes.0);
        }
        self.keys("config", data, items, optional, mode)
    }

    fn secret(
        &mut self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: Option<i32>,
    ) -> Result<(), VolumeError> {
        let optional = optional == Some(true);
        let Some(secret) = self.sources.secret(name) else {
            return self.missing("secret", name, optional);
        };
        let data = secret.data.iter().flatten();
        let data = data.map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()));
        self.keys("secret", data.collect(), items, optional, mode)
    }

    fn missing(&self, kind: &'static str, name: &str, optional: bool) -> Result<(), VolumeError> {
        match optional {
            true => Ok(()),
            false => Err(VolumeError::ObjectNotFound {
                volume: self.volume.to_owned(),
                kind,
                name: name.to_owned(),
            }),
        }
    }

    fn keys(
        &mut self,
        kind: &'static str,
        data: BTreeMap<&str, &[u8]>,
        items: Option<&[KeyToPath]>,
        optional: bool,
        default_mode: Option<i32>,
    ) -> Result<(), VolumeError> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, bytes) in data {
                self.put(key, bytes.to_vec(), default_mode)?;
            }
            return Ok(());
        };
        for item in items {
            match data.get(item.key.as_str()) {
                Some(bytes) => {
                    let mode = item.mode.or(default_mode);
                    self.put(&item.path, bytes.to_vec(), mode)?;
                }
                None if optional => {}
                None => {
                    return Err(VolumeError::KeyNotFound {
                        volume: self.volume.to_owned(),
                        kind,
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    fn downward(
        &mut self,
        items: Option<&[DownwardAPIVolumeFile]>,
        default_mode: Option<i32>,
    ) -> Result<(), VolumeError> {
        let field = |cause| VolumeError::Field {
            volume: self.volume.to_owned(),
            cause,
        };
        let mut made = Vec::new();
        for item in items.unwrap_or_default() {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(of), _) => {
                    fields::field(self.pod, self.around, &of.field_path).map_err(field)?
                }
                (None, Some(of)) => {
                    fields::resource(self.pod, self.around, None, of).map_err(field)?
                }
                (None, None) => String::new(),
            };
            made.push((item.path.as_str(), text, item.mode.or(default_mode)));
        }
        for (path, text, mode) in made {
            self.put(path, text.into_bytes(), mode)?;
        }
        Ok(())
    }

    fn token(
        &mut self,
        key: &TokenKey,
        path: &str,
        default_mode: Option<i32>,
    ) -> Result<(), VolumeError> {
        let Some(token) = self.sources.tokens.get(key) else {
            return Err(VolumeError::NoToken {
                volume: self.volume.to_owned(),
            });
        };
        let bytes = token.clone().into_bytes();
        self.put_private(path, bytes, default_mode)
    }

    fn trust(
        &mut self,
        wanted: &ClusterTrustBundleProjection,
        default_mode: Option<i32>,
    ) -> Result<(), VolumeError> {
        let found = self.sources.trust.get(&TrustKey::of(wanted));
        let found = found.and_then(Option::as_ref);
        let bytes = match (found, &wanted.name) {
            (Some(found), _) => found.clone().into_bytes(),
            (None, _) if wanted.optional == Some(true) => Vec::new(),
            (None, Some(name)) => return self.missing("clustertrustbundle", name, false),
            (None, None) => {
                return Err(VolumeError::NoTrust {
                    volume: self.volume.to_owned(),
                });
            }
        };
        self.put_private(&wanted.path, bytes, default_mode)
    }

    /// A file of the Pod's user, where it names one.
    fn put_private(
        &mut self,
        path: &str,
        bytes: Vec<u8>,
        default_mode: Option<i32>,
    ) -> Result<(), VolumeError> {
        let user = own_user(self.pod);
        let mode = match user.is_some() || security::fs_group(self.pod).is_some() {
            true => Some(TOKEN_MODE),
            false => default_mode,
        };
        self.put(path, bytes, mode)?;
        if let Some(file) = self.files.get_mut(Path::new(path)) {
            file.user = user;
        }
        Ok(())
    }

    fn put(&mut self, path: &str, bytes: Vec<u8>, mode: Option<i32>) -> Result<(), VolumeError> {
        let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
        let mut parts = Path::new(path).components();
        let hidden = path.starts_with("..");
        if path.is_empty() || hidden || !parts.all(plain) {
            return Err(VolumeError::BadPath {
                volume: self.volume.to_owned(),
                path: path.to_owned(),
            });
        }
        let mode = u32::try_from(mode.unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o777;
        let user = None;
        self.files
            .insert(PathBuf::from(path), File { bytes, mode, user });
        Ok(())
    }
}

/// The one user whom the Pod names for all its containers.
fn own_user(pod: &Pod) -> Option<u32> {
    let spec = pod::spec(pod);
    let of_pod = spec.security_context.as_ref();
    let of_pod = of_pod.and_then(|context| context.run_as_user);
    let inits = spec.init_containers.iter().flatten();
    let mut users = spec.containers.iter().chain(inits).map(|container| {
        let own = container.security_context.as_ref();
        own.and_then(|context| context.run_as_user).or(of_pod)
    });
    let first = users.next().flatten();
    let all = users.all(|user| user == first);
    first.filter(|_| all).and_then(|user| user.try_into().ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn tokens_are_for_the_pods_user_alone_where_it_names_one() {
        let container = |user: Value| json!({"name": "c", "securityContext": {"runAsUser": user}});
        for (context, containers, want) in [
            (json!({}), [Value::Null, Value::Null], None),
            (json!({"runAsUser": 8}), [Value::Null, Value::Null], Some(8)),
            (json!({"runAsUser": 8}), [json!(8), Value::Null], Some(8)),
            (json!({"runAsUser": 8}), [json!(7), Value::Null], None),
            (json!({}), [json!(7), json!(7)], Some(7)),
            (json!({}), [json!(7), Value::Null], None),
        ] {
            let [init, app] = containers;
            let pod = serde_json::from_value(json!({"spec": {
                "securityContext": context,
                "initContainers": [container(init)], "containers": [container(app)],
            }}))
            .unwrap();
            assert_eq!(own_user(&pod), want, "{pod:?}");
        }
    }
}
