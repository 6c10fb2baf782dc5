//! Users of a Pod's own.

use coracle_runtime::IdRange;

use super::*;

const RANGE: IdRange = IdRange {
    first: 2_100_000_000,
};

fn owning() -> Pod {
    let mut pod = Pod::new();
    pod.sandbox.namespaces.users = Some(RANGE);
    pod
}

#[test]
fn what_is_joined_lies_where_the_pods_root_finds_it() {
    let mut pod = owning();
    let netns = "/run/netns/a";
    pod.sandbox.namespaces.network = Network::Namespace(netns.into());
    pod.sandbox.namespaces.share_processes = true;
    let plan = pod.plan().unwrap();
    let users = plan.users.unwrap();
    assert_eq!(users.namespace, Path::new("/shim/users"));
    assert_eq!(users.range, RANGE);
    let sources = users.pinned.iter().map(|pinned| pinned.source.to_str());
    let sources: Vec<_> = sources.map(Option::unwrap).collect();
    let [uts, ipc] = ["uts", "ipc"].map(|kind| format!("/proc/4711/ns/{kind}"));
    let expected = [&*uts, netns, "/shim/processes", &*ipc, "/shim/users"];
    assert_eq!(sources, expected);
    let namespaces = plan.spec["linux"]["namespaces"].as_array().unwrap();
    for namespace in namespaces {
        let kind = namespace["type"].as_str().unwrap();
        let path = match kind {
            "mount" => Value::Null,
            kind => json!(place::namespace(kind)),
        };
        assert_eq!(namespace["path"], path, "{kind}");
    }
    assert!(namespaces.iter().any(|of| of["type"] == "user"));
    assert_eq!(plan.spec["root"]["path"], json!(place::rootfs()));
    // Every volume is put in its place, with the sandbox's files.
    assert_eq!(plan.staged.len(), 1);
    assert_eq!(plan.staged[0].at, place::volume(0));

    let plan = Pod::new().plan().unwrap();
    assert_eq!((plan.users, plan.staged), (None, Vec::new()));
}

#[test]
fn later_processes_may_join_the_users() {
    let mut pod = owning();
    pod.config.security.no_new_privileges = true;
    pod.config.security.drop_capabilities = vec!["ALL".into()];
    let plan = pod.plan().unwrap();
    let granted = &plan.spec["process"]["capabilities"]["effective"];
    let rights = json!(["CAP_CHOWN", "CAP_SETPCAP", "CAP_SYS_ADMIN"]);
    assert_eq!(*granted, rights);
    // They have none of that when their program begins.
    assert_eq!(plan.capabilities, Capabilities::default());
}

#[test]
fn ids_that_a_pod_has_not_are_refused() {
    let refused = |edit: fn(&mut Security)| {
        let mut pod = owning();
        edit(&mut pod.config.security);
        pod.plan().map(drop)
    };
    assert_eq!(refused(|of| of.user = Some(65535)), Ok(()));
    assert!(refused(|of| of.user = Some(65536)).is_err());
    assert!(refused(|of| of.group = Some(65536)).is_err());
    let error = refused(|of| of.supplemental_groups = vec![1, 70000]).unwrap_err();
    assert!(error.contains("group 70000"), "{error}");
    let mut shared = Pod::new();
    shared.config.security.user = Some(65536);
    assert!(shared.plan().is_ok());
}

#[test]
fn users_of_its_own_go_with_nothing_of_the_machines() {
    let with = |edit: fn(&mut Namespaces)| {
        let mut pod = owning();
        edit(&mut pod.sandbox.namespaces);
        pod.plan().unwrap_err()
    };
    for error in [
        with(|of| of.host_pid = true),
        with(|of| of.host_ipc = true),
        with(|of| of.network = Network::Host),
    ] {
        assert!(error.contains("hostUsers: false"), "{error}");
    }
    let mut pod = owning();
    pod.config.mounts = vec![Mount {
        host_path: "/m".into(),
        container_path: "/m".into(),
        propagation: Propagation::Both,
        ..Mount::default()
    }];
    assert!(pod.plan().unwrap_err().contains("Bidirectional"));
}
