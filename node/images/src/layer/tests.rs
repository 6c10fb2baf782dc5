#![allow(clippy::unwrap_used)]

use std::io::Write;

use super::*;

/// An archive of one file, with what an extended header says of it.
fn archive(extended: &[(&str, &[u8])], content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let extended = extended.iter().map(|(key, value)| (*key, *value));
    builder.append_pax_extensions(extended).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o4755);
    header.set_uid(1);
    header.set_gid(2);
    header.set_mtime(3);
    builder.append_data(&mut header, "file", content).unwrap();
    builder.into_inner().unwrap()
}

type Contents = Vec<(Entry, Vec<u8>)>;

/// What a layer of those bytes reads as: entries with their contents, and the archive's digest.
fn check(blob: &[u8], budget: Budget) -> Result<(Contents, Digest), String> {
    let folder = tempfile::tempdir().unwrap();
    let store = ContentStore::open(folder.path()).unwrap();
    let digest = store.put(blob).unwrap();
    let mut entries = Vec::new();
    let mut budget = budget;
    let read = read::<LayerError>(
        &store,
        &digest,
        media_types::OCI_LAYER,
        &mut budget,
        |entry, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            entries.push((entry, bytes));
            Ok(ControlFlow::Continue(()))
        },
    );
    let digest = read.map_err(|error| error.to_string())?;
    Ok((entries, digest.unwrap()))
}

const ROOM: Budget = Budget {
    bytes: 1 << 20,
    entries: 100,
    expansion: crate::unpack::EXPANSION,
};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Frames of zstd with uncompressed blocks (RFC 8878), with a frame to skip in between.
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    for part in bytes.chunks(1000) {
        stream.extend([0x28, 0xb5, 0x2f, 0xfd]);
        // One segment, whose size stands in four bytes.
        stream.push(0b1010_0000);
        stream.extend((part.len() as u32).to_le_bytes());
        let block = (part.len() as u32) << 3 | 1;
        stream.extend(&block.to_le_bytes()[..3]);
        stream.extend(part);
    }
    stream
}

#[test]
fn every_compression_gives_the_same_archive() {
    let archive = archive(&[], &[7; 5000]);
    for blob in [archive.clone(), gzip(&archive), zstd(&archive)] {
        let (entries, digest) = check(&blob, ROOM).unwrap();
        assert_eq!(digest, Digest::of(&archive));
        assert_eq!(entries[0].1, [7; 5000]);
    }
}

#[test]
fn headers_are_read() {
    let long = "d/".repeat(200) + "file";
    let blob = archive(
        &[
            ("path", long.as_bytes()),
            ("uid", b"3000000"),
            ("mtime", b"1700000000.25"),
            ("SCHILY.xattr.user.a", b"\0b"),
            ("comment", b"nothing"),
        ],
        b"content",
    );
    let (entries, _) = check(&blob, ROOM).unwrap();
    let expected = Entry {
        path: long.into(),
        kind: EntryKind::File(7),
        mode: 0o4755,
        uid: 3_000_000,
        gid: 2,
        modified: (1_700_000_000, 250_000_000),
        attributes: vec![("user.a".into(), b"\0b".to_vec())],
    };
    assert_eq!(entries, [(expected, b"content".to_vec())]);
}

#[test]
fn what_is_no_honest_archive_is_refused() {
    let honest = archive(&[], &[0; 5000]);
    let few = Budget {
        bytes: 4000,
        ..ROOM
    };
    let none = Budget { entries: 0, ..ROOM };
    let bomb = Budget {
        expansion: Expansion {
            allowance: 4000,
            ratio: 3,
        },
        ..ROOM
    };
    let cut = &gzip(&honest)[..40];
    let long = vec![b'x'; 2 << 20];
    // Each of its extended headers is short enough.
    let mut many = tar::Builder::new(Vec::new());
    for _ in 0..3 {
        let value = &long[..600 << 10];
        many.append_pax_extensions([("SCHILY.xattr.user.a", value)])
            .unwrap();
    }
    let many = many.into_inner().unwrap();
    let wide = Budget {
        bytes: 8 << 20,
        ..ROOM
    };
    for (blob, budget, cause) in [
        (gzip(&honest), few, "larger than allowed"),
        (zstd(&honest), few, "larger than allowed"),
        (gzip(&honest), bomb, "a decompression bomb"),
        (honest.clone(), none, "more entries than allowed"),
        (cut.to_vec(), ROOM, "damaged"),
        (zstd(&honest)[..900].to_vec(), ROOM, "damaged"),
        (honest[..600].to_vec(), ROOM, "unexpected EOF"),
        (archive(&[("size", b"9")], b"x"), ROOM, "two sizes"),
        (archive(&[("uid", b"-1")], b"x"), ROOM, "no number"),
        (archive(&[("uid", b"4294967296")], b"x"), ROOM, "too large"),
        (archive(&[("GNU.sparse.major", b"1")], b"x"), ROOM, "sparse"),
        (archive(&[("path", &long)], b"x"), wide, "too long"),
        (many, wide, "too long"),
    ] {
        let error = check(&blob, budget).unwrap_err();
        assert!(error.contains(cause), "{error} lacks {cause}");
    }
}

#[test]
fn every_entry_may_have_long_headers() {
    let value = vec![0; 600 << 10];
    let one = archive(&[("SCHILY.xattr.user.a", &value)], b"");
    // Without the blocks of zeros at the end.
    let both = [&one[..one.len() - 1024], &one].concat();
    let wide = Budget {
        bytes: 8 << 20,
        ..ROOM
    };
    let (entries, _) = check(&both, wide).unwrap();
    assert_eq!(entries.len(), 2);
}

#[test]
fn a_layer_expands_within_reason() {
    let usual = crate::unpack::EXPANSION;
    let gib = 1 << 30;
    for (blob, most) in [
        (0, 4 * gib),
        (gib / 100, 4 * gib),
        (gib, 200 * gib),
        (u64::MAX / 2, u64::MAX),
    ] {
        assert_eq!(usual.most(blob), most, "{blob}");
    }
    // What is not compressed does not expand.
    let archive = archive(&[], &[0; 5000]);
    let tight = Budget {
        expansion: Expansion {
            allowance: 0,
            ratio: 1,
        },
        ..ROOM
    };
    check(&archive, tight).unwrap();
}
