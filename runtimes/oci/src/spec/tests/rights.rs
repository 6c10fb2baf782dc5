//! What of the machine a container has.

use coracle_runtime::ContainerId;

use super::*;

#[test]
fn the_machine_is_hidden_unless_asked_for() {
    let masked = Pod::new().at("/linux/maskedPaths");
    assert!(masked.as_array().unwrap().contains(&json!("/proc/kcore")));
    let read_only = Pod::new().at("/linux/readonlyPaths");
    assert!(read_only.as_array().unwrap().contains(&json!("/proc/sys")));
    let unmask = |pod: &mut Pod| pod.config.security.unmasked_proc = true;
    check(unmask, "/linux/maskedPaths", Value::Null);
    // What would let a container out of its limits is no matter of /proc.
    let cgroups = json!(["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup"]);
    check(unmask, "/linux/readonlyPaths", cgroups);
    check(|_| (), "/root/readonly", json!(false));
    check(
        |pod| pod.config.security.read_only_root = true,
        "/root/readonly",
        json!(true),
    );
}

#[test]
fn nobody_looks_for_a_home_in_the_container() {
    let passwd =
        "root:x:0:0::/root:/bin/sh\nshort:x:1\nnone:x:2:2:::\nodd:x:3:3::rel:\nz:x:4:4::/\0:\n";
    for (user, of_image, of_pod, home) in [
        ("root", None, None, "/root"),
        ("root", Some(""), None, "/root"),
        ("root", Some("/own"), None, "/own"),
        ("root", Some("/own"), Some(""), "/root"),
        ("root", None, Some("/pod"), "/pod"),
        ("short", None, None, "/"),
        ("none", None, None, "/"),
        ("odd", None, None, "/"),
        ("z", None, None, "/"),
        ("99", None, None, "/"),
    ] {
        let mut pod = Pod::new();
        pod.users.passwd = passwd.into();
        pod.image.user = user.into();
        pod.image.env = of_image
            .map(|home| format!("HOME={home}"))
            .into_iter()
            .collect();
        pod.config.env = of_pod
            .map(|home: &str| ("HOME".into(), home.into()))
            .into_iter()
            .collect();
        let env = pod.at("/process/env");
        let names = env.as_array().unwrap().iter().filter_map(Value::as_str);
        let found: Vec<&str> = names
            .filter_map(|entry| entry.strip_prefix("HOME="))
            .collect();
        assert_eq!(found, [home], "{user} {of_image:?} {of_pod:?}");
    }
}

#[test]
fn further_processes_of_earlier_containers_are_given_a_home() {
    let passwd = "root:x:0:0::/root:/bin/sh\nown:x:7:7::/own:\n";
    for (uid, env, expected) in [
        (0, json!(["A=1", "HOME=/pod"]), json!(["A=1", "HOME=/pod"])),
        (0, json!(["A=1"]), json!(["A=1", "HOME=/root"])),
        (
            7,
            json!(["HOME=", "HOMES=/x"]),
            json!(["HOMES=/x", "HOME=/own"]),
        ),
        (9, json!([]), json!(["HOME=/"])),
        (7, Value::Null, json!(["HOME=/own"])),
    ] {
        let mut process = json!({ "user": { "uid": uid }, "env": env });
        let users = || {
            Ok(UserFiles {
                passwd: passwd.into(),
                ..UserFiles::default()
            })
        };
        give_home(&mut process, users).unwrap();
        assert_eq!(process["env"], expected, "{uid} {env}");
    }
    // Who has one needs nobody's users.
    let mut process = json!({ "env": ["HOME=/pod"] });
    let none = || Err(std::io::Error::other("unread"));
    give_home(&mut process, none).unwrap();
}

#[test]
fn processes_have_the_profile_of_apparmor() {
    check(|_| (), "/process/apparmorProfile", Value::Null);
    check(
        |pod| pod.app_armor = Some("own"),
        "/process/apparmorProfile",
        json!("own"),
    );
}

