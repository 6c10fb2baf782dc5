//! The folders of manifests: what lies in them, and when to look again.
//!
//! One manifest a file; hidden files and folders are passed over. A file that does not read, while
//! it is being written or because it is wrong, leaves its Pod as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::manifest;
use crate::inotify::{WatchFlags, Watcher};
use crate::pod;

/// How often a folder is looked at where nothing says that it has changed, as in the kubelet: it
/// may have been made, or be on a file system that tells nothing.
const PERIOD: Duration = Duration::from_secs(20);
/// Longest manifest, as in the kubelet.
const MAX_BYTES: u64 = 10 << 20;
/// Manifests of a folder at most.
const MAX_FILES: usize = 1000;

/// The folders with what was read last.
pub(super) struct Folders {
    paths: Vec<PathBuf>,
    node: String,
    period: Duration,
    watchers: Vec<Option<Watcher>>,
    /// What each file is of, or why it is of nothing.
    files: BTreeMap<PathBuf, Manifest>,
}

#[derive(Default)]
struct Manifest {
    pod: Option<Arc<Pod>>,
    error: Option<String>,
}

impl Folders {
    pub(super) fn new(paths: Vec<PathBuf>, node: &str) -> Self {
        Self {
            watchers: paths.iter().map(|_| None).collect(),
            paths,
            node: node.to_owned(),
            period: PERIOD,
            files: BTreeMap::new(),
        }
    }

    /// Looks at all files: the Pods that they ask for, by namespace and name. Of several files for
    /// one Pod the first counts.
    pub(super) fn read(&mut self) -> BTreeMap<(String, String), Arc<Pod>> {
        let mut seen = BTreeSet::new();
        for index in 0..self.paths.len() {
            self.watch(index);
            match list(&self.paths[index]) {
                Ok(files) => seen.extend(files),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    // Nothing is known of it, which is no reason to end anything.
                    let folder = &self.paths[index];
                    tracing::warn!(%error, folder = %folder.display(), "cannot list manifests");
                    let known = self
                        .files
                        .keys()
                        .filter(|file| file.parent() == Some(folder.as_path()));
                    seen.extend(known.cloned().collect::<Vec<_>>());
                }
            }
        }
        self.files.retain(|file, _| seen.contains(file));
        let mut pods = BTreeMap::new();
        for file in seen {
            self.look(&file);
            let Some(pod) = self.files.get(&file).and_then(|of| of.pod.clone()) else {
                continue;
            };
            let name = (pod::namespace(&pod).to_owned(), pod::name(&pod).to_owned());
            pods.entry(name).or_insert(pod);
        }
        pods
    }

    fn watch(&mut self, index: usize) {
        if self.watchers[index].is_some() {
            return;
        }
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        match Watcher::new(&self.paths[index], flags) {
            Ok(watcher) => self.watchers[index] = Some(watcher),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let folder = self.paths[index].display();
                tracing::debug!(%error, %folder, "a folder of manifests is looked at in turns only");
            }
        }
    }

    fn look(&mut self, file: &Path) {
        let known = self.files.entry(file.to_owned()).or_default();
        let read = match text(file) {
            // Made just now: its content comes.
            Ok(text) if text.trim().is_empty() => return,
            Ok(text) => manifest::read(&text, file, &self.node, Timestamp::now()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(pod) => {
                known.error = None;
                let same = |of: &Arc<Pod>| pod::uid(of) == pod::uid(&pod);
                if !known.pod.as_ref().is_some_and(same) {
                    known.pod = Some(Arc::new(pod));
                }
            }
            Err(error) if known.error.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::warn!(file = %file.display(), error, "this manifest is not run");
                known.error = Some(error);
            }
        }
    }

    /// Returns when it is time to look again. Safe to drop half way.
    pub(super) async fn changed(&mut self) {
        let waits = self.watchers.iter_mut().map(|watcher| {
            Box::pin(async move {
                let Some(of) = watcher.as_mut() else {
                    return std::future::pending().await;
                };
                if !matches!(of.changed().await, Ok(true)) {
                    // What comes in the folder's place is watched anew.
                    *watcher = None;
                }
            })
        });
        let waits: Vec<_> = waits.collect();
        let any = async {
            match waits.is_empty() {
                true => std::future::pending().await,
                false => drop(futures::future::select_all(waits).await),
            }
        };
        let _ = tokio::time::timeout(self.period, any).await;
    }
}

/// The files in a folder that may be manifests, in order.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if hidden || !std::fs::metadata(entry.path()).is_ok_and(|of| of.is_file()) {
            continue;
        }
        files.push(entry.path());
    }
    files.sort();
    if files.len() > MAX_FILES {
        tracing::warn!(folder = %folder.display(), "only the first {MAX_FILES} manifests are run");
        files.truncate(MAX_FILES);
    }
    Ok(files)
}

fn text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    match text.len() as u64 > MAX_BYTES {
        true => Err(io::Error::other("it is longer than 10 MiB")),
        false => Ok(text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn manifest(name: &str, image: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n\
             spec: {{containers: [{{name: main, image: '{image}'}}]}}\n"
        )
    }

    fn names(folders: &mut Folders) -> Vec<String> {
        folders.read().into_keys().map(|(_, name)| name).collect()
    }

    #[tokio::test]
    async fn files_are_pods_and_broken_ones_stay_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut folders = Folders::new(vec![folder.path().to_owned()], "n");
        assert!(names(&mut folders).is_empty());
        std::fs::write(at("a.yaml"), manifest("a", "x")).unwrap();
        std::fs::write(at("b"), manifest("b", "x")).unwrap();
        std::fs::write(at(".hidden"), manifest("c", "x")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink(at("b"), at("link-to-b")).unwrap();
        std::fs::write(at("wrong"), "kind: Node").unwrap();
        folders.changed().await;
        let first = folders.read();
        assert_eq!(names(&mut folders), ["a-n", "b-n"]);
        let again = folders.read();
        let key = ("default".to_owned(), "a-n".to_owned());
        assert!(
            Arc::ptr_eq(&first[&key], &again[&key]),
            "when it was seen is kept"
        );

        std::fs::write(at("a.yaml"), "half").unwrap();
        folders.changed().await;
        assert!(Arc::ptr_eq(&first[&key], &folders.read()[&key]));
        std::fs::write(at("a.yaml"), manifest("a", "y")).unwrap();
        folders.changed().await;
        assert_ne!(pod::uid(&first[&key]), pod::uid(&folders.read()[&key]));
        std::fs::remove_file(at("a.yaml")).unwrap();
        folders.changed().await;
        assert_eq!(names(&mut folders), ["b-n"]);
    }

    #[tokio::test]
    async fn a_folder_may_come_and_go() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("manifests");
        let mut folders = Folders::new(vec![folder.clone()], "n");
        folders.period = Duration::from_millis(10);
        assert!(names(&mut folders).is_empty());
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a"), manifest("a", "x")).unwrap();
        // Nothing tells of it but time.
        folders.changed().await;
        assert_eq!(names(&mut folders), ["a-n"]);
        std::fs::remove_dir_all(&folder).unwrap();
        folders.changed().await;
        assert!(names(&mut folders).is_empty());
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("b"), manifest("b", "x")).unwrap();
        folders.changed().await;
        assert_eq!(names(&mut folders), ["b-n"]);
    }
}
