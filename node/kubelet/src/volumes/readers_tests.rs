//! Who may read and write volumes.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;

use coracle_runtime::GuestUser;
use serde_json::json;

use super::tests::{TornDown, is_root, pod, sources};
use super::*;

#[test]
fn volumes_are_the_users_of_the_pods_guests_only() {
    if !is_root("volumes_are_the_users_of_the_pods_guests_only") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let of = |id| GuestUser { uid: id, gid: id };
    let (user, other) = (of(2_000_200_001), of(2_000_200_002));
    let volumes = json!([
        {"name": "data", "emptyDir": {}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {"name": "cm", "configMap": {"name": "cm", "items": [{"key": "color", "path": "etc/color"}]}},
    ]);
    let pod = pod(volumes, json!([]));
    let around = Surroundings::default();
    let sources = sources("red");
    // As an agent left it whose guests ran as root.
    set_up(root.path(), &pod, &sources, &around, Readers::Agent).unwrap();
    let volumes = pod::spec(&pod).volumes.as_ref().unwrap();
    let path = |index: usize| folder(root.path(), &pod, &volumes[index]).unwrap();
    std::fs::create_dir(path(0).join("old")).unwrap();
    std::fs::write(path(0).join("old/file"), "old").unwrap();
    for _ in 0..2 {
        let on_disk = set_up(root.path(), &pod, &sources, &around, Readers::Guests(user)).unwrap();
        assert!(on_disk.is_empty());
    }
    let run = |user: GuestUser, script: &str| {
        std::process::Command::new("sh")
            .args(["-ec", script])
            .current_dir(root.path())
            .uid(user.uid)
            .gid(user.gid)
            .output()
            .unwrap()
    };
    let below = "cd pods/u/volumes";
    let reads = format!(
        "{below}; cat kubernetes.io~secret/s/pw kubernetes.io~configmap/cm/etc/color; \
         cd kubernetes.io~empty-dir/data; echo new >> old/file; echo x > made; cat old/file made"
    );
    let done = run(user, &reads);
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(text, "sredoldnew\nx\n");
    // Neither what is read only nor anything above is the guests' to change or to list.
    for script in [
        "echo x > kubernetes.io~secret/s/..data/pw",
        "rm kubernetes.io~secret/s/pw",
        "ls",
    ] {
        assert!(
            !run(user, &format!("{below}; {script}")).status.success(),
            "{script}"
        );
    }
    let foreign = run(other, below);
    assert!(!foreign.status.success(), "{foreign:?}");
    let secret = std::fs::metadata(path(1).join("pw")).unwrap();
    assert_eq!(
        (secret.uid(), secret.gid(), secret.mode() & 0o777),
        (0, user.gid, 0o440)
    );
    tear_down(root.path(), "u").unwrap();
}

#[test]
fn files_of_containers_are_as_their_pod_asks() {
    if !is_root("files_of_containers_are_as_their_pod_asks") {
        return;
    }
    let token = json!({"serviceAccountToken": {"path": "token"}});
    let volumes = json!([
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {"name": "data", "emptyDir": {}},
        {"name": "t", "projected": {"sources": [token]}},
    ]);
    let mut pod = pod(volumes, json!([]));
    let context = json!({"runAsUser": 1000});
    pod.spec.as_mut().unwrap().security_context = serde_json::from_value(context).unwrap();
    let guests = Readers::Guests(GuestUser { uid: 7, gid: 7 });
    let containers = |fs_group| Readers::Containers { fs_group };
    // User, group and mode of a Secret, of a folder, and of a token.
    let table = [
        (
            vec![containers(None)],
            [(0, 0, 0o400), (0, 0, 0o777), (1000, 0, 0o600)],
        ),
        (
            vec![containers(Some(9))],
            [(0, 9, 0o440), (0, 9, 0o2777), (1000, 9, 0o640)],
        ),
        // A guest that is noticed late.
        (
            vec![containers(None), guests],
            [(0, 7, 0o440), (0, 7, 0o2777), (0, 7, 0o640)],
        ),
    ];
    for (readers, wanted) in table {
        let root = tempfile::tempdir().unwrap();
        let _torn_down = TornDown(root.path());
        for readers in &readers {
            set_up(
                root.path(),
                &pod,
                &sources("red"),
                &Surroundings::default(),
                *readers,
            )
            .unwrap();
        }
        let volumes = pod::spec(&pod).volumes.as_ref().unwrap();
        let files = ["pw", "", "token"];
        let found = volumes.iter().zip(files).map(|(volume, file)| {
            let path = folder(root.path(), &pod, volume).unwrap().join(file);
            let of = std::fs::metadata(path).unwrap();
            (of.uid(), of.gid(), of.mode() & 0o7777)
        });
        assert_eq!(found.collect::<Vec<_>>(), wanted, "{readers:?}");
    }
}
