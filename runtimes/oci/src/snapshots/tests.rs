#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use coracle_images::media_types;
use tar::EntryType;

use super::*;

mod room;

/// An entry of a layer. Paths are written as they are, however hostile.
enum Item<'a> {
    File(&'a str, &'a str),
    Folder(&'a str, u32),
    Symlink(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Device(&'a str, u32, u32),
    Attribute(&'a str, &'a str),
}
use Item::*;

fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        let (mode, kind, path, content) = match *item {
            File(path, content) => (0o644, EntryType::Regular, path, content),
            Folder(path, mode) => (mode, EntryType::Directory, path, ""),
            Symlink(path, _) => (0o777, EntryType::Symlink, path, ""),
            Hard(path, _) => (0o644, EntryType::Link, path, ""),
            Device(path, ..) => (0o666, EntryType::Char, path, ""),
            Attribute(path, name) => {
                let key = format!("SCHILY.xattr.{name}");
                let extended = [(&*key, &b"y"[..])];
                builder.append_pax_extensions(extended).unwrap();
                (0o755, EntryType::Directory, path, "")
            }
        };
        header.set_mode(mode);
        header.set_entry_type(kind);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        if let Symlink(_, target) | Hard(_, target) = *item {
            header.set_link_name_literal(target).unwrap();
        }
        if let Device(_, major, minor) = *item {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        }
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Image {
    folder: tempfile::TempDir,
    content: Arc<ContentStore>,
    layers: Vec<ImageLayer>,
    snapshots: Snapshots,
}

const ROOM: Budget = Budget {
    bytes: 1 << 20,
    entries: 1000,
    expansion: unpack::LIMITS.expansion,
};

impl Image {
    /// None, with a word, where users and mounts cannot be set.
    fn of(layers: &[&[Item<'_>]]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: unpacking layers takes root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let content = ContentStore::open(folder.path().join("content")).unwrap();
        let layers = layers
            .iter()
            .map(|items| {
                let bytes = archive(items);
                ImageLayer {
                    digest: content.put(&bytes).unwrap(),
                    media_type: media_types::OCI_LAYER.into(),
                    diff_id: Digest::of(&bytes),
                }
            })
            .collect();
        let snapshots = Snapshots::open(folder.path().join("snapshots"), ROOM).unwrap();
        Some(Self {
            folder,
            content,
            layers,
            snapshots,
        })
    }

    async fn unpack(&self) -> Result<(), String> {
        let snapshots = self.snapshots.clone();
        let full = move || snapshots.retain([].into_iter()).unwrap();
        let unpacked = self.snapshots.ensure(&self.content, &self.layers, full);
        unpacked.await.map_err(|error| error.to_string())
    }

    /// What a container of the image would see: by path, what it is.
    fn tree(&self) -> BTreeMap<String, String> {
        let lowers = self.snapshots.lowers(&self.layers);
        let of = |name: &str| self.folder.path().join(name);
        for name in ["upper", "work", "merged"] {
            fs::create_dir(of(name)).unwrap();
        }
        std::thread::scope(|scope| {
            let view = scope.spawn(|| {
                overlay::enter_own_namespace().unwrap();
                let upper = Upper {
                    files: &of("upper"),
                    work: &of("work"),
                };
                overlay::overlay(&lowers, Some(&upper), &of("merged"), MountFlags::empty())
                    .unwrap();
                let mut tree = BTreeMap::new();
                list(&of("merged"), "", &mut tree);
                tree
            });
            view.join().unwrap()
        })
    }
}

fn list(folder: &Path, prefix: &str, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.path().symlink_metadata().unwrap();
        let (kind, mode) = (metadata.file_type(), metadata.mode() & 0o7777);
        let described = if kind.is_symlink() {
            format!("-> {}", fs::read_link(entry.path()).unwrap().display())
        } else if kind.is_dir() {
            list(&entry.path(), &format!("{name}/"), into);
            format!("{mode:o}/")
        } else if kind.is_char_device() {
            format!("device {:x}", metadata.rdev())
        } else {
            fs::read_to_string(entry.path()).unwrap()
        };
        into.insert(name, described);
    }
}

async fn check(layers: &[&[Item<'_>]], expected: &[(&str, &str)]) {
    let Some(image) = Image::of(layers) else {
        return;
    };
    image.unpack().await.unwrap();
    let tree = image.tree();
    let tree: Vec<(&str, &str)> = tree.iter().map(|(k, v)| (&**k, &**v)).collect();
    assert_eq!(tree, expected);
}

#[tokio::test]
async fn layers_are_unpacked_over_each_other() {
    check(
        &[
            &[
                Folder("./", 0o755),
                Folder("usr", 0o755),
                Folder("usr/bin/", 0o711),
                File("usr/bin/a", "old"),
                File("usr/bin/b", "b"),
                Symlink("bin", "usr/bin"),
                Device("null", 1, 3),
            ],
            &[
                // Through the link that the layer below has made.
                File("bin/a", "new"),
                Hard("bin/c", "usr/bin/b"),
                File("made/by/need", "x"),
            ],
            &[File("usr/bin/.wh.b", ""), Folder("bin", 0o1777)],
        ],
        &[
            ("bin", "1777/"),
            ("made", "755/"),
            ("made/by", "755/"),
            ("made/by/need", "x"),
            ("null", "device 103"),
            ("usr", "755/"),
            ("usr/bin", "711/"),
            ("usr/bin/a", "new"),
            ("usr/bin/c", "b"),
        ],
    )
    .await;
}

#[tokio::test]
async fn whiteouts_hide_what_lies_below_and_nothing_else() {
    check(
        &[
            &[
                File("etc/a", "a"),
                File("etc/sub/b", "b"),
                File("opq/below", "x"),
                File("opq/sub/below", "x"),
                File("gone/x", "x"),
            ],
            &[
                File("opq/own", "own"),
                File("opq/sub/own", "own"),
                File("opq/.wh..wh..opq", ""),
                File("etc/a", "again"),
                File("etc/.wh.a", ""),
                File("etc/.wh.sub", ""),
                File(".wh.gone", ""),
                File(".wh..wh.plnk", ""),
                File("nowhere/.wh.x", ""),
            ],
        ],
        &[
            ("etc", "755/"),
            ("etc/a", "again"),
            ("opq", "755/"),
            ("opq/own", "own"),
            ("opq/sub", "755/"),
            ("opq/sub/own", "own"),
        ],
    )
    .await;
}

#[tokio::test]
async fn links_end_at_the_images_root() {
    let Some(image) = Image::of(&[&[
        Symlink("up", "../../../../../../.."),
        Symlink("abs", "/"),
        Symlink("loop", "loop"),
        File("up/from-up", "x"),
        File("abs/from-abs", "x"),
    ]]) else {
        return;
    };
    image.unpack().await.unwrap();
    let tree = image.tree();
    assert_eq!(tree["from-up"], "x");
    assert_eq!(tree["from-abs"], "x");
    assert!(!Path::new("/from-up").exists() && !Path::new("/from-abs").exists());
}

#[tokio::test]
async fn hostile_layers_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    let secret = secret.to_str().unwrap();
    for (items, cause) in [
        (&[File("../x", "")][..], "leaves the root"),
        (&[File("a/../../x", "")], "leaves the root"),
        (&[Hard("x", "../../etc/passwd")], "leaves the root"),
        // From the image's root there is no such file.
        (&[Hard("x", secret)], "No such file"),
        (&[Symlink("s", secret), Hard("x", "s/y")], "No such file"),
        (
            &[Folder("a", 0o755), File("a/.wh...", "")],
            "whiteout of no name",
        ),
        (
            &[Folder("a", 0o755), File("a/.wh.", "")],
            "whiteout of no name",
        ),
        (
            &[Folder("a", 0o755), File("a/.wh..", "")],
            "whiteout of no name",
        ),
        (&[Device("x", 0, 0)], "whiteout's"),
        (&[Attribute("x", "trusted.overlay.opaque")], "overlay's own"),
        (&[Attribute("x", "user.overlay.redirect")], "overlay's own"),
        (&[File("a", ""), File("a/b", "")], "Not a directory"),
        (&[Symlink("l", "l"), File("l/b", "")], "Too many"),
        (&[Symlink("/", "x")], "the root is a folder"),
    ] {
        let Some(image) = Image::of(&[items]) else {
            return;
        };
        let Err(error) = image.unpack().await else {
            panic!("not refused, expected {cause}: {:?}", image.tree());
        };
        assert!(error.contains(cause), "{error} lacks {cause}");
        assert_eq!(fs::read_to_string(secret).unwrap(), "secret");
        let left = names(&image.folder.path().join("snapshots/ingest")).unwrap();
        assert!(left.is_empty(), "{left:?} is left of {cause}");
    }
}

#[tokio::test]
async fn attributes_of_programs_are_set_and_others_left_out() {
    let items = [
        Attribute("own", "user.own"),
        Attribute("machine", "trusted.own"),
        Attribute("label", "security.selinux"),
    ];
    let Some(image) = Image::of(&[&items]) else {
        return;
    };
    image.unpack().await.unwrap();
    let files = image.snapshots.lowers(&image.layers).remove(0);
    let read = |path: &str, name: &str| {
        let mut value = [0_u8; 8];
        let size = rustix::fs::lgetxattr(files.join(path), name, &mut value).ok()?;
        Some(value[..size].to_vec())
    };
    assert_eq!(read("own", "user.own").as_deref(), Some(&b"y"[..]));
    assert_eq!(read("machine", "trusted.own"), None);
    // Where there are labels, every file has one.
    let label = read("label", "security.selinux");
    assert_ne!(label.as_deref(), Some(&b"y"[..]));
}

#[tokio::test]
async fn users_that_are_a_device_are_not_opened() {
    for layers in [
        &[&[Device("etc/passwd", 1, 3)][..]][..],
        &[&[File("a", "a")], &[Device("etc/passwd", 1, 3)]],
        &[&[Device("null", 1, 3)], &[Symlink("etc/passwd", "../null")]],
    ] {
        let Some(image) = Image::of(layers) else {
            return;
        };
        // Where devices are none, opening one is an error.
        image.unpack().await.unwrap();
        let users = image.snapshots.users(&image.layers).unwrap();
        assert_eq!(users, UserFiles::default());
    }
}

#[tokio::test]
async fn folders_lie_no_deeper_than_can_be_removed() {
    // Every layer goes on where the link of the one before leads.
    let step = "d/".repeat(40);
    let target = "d/".repeat(39) + "d";
    let deep: Vec<String> = (0..8).map(|n| format!("l{n}/{step}")).collect();
    let mut items = vec![Folder(&step, 0o755), Symlink("l0", &target)];
    let links: Vec<(String, String)> = (1..8)
        .map(|n| (format!("l{n}"), format!("l{}/{target}", n - 1)))
        .collect();
    for (path, (link, to)) in deep.iter().zip(&links) {
        items.push(Folder(path, 0o755));
        items.push(Symlink(link, to));
    }
    let Some(image) = Image::of(&[&items]) else {
        return;
    };
    let error = image.unpack().await.unwrap_err();
    assert!(error.contains("deep"), "{error}");
}

#[tokio::test]
async fn what_an_image_says_of_itself_is_checked() {
    let Some(mut image) = Image::of(&[&[File("a", "a")]]) else {
        return;
    };
    image.layers[0].diff_id = Digest::of(b"something else");
    let error = image.unpack().await.unwrap_err();
    assert!(error.contains("something else than"), "{error}");

    let long = "x".repeat(2000);
    let many: Vec<Item<'_>> = (0..800).map(|_| File("zeros", &long)).collect();
    let Some(image) = Image::of(&[&many]) else {
        return;
    };
    let error = image.unpack().await.unwrap_err();
    assert!(error.contains("larger than allowed"), "{error}");
}

#[tokio::test]
async fn layers_are_shared_and_kept_as_long_as_needed() {
    let base = &[File("etc/passwd", "root:x:0:0::/root:/bin/sh\n")][..];
    let Some(image) = Image::of(&[base, &[File("a", "a")]]) else {
        return;
    };
    image.unpack().await.unwrap();
    let users = image.snapshots.users(&image.layers).unwrap();
    assert!(
        users.passwd.starts_with("root:"),
        "seen through the layer above"
    );
    let bottom = &image.layers[..1];
    assert!(
        image.snapshots.lowers(bottom)[0].is_dir(),
        "by the same name"
    );

    image.snapshots.retain([bottom].into_iter()).unwrap();
    let lowers = image.snapshots.lowers(&image.layers);
    assert_eq!([lowers[0].is_dir(), lowers[1].is_dir()], [true, false]);
    image.unpack().await.unwrap();
    assert!(lowers[1].is_dir());
    image.snapshots.retain([].into_iter()).unwrap();
    assert!(!lowers[0].exists());
    assert!(
        image.snapshots.lowers(&[])[0].is_dir(),
        "an image without layers"
    );
}

#[test]
fn a_layer_goes_whole() {
    let folder = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(folder.path().join("snapshots"), ROOM).unwrap();
    let layers = [layer(b"a")];
    let files = snapshots.lowers(&layers).remove(0);
    fs::create_dir_all(files.join("usr/bin")).unwrap();
    // What cannot be put aside is not touched.
    let ingest = folder.path().join("snapshots/ingest");
    fs::remove_dir(&ingest).unwrap();
    assert!(snapshots.retain([].into_iter()).is_err());
    assert!(files.join("usr/bin").is_dir());
    fs::create_dir(&ingest).unwrap();
    snapshots.retain([].into_iter()).unwrap();
    assert!(!snapshots.has(&chains(&layers)[0]));
    assert!(names(&ingest).unwrap().is_empty());
}

fn layer(id: &[u8]) -> ImageLayer {
    ImageLayer {
        digest: Digest::of(b""),
        media_type: String::new(),
        diff_id: Digest::of(id),
    }
}

#[test]
fn chain_ids_are_those_of_the_specification() {
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let both = Digest::of(format!("{a} {b}").as_bytes());
    assert_eq!(chains(&[layer(b"a"), layer(b"b")]), [a, both]);
}
