#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::EntryType;

use super::*;
use crate::media_types;

enum Item<'a> {
    File(&'a str, &'a [u8]),
    Symlink(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Folder(&'a str),
}
use Item::*;

fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        let (name, content) = match *item {
            File(name, content) => (name, content),
            Symlink(name, target) | Hard(name, target) => {
                header.set_entry_type(match item {
                    Symlink(..) => EntryType::Symlink,
                    _ => EntryType::Link,
                });
                header.set_link_name(target).unwrap();
                (name, &b""[..])
            }
            Folder(name) => {
                header.set_entry_type(EntryType::Directory);
                (name, &b""[..])
            }
        };
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

struct Image {
    _folder: tempfile::TempDir,
    store: Arc<ContentStore>,
    layers: Vec<Layer>,
}

impl Image {
    fn new(layers: &[(&str, Vec<u8>)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ContentStore::open(folder.path()).unwrap();
        let layers = layers
            .iter()
            .map(|(media_type, bytes)| Layer {
                digest: store.put(bytes).unwrap(),
                size: bytes.len() as u64,
                media_type: (*media_type).into(),
                title: None,
            })
            .collect();
        Self {
            _folder: folder,
            store,
            layers,
        }
    }

    fn of(layers: &[&[Item<'_>]]) -> Self {
        let layers: Vec<_> = layers
            .iter()
            .map(|items| (media_types::OCI_LAYER_GZIP, gzip(&archive(items))))
            .collect();
        Self::new(&layers)
    }

    fn extract(&self, path: &str) -> Result<String, String> {
        extract(&self.store, &self.layers, path, 1 << 20, 8 << 20)
            .map(|digest| {
                let content = std::fs::read(self.store.blob_path(&digest)).unwrap();
                String::from_utf8(content).unwrap()
            })
            .map_err(|error| error.to_string())
    }
}

#[test]
fn the_upper_layer_wins() {
    let image = Image::of(&[
        &[File("app.wasm", b"old"), File("other", b"x")],
        &[File("./app.wasm", b"new")],
        &[Folder("etc")],
    ]);
    assert_eq!(image.extract("/app.wasm").unwrap(), "new");
    assert_eq!(image.extract("other").unwrap(), "x");
    assert_eq!(image.extract("/x/../../app.wasm").unwrap(), "new");
}

#[test]
fn links_are_followed_within_the_image() {
    let image = Image::of(&[&[
        File("srv/real.wasm", b"content"),
        Symlink("srv/a.wasm", "real.wasm"),
        Symlink("b.wasm", "/srv/a.wasm"),
        Symlink("up.wasm", "../../../../srv/real.wasm"),
        Hard("hard.wasm", "srv/real.wasm"),
        Symlink("loop.wasm", "loop.wasm"),
        Symlink("host.wasm", "/etc/passwd"),
    ]]);
    for name in ["/srv/a.wasm", "/b.wasm", "/up.wasm", "/hard.wasm"] {
        assert_eq!(image.extract(name).unwrap(), "content", "{name}");
    }
    assert!(image.extract("/loop.wasm").unwrap_err().contains("links"));
    assert!(
        image
            .extract("/host.wasm")
            .unwrap_err()
            .contains("not in its layers")
    );
}

#[test]
fn whiteouts_hide_lower_layers() {
    for whiteout in ["srv/.wh.app.wasm", ".wh.srv", "srv/.wh..wh..opq"] {
        let image = Image::of(&[&[File("srv/app.wasm", b"old")], &[File(whiteout, b"")]]);
        assert!(image.extract("/srv/app.wasm").is_err(), "{whiteout}");
    }
    let image = Image::of(&[
        &[File("srv/app.wasm", b"old")],
        &[File("srv/app.wasm", b"new"), File("srv/.wh..wh..opq", b"")],
    ]);
    assert_eq!(image.extract("/srv/app.wasm").unwrap(), "new");
}

#[test]
fn long_names() {
    let name = format!("{}/app.wasm", "d".repeat(300));
    let image = Image::of(&[&[File(&name, b"content")]]);
    assert_eq!(image.extract(&name).unwrap(), "content");
}

#[test]
fn a_path_that_no_system_takes_is_not_looked_for() {
    let long = format!("/{}app.wasm", "d/".repeat(1 << 20));
    let image = Image::of(&[&[File("app.wasm", b"content")]]);
    let error = image.extract(&long).unwrap_err();
    assert!(error.contains("more than 4096 bytes"), "{error}");
}

#[test]
fn hostile_layers_are_refused() {
    let bomb = gzip(&archive(&[File("zeros", &vec![0; 9 << 20])]));
    let large = gzip(&archive(&[File("app.wasm", &vec![0; 2 << 20])]));
    let cut = {
        let whole = gzip(&archive(&[File("app.wasm", &vec![7; 1000])]));
        whole[..whole.len() / 2].to_vec()
    };
    for (media_type, bytes, cause) in [
        (media_types::OCI_LAYER_GZIP, bomb, "larger than allowed"),
        (media_types::OCI_LAYER_GZIP, large, "more than"),
        (media_types::OCI_LAYER_GZIP, cut, "damaged"),
        (media_types::OCI_LAYER_GZIP, b"no gzip".to_vec(), "damaged"),
        (media_types::OCI_LAYER, vec![0xff; 2048], "damaged"),
        (
            "application/vnd.oci.image.layer.v1.tar+encrypted",
            vec![],
            "cannot be read",
        ),
    ] {
        let image = Image::new(&[(media_type, bytes)]);
        let error = image.extract("/app.wasm").unwrap_err();
        assert!(error.contains(cause), "{error} lacks {cause}");
    }
    let image = Image::of(&[&[Folder("app.wasm")]]);
    assert!(
        image
            .extract("/app.wasm")
            .unwrap_err()
            .contains("is no file")
    );
}
