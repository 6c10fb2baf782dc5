use std::os::unix::fs::PermissionsExt;

use coracle_images::{Reserve, media_types};
use tar::EntryType::{self, Char, Directory, Fifo, Regular, Symlink};
use tar::Header;

use super::*;

/// Kind, mode, path, and content or where it leads.
type Item<'a> = (EntryType, u32, &'a str, &'a str);

fn layer(content: &ContentStore, items: &[Item<'_>]) -> ImageLayer {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, mode, path, text) in items {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(7);
        header.set_gid(8);
        let data: &[u8] = match kind {
            EntryType::Regular => text.as_bytes(),
            _ => &[],
        };
        header.set_size(data.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if data.is_empty() {
            header.set_link_name_literal(text).unwrap();
        }
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        archive.append(&header, data).unwrap();
    }
    let archive = archive.into_inner().unwrap();
    let digest = content.put(&archive).unwrap();
    ImageLayer {
        media_type: media_types::OCI_LAYER.into(),
        diff_id: digest.clone(),
        digest,
    }
}

struct Node {
    folder: tempfile::TempDir,
    content: Arc<ContentStore>,
    volumes: ImageVolumes,
    digest: String,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            content: ContentStore::open(folder.path().join("content")).unwrap(),
            volumes: ImageVolumes::open(folder.path().join("volumes"), false).unwrap(),
            digest: Digest::of(b"manifest").to_string(),
            folder,
        }
    }

    async fn ensure(&self, layers: &[&[Item<'_>]]) -> std::result::Result<(), String> {
        let layers = layers.iter().map(|items| layer(&self.content, items));
        let layers = layers.collect();
        let ensured = self.volumes.ensure(&self.content, &self.digest, layers);
        ensured.await.map_err(|error| error.to_string())
    }

    fn find(&self, path: &str) -> io::Result<PathBuf> {
        self.volumes.find(&self.digest, Path::new(path))
    }
}

#[tokio::test]
async fn a_disk_keeps_its_reserve() {
    let mut node = Node::new();
    let content = node.folder.path().join("content");
    for (bytes, fits) in [(u64::MAX, false), (0, true)] {
        let reserve = Reserve {
            bytes,
            ..Reserve::default()
        };
        node.content = ContentStore::open_keeping(&content, reserve).unwrap();
        match node.ensure(&[&[(Regular, 0o644, "a", "a")]]).await {
            Ok(()) => assert!(fits),
            Err(error) => assert!(!fits && error.contains("no space left"), "{error}"),
        }
        let left = names(&node.folder.path().join("volumes/ingest")).unwrap();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(node.find("a").is_ok(), fits);
    }
}

#[tokio::test]
async fn an_image_is_a_tree_of_what_can_be_read() {
    let node = Node::new();
    let below: &[Item<'_>] = &[
        (Directory, 0o555, "closed", ""),
        (Regular, 0o4711, "closed/tool", "tool"),
        (Regular, 0o644, "old", "old"),
        (Regular, 0o644, "null", "a file"),
        (Symlink, 0o777, "away", "/closed"),
    ];
    let above: &[Item<'_>] = &[
        (Regular, 0o640, "closed/more", "more"),
        (Regular, 0o644, ".wh.old", ""),
        (Char, 0o666, "null", ""),
        (Fifo, 0o666, "pipe", ""),
        (Symlink, 0o777, "up", "../../closed/more"),
    ];
    node.ensure(&[below, above]).await.unwrap();
    let root = node.find("").unwrap();
    let mut names = names(&root).unwrap();
    names.sort();
    assert_eq!(names, ["away", "closed", "up"]);
    // Nothing acts on the machine, and whoever has unpacked it may remove it.
    let mode = |path: &str| {
        let metadata = fs::metadata(node.find(path).unwrap()).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    assert_eq!(mode("closed"), 0o755);
    assert_eq!(mode("closed/tool"), 0o711);
    assert_eq!(mode("closed/more"), 0o640);
    // Links lead within the image.
    for path in ["closed/more", "away/more", "up"] {
        assert_eq!(node.find(path).unwrap(), root.join("closed/more"), "{path}");
    }
    assert!(node.find("none").is_err());
    node.volumes.remove(&node.digest).await.unwrap();
    assert!(node.find("").is_err());
    node.volumes.remove(&node.digest).await.unwrap();
}

#[tokio::test]
async fn what_is_not_whole_is_not_there() {
    let node = Node::new();
    let climbs: &[Item<'_>] = &[
        (Regular, 0o644, "first", "first"),
        (Regular, 0o644, "../secret", "x"),
    ];
    let error = node.ensure(&[climbs]).await.unwrap_err();
    assert!(error.contains("leaves the root"), "{error}");
    assert!(node.find("").is_err());
    assert!(!node.folder.path().join("volumes/secret").exists());
    let ingest = node.folder.path().join("volumes").join(INGEST);
    assert_eq!(names(&ingest).unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn what_no_image_has_is_swept() {
    let node = Node::new();
    let items: &[Item<'_>] = &[(Regular, 0o644, "a", "a")];
    node.ensure(&[items]).await.unwrap();
    let stays = [node.digest.clone()].into_iter();
    node.volumes.retain(stays).unwrap();
    assert!(node.find("a").is_ok());
    node.volumes.retain(std::iter::empty()).unwrap();
    assert!(node.find("a").is_err());
}
