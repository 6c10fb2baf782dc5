//! Volumes on a real file system.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use coracle_runtime::GuestUser;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};

use super::*;

pub(super) fn pod(volumes: Value, mounts: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"a": "b"}},
        "spec": {
            "volumes": volumes,
            "containers": [{"name": "main", "volumeMounts": mounts}],
        },
    }))
    .unwrap()
}

pub(super) fn sources(color: &str) -> Sources {
    let map: ConfigMap =
        serde_json::from_value(json!({"data": {"color": color, "size": "big"}})).unwrap();
    let secret: Secret = serde_json::from_value(json!({"data": {"pw": "cw=="}})).unwrap();
    Sources {
        config_maps: BTreeMap::from([("cm".to_owned(), Some(map))]),
        secrets: BTreeMap::from([("s".to_owned(), Some(secret))]),
        tokens: BTreeMap::from([(tokens::TokenKey::new(None, None), "a.b.c".to_owned())]),
        trust: BTreeMap::from([
            (
                trust::TrustKey::Name("ca".to_owned()),
                Some("PEM".to_owned()),
            ),
            (trust::TrustKey::Name("none".to_owned()), None),
        ]),
        ..Sources::default()
    }
}

#[test]
fn unknown_volumes_are_refused_by_name() {
    let table = [
        (json!({"nfs": {"server": "s", "path": "/"}}), "type nfs"),
        (
            json!({"emptyDir": {"medium": "Tape"}}),
            "emptyDir with medium Tape",
        ),
    ];
    for (source, expected) in table {
        let mut volume = source;
        volume["name"] = json!("v");
        let error = check(&pod(json!([volume]), json!([])))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    let fine = json!([{"name": "a", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/"}}, {"name": "b", "configMap": {"name": "c"}}, {"name": "p", "emptyDir": {"medium": "HugePages-2Mi"}}]);
    check(&pod(fine, json!([]))).unwrap();
}

#[test]
fn projected_files_change_as_one() {
    let root = tempfile::tempdir().unwrap();
    let volumes = json!([{"name": "all", "projected": {"defaultMode": 0o600, "sources": [
        {"configMap": {"name": "cm", "items": [
            {"key": "color", "path": "etc/color", "mode": 0o644}]}},
        {"secret": {"name": "s"}},
        {"secret": {"name": "none", "optional": true}},
        {"downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"serviceAccountToken": {"path": "token"}},
        {"clusterTrustBundle": {"name": "ca", "path": "ca.crt"}},
        {"clusterTrustBundle": {"name": "none", "path": "none.crt", "optional": true}},
    ]}}]);
    let _torn_down = TornDown(root.path());
    let pod = pod(volumes, json!([]));
    let around = Surroundings::default();
    set_up(root.path(), &pod, &sources("red"), &around, Readers::Agent).unwrap();
    let volume = &pod::spec(&pod).volumes.as_ref().unwrap()[0];
    let folder = folder(root.path(), &pod, volume).unwrap();
    let read = |path: &str| std::fs::read_to_string(folder.join(path)).unwrap();
    assert_eq!(read("etc/color"), "red");
    assert_eq!(read("pw"), "s");
    assert_eq!(read("labels"), "a=\"b\"");
    assert_eq!(read("token"), "a.b.c");
    assert_eq!(
        (read("ca.crt").as_str(), read("none.crt").as_str()),
        ("PEM", "")
    );
    let mode = |path: &str| {
        let metadata = std::fs::metadata(folder.join(path)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("etc/color"), mode("pw")), (0o644, 0o600));

    let before = std::fs::read_link(folder.join("..data")).unwrap();
    set_up(root.path(), &pod, &sources("red"), &around, Readers::Agent).unwrap();
    let same = std::fs::read_link(folder.join("..data")).unwrap();
    assert_eq!(before, same, "nothing is written when nothing has changed");
    set_up(root.path(), &pod, &sources("blue"), &around, Readers::Agent).unwrap();
    assert_eq!(read("etc/color"), "blue");
    assert!(!folder.join(before).exists(), "the old files are gone");

    tear_down(root.path(), "u").unwrap();
    tear_down(root.path(), "u").unwrap();
    assert!(uids(root.path()).is_empty());
}

#[test]
fn names_that_are_gone_lose_their_links() {
    let folder = tempfile::tempdir().unwrap();
    let file = |text: &str| projection::File {
        bytes: text.as_bytes().to_vec(),
        mode: 0o644,
        user: None,
    };
    let one = projection::Files::from([("a".into(), file("1")), ("b".into(), file("2"))]);
    let two = projection::Files::from([("b".into(), file("2")), ("c".into(), file("3"))]);
    assert!(atomic::write(folder.path(), &one, Readers::Agent).unwrap());
    assert!(atomic::write(folder.path(), &two, Readers::Agent).unwrap());
    assert!(!atomic::write(folder.path(), &two, Readers::Agent).unwrap());
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(".."))
        .collect();
    names.sort();
    assert_eq!(names, ["b", "c"]);
}

#[test]
fn what_is_missing_is_named() {
    let root = tempfile::tempdir().unwrap();
    let around = Surroundings::default();
    let table = [
        (
            json!({"configMap": {"name": "none"}}),
            "configmap \"none\" not found",
        ),
        (
            json!({"configMap": {"name": "cm", "items": [{"key": "k", "path": "k"}]}}),
            "references non-existent config key: k",
        ),
        (
            json!({"configMap": {"name": "cm", "items": [{"key": "color", "path": "../x"}]}}),
            "invalid path: ../x",
        ),
        (
            json!({"projected": {"sources": [
                {"clusterTrustBundle": {"name": "none", "path": "ca.crt"}},
            ]}}),
            "clustertrustbundle \"none\" not found",
        ),
        (
            json!({"projected": {"sources": [
                {"podCertificate": {"signerName": "a.example/b", "keyType": "ED25519"}},
            ]}}),
            "volumes of type projected podCertificate are not supported",
        ),
    ];
    for (source, expected) in table {
        let mut volume = source;
        volume["name"] = json!("v");
        let pod = pod(json!([volume]), json!([]));
        let error =
            set_up(root.path(), &pod, &sources("red"), &around, Readers::Agent).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn mounts_stay_in_their_volumes() {
    let root = tempfile::tempdir().unwrap();
    let volumes = json!([
        {"name": "data", "emptyDir": {}},
        {"name": "config", "configMap": {"name": "cm"}},
    ]);
    let mounts = json!([
        {"name": "data", "mountPath": "/data"},
        {"name": "data", "mountPath": "/sub", "subPathExpr": "$(WHO)/deep", "readOnly": true},
        {"name": "config", "mountPath": "/etc/color", "subPath": "color"},
    ]);
    let pod = pod(volumes, mounts);
    set_up(
        root.path(),
        &pod,
        &sources("red"),
        &Surroundings::default(),
        Readers::Agent,
    )
    .unwrap();
    let container = &pod::spec(&pod).containers[0];
    let env = [("WHO".to_owned(), "me".to_owned())];
    let made = mounts::mounts(root.path(), &pod, container, &env, &BTreeMap::new()).unwrap();
    let read_only: Vec<bool> = made.iter().map(|mount| mount.read_only).collect();
    assert_eq!(read_only, [false, true, true]);
    assert!(made[1].host_path.ends_with("data/me/deep"));
    // Without a value it would be another folder, or all of the volume.
    for env in [vec![], vec![("WHO".to_owned(), String::new())]] {
        let refused = mounts::mounts(root.path(), &pod, container, &env, &BTreeMap::new());
        assert_eq!(refused.unwrap_err().to_string(), "missing value for WHO");
    }
    // What was resolved is not to be followed anew.
    assert!(made[1].without_links && !made[0].without_links);
    assert_eq!(std::fs::read_to_string(&made[2].host_path).unwrap(), "red");

    // A link out of the volume, as a hostile guest would leave it.
    let data = made[0].host_path.clone();
    std::os::unix::fs::symlink("/", data.join("out")).unwrap();
    for path in ["out/etc", "../x", "/etc"] {
        let mut pod = pod.clone();
        let spec = pod.spec.as_mut().unwrap();
        let mount = &mut spec.containers[0].volume_mounts.as_mut().unwrap()[0];
        mount.sub_path = Some(path.to_owned());
        let container = &pod::spec(&pod).containers[0];
        let refused = mounts::mounts(root.path(), &pod, container, &env, &BTreeMap::new());
        assert!(refused.is_err(), "{path}: {refused:?}");
    }
}

#[test]
fn an_image_is_mounted_by_its_digest_to_be_read() {
    let root = tempfile::tempdir().unwrap();
    let volumes = json!([{"name": "files", "image": {"reference": "files:v1"}}]);
    let mounts = json!([
        {"name": "files", "mountPath": "/all"},
        {"name": "files", "mountPath": "/part", "subPath": "etc/data"},
    ]);
    let mut pod = pod(volumes, mounts);
    let readers = Readers::Agent;
    let around = Surroundings::default();
    set_up(root.path(), &pod, &sources("red"), &around, readers).unwrap();
    let container = &pod::spec(&pod).containers[0];
    let of_images = mounts::volumes_of_images(&pod, container);
    let names: Vec<_> = of_images.iter().map(|(volume, _)| &volume.name).collect();
    assert_eq!(names, ["files"]);
    let images = BTreeMap::from([("files".to_owned(), "sha256:aa".to_owned())]);
    let made = mounts::mounts(root.path(), &pod, container, &[], &images).unwrap();
    for (mount, path) in made.iter().zip(["", "etc/data"]) {
        assert_eq!(mount.image.as_deref(), Some("sha256:aa"));
        assert_eq!(mount.host_path.to_str(), Some(path));
        assert!(mount.read_only && !mount.without_links);
    }
    let spec = pod.spec.as_mut().unwrap();
    let mount = &mut spec.containers[0].volume_mounts.as_mut().unwrap()[1];
    mount.sub_path = Some("../other".to_owned());
    let container = &pod::spec(&pod).containers[0];
    let refused = mounts::mounts(root.path(), &pod, container, &[], &images);
    assert!(refused.is_err(), "{refused:?}");
}

/// Whether the test can run. In a build that must run all tests it has to.
pub(super) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: it needs root");
    }
    root
}

/// Takes the volumes away whatever becomes of the test: a mount outlives it otherwise.
pub(super) struct TornDown<'a>(pub(super) &'a Path);

impl Drop for TornDown<'_> {
    fn drop(&mut self) {
        tear_down(self.0, "u").unwrap();
    }
}

#[test]
fn a_volume_in_memory_is_bounded_and_goes_with_its_pod() {
    if !is_root("a_volume_in_memory_is_bounded_and_goes_with_its_pod") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let volumes = json!([{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "64Ki"}}]);
    let pod = pod(volumes, json!([]));
    let set_up = || {
        let around = Surroundings::default();
        super::set_up(
            root.path(),
            &pod,
            &Sources::default(),
            &around,
            Readers::Agent,
        )
        .unwrap()
    };
    let _torn_down = TornDown(root.path());
    if !set_up().is_empty() {
        assert!(std::env::var_os("CI").is_none(), "root may not mount");
        eprintln!(
            "SKIPPED a_volume_in_memory_is_bounded_and_goes_with_its_pod: root may not mount"
        );
        return;
    }
    let volume = &pod::spec(&pod).volumes.as_ref().unwrap()[0];
    let folder = folder(root.path(), &pod, volume).unwrap();
    let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o777);
    std::fs::write(folder.join("small"), "kept").unwrap();
    assert!(set_up().is_empty());
    assert_eq!(
        std::fs::read_to_string(folder.join("small")).unwrap(),
        "kept"
    );
    let full = std::fs::write(folder.join("large"), vec![1; 128 << 10]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    tear_down(root.path(), "u").unwrap();
    assert!(!pod_folder(root.path(), "u").exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(root.path().to_str().unwrap()));
}

#[test]
fn a_used_folder_stays_where_it_is() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("v");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("file"), "kept").unwrap();
    let made = memory::set_up(&folder, Some(4096), 0o777).unwrap();
    assert_eq!(made, memory::Made::OnDisk);
    assert!(folder.join("file").exists());
    memory::tear_down(&folder).unwrap();
}