#[test]
fn sysctls_are_of_namespaces_of_the_pod() {
    let with = |name: &str, namespaces: Namespaces| {
        let mut pod = Pod::new();
        pod.sandbox.namespaces = namespaces;
        pod.sandbox.namespaces.sysctls = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
        pod.plan().map(|plan| plan.spec["linux"]["sysctl"].clone())
    };
    let own = Namespaces::default;
    assert_eq!(
        with("net.core.somaxconn", own()),
        Ok(json!({"net.core.somaxconn": "1"}))
    );
    assert!(with("kernel.shm_rmid_forced", own()).is_ok());
    assert!(
        with("kernel.panic", own())
            .unwrap_err()
            .contains("not of a namespace")
    );
    let host = Namespaces {
        network: Network::Host,
        ..own()
    };
    assert!(
        with("net.core.somaxconn", host)
            .unwrap_err()
            .contains("the machine's")
    );
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let mut pod = Pod::new();
    pod.config.mounts = vec![Mount {
        host_path: "/dev".into(),
        container_path: "/dev/".into(),
        ..Mount::default()
    }];
    assert!(pod.plan().unwrap_err().contains("at /dev"));
}

/// A container with all rights, as the engines have it.
#[test]
fn nothing_of_the_machine_is_kept_from_the_privileged() {
    let privileged = |pod: &mut Pod| {
        pod.config.security.privileged = true;
        pod.config.security.drop_capabilities = vec!["KILL".into()];
        pod.config.security.seccomp = Seccomp::Localhost("/p.json".into());
        pod.unified = true;
    };
    for path in ["maskedPaths", "seccomp"] {
        check(privileged, &format!("/linux/{path}"), Value::Null);
    }
    check(privileged, "/linux/readonlyPaths", json!([]));
    let all = json!([{"allow": true, "access": "rwm"}]);
    check(privileged, "/linux/resources/devices", all);
    let device = json!({
        "path": "/dev/loop0", "type": "b", "major": 7, "minor": 0, "fileMode": 0o660, "uid": 0,
        "gid": 6,
    });
    check(privileged, "/linux/devices", json!([device]));
    check(|_| (), "/linux/devices", Value::Null);
    let mut pod = Pod::new();
    privileged(&mut pod);
    let capabilities = pod.plan().unwrap().capabilities;
    assert!(
        ["SYS_ADMIN", "MKNOD", "KILL"]
            .iter()
            .all(|c| capabilities.has(c))
    );
    assert!(!capabilities.has("SYS_MODULE"), "the agent lacks it itself");
    assert!(!filtered(&pod.config.security));
    // It is in the machine's cgroups.
    let namespaces = pod.at("/linux/namespaces").to_string();
    assert!(!namespaces.contains("cgroup"), "{namespaces}");
    for (edit, access) in [(privileged as fn(&mut Pod), "rw"), (|_| (), "ro")] {
        let mut pod = Pod::new();
        edit(&mut pod);
        let mounts = pod.at("/mounts");
        for path in ["/sys", "/sys/fs/cgroup"] {
            let mut mounts = mounts.as_array().unwrap().iter();
            let mount = mounts.find(|mount| mount["destination"] == path).unwrap();
            let last = mount["options"].as_array().unwrap().last().unwrap();
            assert_eq!(last, access, "{path}");
        }
    }
}

#[test]
fn the_processes_of_a_target_are_seen_through_a_link_of_the_shims() {
    let join = |pod: &mut Pod| pod.config.target = Some(ContainerId("other".into()));
    let mut pod = Pod::new();
    join(&mut pod);
    let bundle = pod.at("/linux/namespaces/3/path");
    assert!(bundle.as_str().unwrap().ends_with("/processes"), "{bundle}");
    let mounts = pod.at("/mounts");
    let mut mounts = mounts.as_array().unwrap().iter();
    let cgroup = mounts.find(|mount| mount["destination"] == "/sys/fs/cgroup");
    // As where all containers of the Pod share them.
    assert_eq!(cgroup.unwrap()["source"], "tmpfs");
    // What the whole Pod shares is not another container's.
    let both = |pod: &mut Pod| {
        join(pod);
        pod.sandbox.namespaces.share_processes = true;
    };
    let expected = json!({"type": "pid", "path": "/shim/processes"});
    check(both, "/linux/namespaces/3", expected);
}

