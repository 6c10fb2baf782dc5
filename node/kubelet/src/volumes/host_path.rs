//! `hostPath`: a file or folder of the machine, as it is.
//!
//! What its `type` asks for is checked, or made, before the first container sees it, with the
//! words of Kubernetes (`pkg/volume/hostpath`). Whose it is and who may read it stays as the
//! machine has it: no `fsGroup` is applied, and a guest, which runs as a user of its own, reads
//! what everybody on the machine may read.

use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// Why the path is not what the Pod asks for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostPathError {
    #[error("invalid HostPath `{0}`: must not contain '..'")]
    Backsteps(String),
    #[error("invalid HostPath `{0}`: must be an absolute path")]
    Relative(String),
    #[error("hostPath {0} doesn't exist")]
    Missing(String),
    #[error("hostPath type check failed: {path} is not a {expected}, it's a {found}")]
    Other {
        path: String,
        expected: &'static str,
        found: &'static str,
    },
    #[error(
        "hostPath type check failed, {path} is not a {expected}, unable to determine its type: \
         only recognise file, directory, socket, block device and character device"
    )]
    Unknown {
        path: String,
        expected: &'static str,
    },
    #[error("{0} is an invalid volume type")]
    Type(String),
    #[error("{context} {path}: {cause}")]
    Io {
        context: &'static str,
        path: String,
        cause: io::Error,
    },
}

/// Checks a path of the machine by its type, and makes what the type says is to be made. One without
/// a type becomes a folder where nothing is, as container runtimes do it. Blocking file I/O.
pub(super) fn set_up(source: &HostPathVolumeSource) -> Result<(), HostPathError> {
    let text = || source.path.clone();
    let path = Path::new(&source.path);
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(HostPathError::Backsteps(text()));
    }
    if !path.is_absolute() {
        return Err(HostPathError::Relative(text()));
    }
    let io = |context: &'static str| {
        move |cause| HostPathError::Io {
            context,
            path: source.path.clone(),
            cause,
        }
    };
    let (expected, description) = match source.type_.as_deref().unwrap_or_default() {
        "" => {
            return match path.exists() {
                true => Ok(()),
                false => make_folder(path).map_err(io("mkdir")),
            };
        }
        "DirectoryOrCreate" if !path.exists() => return make_folder(path).map_err(io("mkdir")),
        "FileOrCreate" if !path.exists() => return make_file(path).map_err(io("open")),
        "DirectoryOrCreate" | "Directory" => ("Directory", "directory"),
        "FileOrCreate" | "File" => ("File", "file"),
        "Socket" => ("Socket", "socket file"),
        "CharDevice" => ("CharDevice", "character device"),
        "BlockDevice" => ("BlockDevice", "block device"),
        other => return Err(HostPathError::Type(other.to_owned())),
    };
    let metadata = fs::metadata(path).map_err(|_| HostPathError::Missing(text()))?;
    match kind(&metadata) {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(HostPathError::Other {
            path: text(),
            expected: description,
            found,
        }),
        None => Err(HostPathError::Unknown {
            path: text(),
            expected: description,
        }),
    }
}

/// The type as the API names it.
fn kind(metadata: &Metadata) -> Option<&'static str> {
    let of = metadata.file_type();
    [
        (of.is_dir(), "Directory"),
        (of.is_file(), "File"),
        (of.is_socket(), "Socket"),
        (of.is_char_device(), "CharDevice"),
        (of.is_block_device(), "BlockDevice"),
    ]
    .into_iter()
    .find_map(|(is, name)| is.then_some(name))
}

fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755).create(path)
}

fn make_file(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o644);
    options.open(path).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn every_type_is_told_from_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("file"), "text").unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        let check = |path: &str, type_: &str| {
            let source = HostPathVolumeSource {
                path: path.to_owned(),
                type_: Some(type_.to_owned()),
            };
            set_up(&source).map_err(|error| error.to_string())
        };
        let fine = [
            (at("folder"), "Directory"),
            (at("folder"), "DirectoryOrCreate"),
            (at("file"), "File"),
            (at("file"), "FileOrCreate"),
            (at("link"), "File"),
            (at("socket"), "Socket"),
            ("/dev/null".into(), "CharDevice"),
            (at("socket"), ""),
        ];
        for (path, type_) in &fine {
            assert_eq!(check(path, type_), Ok(()), "{path} {type_}");
        }
        let refused = [
            (at("file"), "Directory", "is not a directory, it's a File"),
            (
                at("folder"),
                "FileOrCreate",
                "is not a file, it's a Directory",
            ),
            (at("file"), "Socket", "is not a socket file, it's a File"),
            (
                "/dev/null".into(),
                "BlockDevice",
                "is not a block device, it's a CharDevice",
            ),
            (
                at("socket"),
                "CharDevice",
                "is not a character device, it's a Socket",
            ),
        ];
        for (path, type_, why) in &refused {
            let expected = format!("hostPath type check failed: {path} {why}");
            assert_eq!(check(path, type_), Err(expected), "{path} {type_}");
        }
        for type_ in ["Directory", "File", "Socket", "CharDevice", "BlockDevice"] {
            let none = at("none");
            let expected = format!("hostPath {none} doesn't exist");
            assert_eq!(check(&none, type_), Err(expected), "{type_}");
        }
        for (path, type_, why) in [
            (
                "/a/../b",
                "",
                "invalid HostPath `/a/../b`: must not contain '..'",
            ),
            ("a", "", "invalid HostPath `a`: must be an absolute path"),
            ("/", "Nothing", "Nothing is an invalid volume type"),
        ] {
            assert_eq!(check(path, type_), Err(why.to_owned()));
        }
    }

    #[test]
    fn what_is_to_be_made_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        for (name, type_) in [
            ("a/b", Some("DirectoryOrCreate")),
            ("c/d", None),
            ("file", Some("FileOrCreate")),
        ] {
            let path = folder.path().join(name);
            let source = HostPathVolumeSource {
                path: path.display().to_string(),
                type_: type_.map(str::to_owned),
            };
            set_up(&source).unwrap();
            set_up(&source).unwrap();
            assert_eq!(path.is_file(), name == "file");
            if path.is_file() {
                fs::write(&path, "kept").unwrap();
                set_up(&source).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
            }
        }
    }
}