#[test]
fn tokens_lie_in_memory() {
    if !is_root("tokens_lie_in_memory") {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let root = tempfile::tempdir().unwrap();
    let sources_of = |part: Value| json!({"sources": [part]});
    let volumes = json!([
        {"name": "t", "projected": sources_of(json!({"serviceAccountToken": {"path": "token"}}))},
        {"name": "c", "projected": sources_of(json!({"configMap": {"name": "cm"}}))},
    ]);
    let pod = pod(volumes, json!([]));
    let _torn_down = TornDown(root.path());
    let around = Surroundings::default();
    let user = GuestUser {
        uid: 2_000_200_001,
        gid: 2_000_200_001,
    };
    for _ in 0..2 {
        set_up(
            root.path(),
            &pod,
            &sources("red"),
            &around,
            Readers::Guests(user),
        )
        .unwrap();
    }
    let volumes = pod::spec(&pod).volumes.as_ref().unwrap();
    let path = |index: usize| folder(root.path(), &pod, &volumes[index]).unwrap();
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    if device(&path(0)) == device(root.path()) {
        assert!(std::env::var_os("CI").is_none(), "root may not mount");
        eprintln!("SKIPPED tokens_lie_in_memory: root may not mount");
        return;
    }
    assert_eq!(device(&path(1)), device(root.path()));
    let mode = std::fs::metadata(path(0)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    release_memory(root.path(), "u").unwrap();
    assert_eq!(device(&path(0)), device(root.path()));
    assert_eq!(std::fs::read_dir(path(0)).unwrap().count(), 0);
}

#[test]
fn depth_and_propagation_are_as_the_mount_asks() {
    let root = tempfile::tempdir().unwrap();
    let mounts = json!([
        {"name": "v", "mountPath": "/a"},
        {"name": "v", "mountPath": "/b", "readOnly": true, "recursiveReadOnly": "Disabled"},
        {"name": "v", "mountPath": "/c", "readOnly": true, "recursiveReadOnly": "IfPossible"},
        {"name": "v", "mountPath": "/d", "readOnly": true, "recursiveReadOnly": "Enabled",
            "mountPropagation": "None"},
        {"name": "v", "mountPath": "/e", "mountPropagation": "HostToContainer"},
        {"name": "v", "mountPath": "/f", "mountPropagation": "Bidirectional"},
    ]);
    let pod = pod(json!([{"name": "v", "hostPath": {"path": "/"}}]), mounts);
    let container = &pod::spec(&pod).containers[0];
    let made = mounts::mounts(root.path(), &pod, container, &[], &BTreeMap::new()).unwrap();
    let made = made.iter().map(|m| (m.recursive_read_only, m.propagation));
    use coracle_runtime::Propagation::{Both, FromMachine, Private};
    let expected = [
        (false, Private),
        (false, Private),
        (true, Private),
        (true, Private),
        (false, FromMachine),
        (false, Both),
    ];
    assert!(made.eq(expected));
}

#[test]
fn what_is_of_the_machine_is_led_to_and_left_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let machine = tempfile::tempdir().unwrap();
    let path = machine.path().join("data");
    let volumes = json!([{"name": "h", "hostPath": {"path": path, "type": "DirectoryOrCreate"}}]);
    let pod = pod(
        volumes,
        json!([
            {"name": "h", "mountPath": "/whole"},
            {"name": "h", "mountPath": "/part", "subPath": "made/below"},
        ]),
    );
    let (around, user) = (Surroundings::default(), GuestUser { uid: 1, gid: 1 });
    let container = &pod::spec(&pod).containers[0];
    set_up(
        root.path(),
        &pod,
        &sources("red"),
        &around,
        Readers::Guests(user),
    )
    .unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o750)).unwrap();
    let made = mounts::mounts(root.path(), &pod, container, &[], &BTreeMap::new()).unwrap();
    assert_eq!(made[0].host_path, path);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&made[1].host_path), 0o750, "as open as the volume");
    mounts::check_for_guest(&pod, container, &made).unwrap();

    std::fs::remove_dir(&made[1].host_path).unwrap();
    std::fs::write(&made[1].host_path, "").unwrap();
    let error = mounts::check_for_guest(&pod, container, &made).unwrap_err();
    assert!(error.to_string().contains("/made/below is no folder"));

    let owner =
        |path: &Path| std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(path).unwrap());
    assert_eq!(owner(&path), rustix::process::getegid().as_raw());
    tear_down(root.path(), "u").unwrap();
    assert!(made[1].host_path.exists(), "the machine keeps what it has");
}
