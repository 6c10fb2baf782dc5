#![allow(clippy::unwrap_used)]

use coracle_runtime::ContainerId;

use super::*;

fn a_sandbox() -> PodSandboxConfig {
    PodSandboxConfig {
        pod: PodIdentity {
            namespace: "ns".into(),
            name: "web".into(),
            uid: "u-1".into(),
        },
        hostname: "web".into(),
        log_directory: "/logs/web".into(),
        ..Default::default()
    }
}

fn check(
    config: &ContainerConfig,
    sandbox: &PodSandboxConfig,
    image: &wire::Image,
) -> Result<wire::ContainerConfig, String> {
    container(&Input {
        sandbox,
        config,
        image,
        node: "/node",
        files: Path::new("/files"),
        recursive_read_only: false,
        huge_pages: &[2 << 20, 1 << 30],
        unified: true,
        strict_groups: true,
        staged: &[],
    })
}

#[test]
fn what_was_asked_is_found_again() {
    let config = PodSandboxConfig {
        cgroup_parent: Some("kubepods/burstable/podu-1".into()),
        privileged: true,
        ..a_sandbox()
    };
    let asked = sandbox(&config, "/node", false).unwrap();
    let kept = serde_json::from_str::<PodSandboxConfig>(&asked.annotations[CONFIG]).unwrap();
    assert_eq!(kept, config);
    assert_eq!(asked.labels[NODE_LABEL], "/node");
    assert_eq!(asked.labels["io.kubernetes.pod.uid"], "u-1");
    let linux = asked.linux.unwrap();
    assert_eq!(linux.cgroup_parent, "/kubepods/burstable/podu-1");
    assert!(linux.security_context.unwrap().privileged);
    let config = ContainerConfig {
        name: "main".into(),
        log_path: "main/0.log".into(),
        env: vec![("A".into(), "b".into())],
        stop_signal: Some("SIGQUIT".into()),
        oom_score_adj: Some(-997),
        ..Default::default()
    };
    let asked = check(&config, &a_sandbox(), &wire::Image::default()).unwrap();
    assert_eq!(asked.stop_signal, 18);
    let limits = asked.linux.as_ref().and_then(|of| of.resources.as_ref());
    assert_eq!(limits.unwrap().oom_score_adj, -997);
    assert_eq!(limits.unwrap().unified["memory.oom.group"], "1");
    let kept: Kept = serde_json::from_str(&asked.annotations[CONFIG]).unwrap();
    assert_eq!(kept.config, config);
    assert_eq!(kept.log, Path::new("/logs/web/main/0.log"));
    assert_eq!(asked.envs[0].value, "b");
}

#[test]
fn systemd_has_slices() {
    let of = |path: &str, systemd| cgroup_parent(Path::new(path), systemd);
    assert_eq!(of("kubepods/podu-1", false), "/kubepods/podu-1");
    let slice = "kubepods-burstable-podu_1.slice";
    assert_eq!(of("/kubepods/burstable/podu-1", true), slice);
}

#[test]
fn namespaces_are_the_pods_or_the_machines() {
    let of = |namespaces: Namespaces, target: Option<&str>| {
        let sandbox = PodSandboxConfig {
            namespaces,
            ..a_sandbox()
        };
        let config = ContainerConfig {
            target: target.map(|id| ContainerId(id.into())),
            ..Default::default()
        };
        let asked = check(&config, &sandbox, &wire::Image::default()).unwrap();
        let context = asked.linux.unwrap().security_context.unwrap();
        let of = context.namespace_options.unwrap();
        (of.network, of.pid, of.ipc, of.target_id)
    };
    use namespace::{CONTAINER, NODE, POD, TARGET};
    let own = of(Namespaces::default(), None);
    assert_eq!(own, (POD, CONTAINER, POD, String::new()));
    let shared = Namespaces {
        network: Network::Host,
        host_pid: true,
        host_ipc: true,
        ..Default::default()
    };
    assert_eq!(of(shared, Some("t")), (NODE, NODE, NODE, String::new()));
    let processes = Namespaces {
        network: Network::Namespace("/run/netns/a".into()),
        share_processes: true,
        ..Default::default()
    };
    assert_eq!(of(processes, None), (POD, POD, POD, String::new()));
    let debugger = of(Namespaces::default(), Some("t"));
    assert_eq!(debugger, (POD, TARGET, POD, "t".to_owned()));
    let own_users = PodSandboxConfig {
        namespaces: Namespaces {
            users: Some(coracle_runtime::IdRange { first: 1 << 20 }),
            ..Default::default()
        },
        ..a_sandbox()
    };
    let error = sandbox(&own_users, "/node", false).unwrap_err();
    assert!(error.contains("hostUsers"), "{error}");
}

