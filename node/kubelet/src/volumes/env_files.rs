//! Reads the files of environment variables that a container names in its Pod's volumes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, FileKeySelector, Pod};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::folder;
use crate::pod::env::{EnvFiles, file_keys};
use crate::pod::spec;

/// What is read of a file; more of it is refused.
const MAX_BYTES: u64 = 64 << 10;

/// What the files say that a container names, or why they cannot be read. Blocking file I/O, and little
/// of it.
pub(crate) fn env_files(root: &Path, pod: &Pod, container: &Container) -> EnvFiles {
    let mut files = EnvFiles::new();
    for of in file_keys(container) {
        let name = (of.volume_name.clone(), of.path.clone());
        files
            .entry(name)
            .or_insert_with(|| match read(root, pod, of) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.to_string()),
            });
    }
    files
}

/// Containers write there: whatever leads out of the volume ends at its root, and nothing is waited for.
fn read(root: &Path, pod: &Pod, of: &FileKeySelector) -> io::Result<String> {
    let mut volumes = spec(pod).volumes.iter().flatten();
    let volume = volumes.find(|volume| volume.name == of.volume_name && volume.empty_dir.is_some());
    let no_volume = || io::Error::other(format!("no emptyDir volume \"{}\"", of.volume_name));
    let folder = folder(root, pod, volume.ok_or_else(no_volume)?).map_err(io::Error::other)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(&folder, flags, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&folder, of.path.as_str(), flags, Mode::empty(), within)?;
    let file = File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    let length = file.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    match u64::try_from(length).is_ok_and(|length| length <= MAX_BYTES) {
        true => Ok(text),
        false => Err(io::Error::other(format!(
            "it is longer than {MAX_BYTES} bytes"
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_those_of_the_volume() {
        let root = tempfile::tempdir().unwrap();
        let key = |path: &str| {
            json!({"name": path, "valueFrom": {"fileKeyRef": {
                "volumeName": "v", "path": path, "key": "K",
            }}})
        };
        let names = ["env", "link", "out", "none", "folder"];
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"uid": "u"},
            "spec": {
                "containers": [{"name": "c", "env": names.map(key)}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        }))
        .unwrap();
        let spec = spec(&pod);
        let folder = folder(root.path(), &pod, &spec.volumes.as_ref().unwrap()[0]).unwrap();
        std::fs::create_dir_all(folder.join("folder")).unwrap();
        std::fs::write(folder.join("env"), "K='1'").unwrap();
        std::fs::write(root.path().join("secret"), "K='2'").unwrap();
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, folder.join(name));
        link(Path::new("/env"), "link").unwrap();
        link(&root.path().join("secret"), "out").unwrap();
        let files = env_files(root.path(), &pod, &spec.containers[0]);
        let of = |name: &str| files[&("v".to_owned(), name.to_owned())].clone();
        for name in ["env", "link"] {
            assert_eq!(of(name), Ok(Some("K='1'".to_owned())), "{name}");
        }
        for name in ["out", "none"] {
            assert_eq!(of(name), Ok(None), "{name}");
        }
        assert!(of("folder").is_err());
    }
}