#[test]
fn processes_are_shared_where_the_pod_says_so() {
    let share = |pod: &mut Pod| pod.sandbox.namespaces.share_processes = true;
    let expected = json!({"type": "pid", "path": "/shim/processes"});
    check(share, "/linux/namespaces/3", expected);
    let mut pod = Pod::new();
    share(&mut pod);
    // libcontainer would look the cgroup up under another process's number.
    let mounts = pod.at("/mounts");
    let cgroups: Vec<(&str, &str)> = mounts
        .as_array()
        .unwrap()
        .iter()
        .map(|m| {
            (
                m["destination"].as_str().unwrap(),
                m["source"].as_str().unwrap(),
            )
        })
        .filter(|(path, _)| path.starts_with("/sys/fs/cgroup"))
        .collect();
    let part = "/sys/fs/cgroup/cpu,cpuacct";
    let source = format!("{part}/coracle/poduid/id");
    assert_eq!(cgroups, [("/sys/fs/cgroup", "tmpfs"), (part, &*source)]);
}

#[test]
fn volumes_that_propagate_are_put_below_the_containers_folder_first() {
    let volume = |propagation| Mount {
        host_path: "/v".into(),
        container_path: "/in".into(),
        propagation,
        ..Mount::default()
    };
    let plan = |volume| {
        let mut pod = Pod::new();
        pod.config.mounts = vec![volume];
        pod.plan().unwrap()
    };
    let source = |plan: &Plan| {
        let mounts = plan.spec["mounts"].as_array().unwrap();
        let mut bound = mounts.iter().filter(|m| m["destination"] == "/in");
        bound.next().unwrap()["source"].clone()
    };
    let private = plan(volume(Propagation::Private));
    assert_eq!((source(&private), private.staged.len()), (json!("/v"), 0));
    for (propagation, root) in [
        (Propagation::FromMachine, Value::Null),
        (Propagation::Both, json!("shared")),
    ] {
        let plan = plan(volume(propagation));
        assert_eq!(source(&plan), json!("/c/staged/0"));
        assert_eq!(plan.spec["linux"]["rootfsPropagation"], root);
        let staged = Staged {
            source: "/v".into(),
            at: "/c/staged/0".into(),
            propagation,
            without_links: false,
            lowers: Vec::new(),
        };
        assert_eq!(plan.staged, [staged]);
    }
    let plain = plan(Mount {
        without_links: true,
        ..volume(Propagation::Private)
    });
    assert_eq!(source(&plain), json!("/c/staged/0"));
    assert!(plain.staged[0].without_links);
    let deep = plan(Mount {
        read_only: true,
        recursive_read_only: true,
        ..volume(Propagation::Private)
    });
    assert!(deep.spec["mounts"].to_string().contains("\"rro\""));
}

#[test]
fn an_image_is_mounted_to_be_read_alone() {
    let plan = |digest: &str| {
        let mut pod = Pod::new();
        pod.config.mounts = vec![Mount {
            host_path: "etc".into(),
            container_path: "/in".into(),
            image: Some(digest.to_owned()),
            ..Mount::default()
        }];
        pod.plan()
    };
    let known = plan("sha256:aa").unwrap();
    let staged = Staged {
        source: "etc".into(),
        at: "/c/staged/0".into(),
        propagation: Propagation::Private,
        without_links: false,
        lowers: vec!["/layers/1".into()],
    };
    assert_eq!(known.staged, [staged]);
    let mounts = known.spec["mounts"].as_array().unwrap();
    let mut bound = mounts.iter().filter(|m| m["destination"] == "/in");
    let options = bound.next().unwrap()["options"].to_string();
    for option in ["ro", "noexec", "nodev"] {
        assert!(options.contains(&format!("\"{option}\"")), "{options}");
    }
    let unknown = plan("sha256:bb").unwrap_err();
    assert!(unknown.contains("sha256:bb"), "{unknown}");
}