#[test]
fn users_are_the_pods_or_the_images() {
    let of = |security: Security, uid: Option<i64>, name: &str| {
        let image = wire::Image {
            uid: uid.map(|value| wire::Int64Value { value }),
            username: name.into(),
            ..Default::default()
        };
        let config = ContainerConfig {
            security,
            ..Default::default()
        };
        let context = check(&config, &a_sandbox(), &image)?.linux.unwrap();
        let context = context.security_context.unwrap();
        let user = context.run_as_user.map(|of| of.value);
        Ok::<_, String>((user, context.run_as_username))
    };
    let non_root = |user| Security {
        non_root: true,
        user,
        ..Default::default()
    };
    assert_eq!(of(Security::default(), None, ""), Ok((None, String::new())));
    let named = of(Security::default(), None, "web");
    assert_eq!(named, Ok((None, "web".to_owned())));
    let number = of(non_root(None), Some(7), "");
    assert_eq!(number, Ok((Some(7), String::new())));
    assert_eq!(of(non_root(Some(9)), Some(0), "web").unwrap().0, Some(9));
    for (user, uid, name, said) in [
        (Some(0), None, "", "breaks non-root policy"),
        (None, Some(0), "", "image will run as root"),
        (None, None, "", "image will run as root"),
        (None, None, "web", "non-numeric user (web)"),
    ] {
        let error = of(non_root(user), uid, name).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn rights_are_those_that_were_asked_for() {
    let of = |security: Security| {
        let config = ContainerConfig {
            security,
            ..Default::default()
        };
        let asked = check(&config, &a_sandbox(), &wire::Image::default()).unwrap();
        asked.linux.unwrap().security_context.unwrap()
    };
    let usual = of(Security::default());
    assert_eq!(usual.masked_paths, MASKED_PATHS);
    assert_eq!(usual.readonly_paths, READ_ONLY_PATHS);
    assert_eq!(usual.seccomp, Some(wire::SecurityProfile::default()));
    let asked = of(Security {
        add_capabilities: vec!["NET_ADMIN".into()],
        drop_capabilities: vec!["ALL".into()],
        no_new_privileges: true,
        unmasked_proc: true,
        seccomp: Seccomp::Localhost("/p.json".into()),
        ..Default::default()
    });
    let capabilities = asked.capabilities.unwrap();
    assert_eq!(capabilities.add_capabilities, ["NET_ADMIN"]);
    assert_eq!(capabilities.drop_capabilities, ["ALL"]);
    assert!(asked.no_new_privs && asked.masked_paths.is_empty());
    assert_eq!(asked.seccomp.unwrap().localhost_ref, "/p.json");
}

#[test]
fn groups_of_the_image_are_left_out_where_the_runtime_can() {
    let ask = |strict, can| {
        let config = ContainerConfig {
            security: Security {
                supplemental_groups: vec![7],
                strict_groups: strict,
                ..Default::default()
            },
            ..Default::default()
        };
        let asked = container(&Input {
            sandbox: &a_sandbox(),
            config: &config,
            image: &wire::Image::default(),
            node: "/node",
            files: Path::new("/files"),
            recursive_read_only: false,
            huge_pages: &[],
            unified: true,
            strict_groups: can,
            staged: &[],
        });
        let context = asked?.linux.unwrap().security_context.unwrap();
        assert_eq!(context.supplemental_groups, [7]);
        Ok::<_, String>(context.supplemental_groups_policy)
    };
    assert_eq!(ask(false, false), Ok(groups_policy::MERGE));
    assert_eq!(ask(true, true), Ok(groups_policy::STRICT));
    let error = ask(true, false).unwrap_err();
    assert!(error.contains("supplementalGroupsPolicy"), "{error}");
    let of_pod = PodSandboxConfig {
        strict_groups: true,
        ..a_sandbox()
    };
    let asked = sandbox(&of_pod, "/node", false).unwrap().linux.unwrap();
    let policy = asked.security_context.unwrap().supplemental_groups_policy;
    assert_eq!(policy, groups_policy::STRICT);
}

#[test]
fn volumes_hide_the_pods_files_and_what_cannot_be_is_named() {
    let mount = |container: &str| Mount {
        host_path: "/volume".into(),
        container_path: container.into(),
        ..Mount::default()
    };
    let of = |mounts: Vec<Mount>, staged: &[Option<PathBuf>]| {
        let config = ContainerConfig {
            mounts,
            termination_message: Some("/message".into()),
            security: Security {
                read_only_root: true,
                ..Default::default()
            },
            ..Default::default()
        };
        container(&Input {
            sandbox: &a_sandbox(),
            config: &config,
            image: &wire::Image::default(),
            node: "/node",
            files: Path::new("/files"),
            recursive_read_only: false,
            huge_pages: &[],
            unified: true,
            strict_groups: true,
            staged,
        })
        .map(|asked| asked.mounts)
    };
    let mounts = of(vec![mount("/etc/hosts/")], &[]).unwrap();
    let found: Vec<(&str, &str, bool)> = mounts
        .iter()
        .map(|of| (&*of.container_path, &*of.host_path, of.readonly))
        .collect();
    let expected = [
        ("/etc/hostname", "/files/hostname", true),
        ("/etc/resolv.conf", "/files/resolv.conf", true),
        (TERMINATION_LOG, "/message", false),
        ("/etc/hosts/", "/volume", false),
    ];
    assert_eq!(found, expected);
    let staged = of(vec![mount("/a")], &[Some("/staged".into())]).unwrap();
    assert_eq!(staged.last().unwrap().host_path, "/staged");
    let image = Mount {
        image: Some("sha256:1".into()),
        ..mount("/a")
    };
    let error = of(vec![image], &[]).unwrap_err();
    assert!(error.contains("is an image"), "{error}");
    let all_depths = Mount {
        recursive_read_only: true,
        ..mount("/a")
    };
    let error = of(vec![all_depths], &[]).unwrap_err();
    assert!(error.contains("recursiveReadOnly"), "{error}");
}

#[test]
fn limits_are_in_the_units_of_the_kernel() {
    let of = resources(&Resources {
        cpu_request_millis: Some(500),
        cpu_limit_millis: Some(250),
        memory_limit_bytes: Some(1 << 20),
        ..Resources::default()
    });
    let units = (of.cpu_shares, of.cpu_quota, of.memory_limit_in_bytes);
    assert_eq!(units, (512, 25_000, 1 << 20));
    let of = resources(&Resources::default());
    let units = (of.cpu_shares, of.cpu_quota, of.memory_limit_in_bytes);
    assert_eq!(units, (2, -1, 0));
}

#[test]
fn huge_pages_are_those_that_were_asked_for() {
    let mut config = ContainerConfig::default();
    config.resources.huge_pages = [(2 << 20, 4 << 20)].into();
    let asked = check(&config, &a_sandbox(), &wire::Image::default()).unwrap();
    let limits = asked.linux.unwrap().resources.unwrap().hugepage_limits;
    let limits: Vec<(&str, u64)> = limits.iter().map(|of| (&*of.page_size, of.limit)).collect();
    assert_eq!(limits, [("2MB", 4 << 20), ("1GB", 0)]);
}

#[test]
fn profiles_of_apparmor_are_the_runtimes_where_none_is_asked_for() {
    for (asked, expected) in [
        (None, None),
        (Some(AppArmor::RuntimeDefault), Some((0, ""))),
        (Some(AppArmor::Unconfined), Some((1, ""))),
        (Some(AppArmor::Localhost("own".into())), Some((2, "own"))),
    ] {
        let mut config = ContainerConfig::default();
        config.security.app_armor = asked;
        let made = check(&config, &a_sandbox(), &wire::Image::default()).unwrap();
        let context = made.linux.unwrap().security_context.unwrap();
        let found = context.apparmor.as_ref();
        let found = found.map(|of| (of.profile_type, &*of.localhost_ref));
        assert_eq!(found, expected);
    }
}
