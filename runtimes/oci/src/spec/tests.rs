#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use coracle_runtime::{Mount, PodIdentity, Security};

use super::*;

mod rights;
mod users;

/// A Pod of one container, for tests to edit.
struct Pod {
    sandbox: PodSandboxConfig,
    config: ContainerConfig,
    image: ImageConfig,
    users: UserFiles,
    unified: bool,
    filters_devices: bool,
    huge_pages: Vec<u64>,
    app_armor: Option<&'static str>,
    volumes: Vec<(PathBuf, PathBuf)>,
}

impl Pod {
    fn new() -> Self {
        Self {
            sandbox: PodSandboxConfig {
                pod: PodIdentity {
                    namespace: "ns".into(),
                    name: "pod".into(),
                    uid: "uid".into(),
                },
                hostname: "host".into(),
                ..Default::default()
            },
            config: ContainerConfig {
                name: "main".into(),
                image: "app:1".into(),
                ..Default::default()
            },
            image: ImageConfig {
                cmd: vec!["app".into()],
                ..ImageConfig::default()
            },
            users: UserFiles {
                passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/:/bin/sh\n".into(),
                group: "root:x:0:\nweb:x:44:\nlogs:x:55:other,web\n".into(),
            },
            unified: false,
            filters_devices: true,
            huge_pages: Vec::new(),
            app_armor: None,
            volumes: Vec::new(),
        }
    }

    fn plan(&self) -> Result<Plan, String> {
        plan(&Input {
            sandbox: &self.sandbox,
            config: &self.config,
            image: &self.image,
            users: &self.users,
            cgroup: Path::new("/coracle/poduid/id"),
            unified: self.unified,
            filters_devices: self.filters_devices,
            hierarchies: &["/sys/fs/cgroup/cpu,cpuacct".into()],
            huge_pages: &self.huge_pages,
            files: &[("/sandbox/hosts".into(), "/etc/hosts")],
            volumes: &self.volumes,
            images: &BTreeMap::from([("sha256:aa".to_owned(), vec!["/layers/1".into()])]),
            shim: 4711,
            pod_users: Path::new("/shim/users"),
            processes: Path::new("/shim/processes"),
            devices: &[Device {
                path: "/dev/loop0".into(),
                block: true,
                major: 7,
                minor: 0,
                mode: 0o660,
                uid: 0,
                gid: 6,
            }],
            app_armor: self.app_armor,
            capabilities: u64::MAX >> 23 & !(1 << 16),
            least_oom_score: -500,
            bundle: Path::new("/c"),
        })
    }

    fn at(&self, pointer: &str) -> Value {
        self.plan()
            .unwrap()
            .spec
            .pointer(pointer)
            .cloned()
            .unwrap_or_default()
    }
}

/// What the specification has at a place after an edit, or the error.
fn check(edit: impl FnOnce(&mut Pod), pointer: &str, expected: Value) {
    let mut pod = Pod::new();
    edit(&mut pod);
    let found = match pod.plan() {
        Ok(plan) => plan.spec.pointer(pointer).cloned().unwrap_or_default(),
        Err(error) => error.into(),
    };
    assert_eq!(found, expected, "{pointer}");
}

#[test]
fn memory_is_taken_from_whom_the_pod_says() {
    for (score, expected) in [
        (None, Value::Null),
        (Some(900), json!(900)),
        (Some(-997), json!(-500)),
    ] {
        let edit = |pod: &mut Pod| pod.config.oom_score_adj = score;
        check(edit, "/process/oomScoreAdj", expected);
    }
}

#[test]
fn the_process_is_the_pods_over_the_images() {
    check(|_| (), "/process/args", json!(["app"]));
    check(
        |p| p.config.args = vec!["x".into()],
        "/process/args",
        json!(["x"]),
    );
    let path = format!("PATH={PATH}");
    check(
        |pod| {
            pod.image.env = vec!["PATH=/own".into(), "A=1".into()];
            pod.config.env = vec![("A".into(), "2".into())];
        },
        "/process/env",
        json!(["PATH=/own", "HOSTNAME=host", "A=2", "HOME=/root"]),
    );
    check(
        |_| (),
        "/process/env",
        json!([path, "HOSTNAME=host", "HOME=/root"]),
    );
    check(|_| (), "/process/cwd", json!("/"));
    check(
        |p| p.image.working_dir = "/srv".into(),
        "/process/cwd",
        json!("/srv"),
    );
    check(
        |p| p.config.working_dir = Some("rel".into()),
        "/process/cwd",
        json!("/rel"),
    );
    let none = "no command specified: neither the container nor its image app:1 names one";
    check(|pod| pod.image.cmd.clear(), "", json!(none));
}

#[test]
fn users_are_looked_up_in_the_image() {
    let user = |uid: u32, gid: u32, groups: &[u32]| json!({"uid": uid, "gid": gid, "additionalGids": groups});
    for (image, run_as, expected) in [
        ("", (None, None), user(0, 0, &[0])),
        ("web", (None, None), user(33, 44, &[44, 55])),
        ("33", (None, None), user(33, 44, &[44, 55])),
        ("web:logs", (None, None), user(33, 55, &[55])),
        ("web:7", (None, None), user(33, 7, &[7, 55])),
        ("1234", (None, None), user(1234, 0, &[0])),
        ("web:logs", (Some(1000), None), user(1000, 0, &[0])),
        ("root", (Some(33), None), user(33, 44, &[44, 55])),
        ("web", (None, Some(9)), user(33, 9, &[9, 55])),
        (
            "nobody",
            (None, None),
            json!("unable to find user nobody: no matching entries in passwd file"),
        ),
        (
            "web:none",
            (None, None),
            json!("unable to find group none: no matching entries in group file"),
        ),
    ] {
        check(
            |pod| {
                pod.image.user = image.into();
                (pod.config.security.user, pod.config.security.group) = run_as;
            },
            "/process/user",
            expected,
        );
    }
    let more = |pod: &mut Pod| pod.config.security.supplemental_groups = vec![5, 3];
    check(more, "/process/user/additionalGids", json!([0, 3, 5]));
    let strict = |pod: &mut Pod| {
        pod.image.user = "web".into();
        pod.config.security.supplemental_groups = vec![5];
        pod.config.security.strict_groups = true;
    };
    check(strict, "/process/user", user(33, 44, &[5, 44]));
    let refused = json!("container has runAsNonRoot and image will run as root");
    check(|pod| pod.config.security.non_root = true, "", refused);
    check(
        |pod| (pod.config.security.non_root, pod.image.user) = (true, "web".into()),
        "/process/user/uid",
        json!(33),
    );
}

#[test]
fn capabilities_are_dropped_and_added() {
    let check = |add: &[&str], drop: &[&str], filters, has: &[&str], lacks: &[&str]| {
        let mut pod = Pod::new();
        let strings = |of: &[&str]| of.iter().map(|s| (*s).to_owned()).collect();
        pod.config.security.add_capabilities = strings(add);
        pod.config.security.drop_capabilities = strings(drop);
        pod.filters_devices = filters;
        let capabilities = pod.plan().unwrap().capabilities;
        assert!(
            has.iter().all(|c| capabilities.has(c)),
            "{capabilities:?} lacks one of {has:?}"
        );
        assert!(
            !lacks.iter().any(|c| capabilities.has(c)),
            "{capabilities:?} has one of {lacks:?}"
        );
    };
    check(
        &[],
        &[],
        true,
        &["CHOWN", "MKNOD", "KILL"],
        &["SYS_ADMIN", "NET_ADMIN"],
    );
    check(
        &["NET_ADMIN"],
        &["KILL"],
        true,
        &["CHOWN", "NET_ADMIN"],
        &["KILL"],
    );
    check(
        &["CAP_SYS_TIME"],
        &["ALL"],
        true,
        &["SYS_TIME"],
        &["CHOWN", "KILL"],
    );
    check(
        &["ALL"],
        &["SYS_BOOT"],
        true,
        &["SYS_ADMIN", "BPF"],
        &["SYS_BOOT"],
    );
    // Where devices are not filtered, nobody makes one.
    check(&[], &[], false, &["CHOWN"], &["MKNOD"]);
    check(&["ALL"], &[], false, &["SYS_ADMIN"], &["MKNOD"]);

    let refused = |add: &str, filters| {
        let mut pod = Pod::new();
        pod.config.security.add_capabilities = vec![add.into()];
        pod.filters_devices = filters;
        pod.plan().unwrap_err()
    };
    assert!(refused("MKNOD", false).contains("does not filter devices"));
    assert_eq!(refused("FLY", true), "unknown capability \"FLY\"");
}

#[test]
fn the_right_to_install_the_filter_is_lent() {
    let granted = |edit: fn(&mut Security)| {
        let mut pod = Pod::new();
        edit(&mut pod.config.security);
        let lists = ["bounding", "effective", "permitted"];
        let lists = lists.map(|list| pod.at(&format!("/process/capabilities/{list}")));
        assert!(lists[0] == lists[1] && lists[1] == lists[2]);
        lists[0]
            .as_array()
            .unwrap()
            .contains(&json!("CAP_SYS_ADMIN"))
    };
    assert!(granted(|_| ()));
    assert!(!granted(|security| security.no_new_privileges = true));
    assert!(!granted(|security| security.seccomp = Seccomp::Unconfined));
    assert!(!Pod::new().plan().unwrap().capabilities.has("SYS_ADMIN"));
    // libcontainer leaves them empty only if they are not there.
    assert_eq!(
        Pod::new().at("/process/capabilities/inheritable"),
        Value::Null
    );
    assert_eq!(Pod::new().at("/process/capabilities/ambient"), Value::Null);
}

#[test]
fn variables_over_which_libcontainer_panics_are_refused() {
    for env in ["=x", "a\0=x", "a=x\0"] {
        let mut pod = Pod::new();
        pod.image.env = vec![env.into()];
        let error = pod.plan().unwrap_err();
        let cause = "invalid environment variable";
        assert!(error.contains(cause), "{env:?}: {error}");
    }
}

#[test]
fn what_fails_in_libcontainer_is_left_out() {
    // An explicit false fails the creation of a container with a filter.
    check(|_| (), "/process/noNewPrivileges", Value::Null);
    let set = |pod: &mut Pod| pod.config.security.no_new_privileges = true;
    check(set, "/process/noNewPrivileges", json!(true));
    // Its own filter would leave later processes without.
    check(|_| (), "/linux/seccomp", Value::Null);
}

#[test]
fn namespaces_are_the_pods_or_the_machines() {
    let check = |edit: fn(&mut Pod), expected: &[(&str, &str)]| {
        let mut pod = Pod::new();
        edit(&mut pod);
        let found = pod.at("/linux/namespaces");
        let found: Vec<(&str, &str)> = found
            .as_array()
            .unwrap()
            .iter()
            .map(|n| {
                (
                    n["type"].as_str().unwrap(),
                    n["path"].as_str().unwrap_or(""),
                )
            })
            .collect();
        assert_eq!(found, expected);
    };
    let (uts, net, ipc) = (
        ("uts", "/proc/4711/ns/uts"),
        ("network", "/proc/4711/ns/net"),
        ("ipc", "/proc/4711/ns/ipc"),
    );
    let (mount, pid) = (("mount", ""), ("pid", ""));
    check(|_| (), &[mount, uts, net, pid, ipc]);
    check(
        |pod| {
            pod.sandbox.namespaces = Namespaces {
                network: Network::Host,
                host_pid: true,
                host_ipc: true,
                ..Namespaces::default()
            };
        },
        &[mount, uts],
    );
    check(
        |pod| {
            pod.sandbox.namespaces.network = Network::Namespace("/run/netns/a".into());
            pod.unified = true;
        },
        &[
            mount,
            uts,
            ("network", "/run/netns/a"),
            pid,
            ipc,
            ("cgroup", ""),
        ],
    );
}

#[test]
fn limits_are_in_the_units_of_the_kernel() {
    for (request, limit, memory, expected) in [
        (None, None, None, json!({"cpu": {"shares": 2}})),
        (
            Some(500),
            Some(1500),
            Some(64 << 20),
            json!({
                "cpu": {"shares": 512, "quota": 150_000, "period": 100_000},
                "memory": {"limit": 64 << 20, "swap": 64 << 20},
            }),
        ),
        (
            Some(1),
            Some(1),
            None,
            json!({"cpu": {"shares": 2, "quota": 1000, "period": 100_000}}),
        ),
        (
            Some(1 << 40),
            None,
            None,
            json!({"cpu": {"shares": 262_144}}),
        ),
    ] {
        let of = Resources {
            cpu_request_millis: request,
            cpu_limit_millis: limit,
            memory_limit_bytes: memory,
            ..Resources::default()
        };
        let unified = resources(&of, true, &[]);
        let whole = json!({"memory.oom.group": "1"});
        assert_eq!(unified["unified"], whole);
        let mut found = resources(&of, false, &[]);
        let devices = found.as_object_mut().unwrap().remove("devices");
        assert_eq!(devices, Some(json!([{"allow": false, "access": "rwm"}])));
        assert_eq!(found, expected);
    }
}

#[test]
fn huge_pages_are_those_that_were_asked_for() {
    let place = "/linux/resources/hugepageLimits";
    // Where nothing limits them the specification must not ask for it.
    check(
        |pod| pod.config.resources.huge_pages = [(2 << 20, 4 << 20)].into(),
        place,
        Value::Null,
    );
    check(
        |pod| {
            pod.huge_pages = vec![2 << 20, 1 << 30];
            pod.config.resources.huge_pages = [(2 << 20, 4 << 20)].into();
        },
        place,
        json!([{"pageSize": "2MB", "limit": 4 << 20}, {"pageSize": "1GB", "limit": 0}]),
    );
}

#[test]
fn volumes_take_the_place_of_what_is_there() {
    let mut pod = Pod::new();
    let mount = |host: &str, inside: &str, read_only| Mount {
        host_path: host.into(),
        container_path: inside.into(),
        read_only,
        ..Mount::default()
    };
    pod.config.mounts = vec![
        mount("/v/deep", "/data/deep", true),
        mount("/v/data", "/data/", false),
        mount("/v/shm", "/dev/shm", false),
        mount("/v/hosts", "/etc/hosts", true),
    ];
    pod.config.termination_message = Some("/pods/message".into());
    pod.volumes = vec![("/c/volumes/0".into(), "/data".into())];
    let mounts = pod.at("/mounts");
    let bound: Vec<String> = mounts
        .as_array()
        .unwrap()
        .iter()
        .filter(|mount| mount["type"] == "bind")
        .map(|mount| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let access = mount["options"].as_array().unwrap().last().unwrap();
            format!(
                "{} {} {}",
                text(&mount["source"]),
                text(&mount["destination"]),
                text(access)
            )
        })
        .collect();
    assert_eq!(
        bound,
        [
            "/v/data /data rw",
            "/pods/message /dev/termination-log rw",
            "/v/deep /data/deep ro",
            "/v/shm /dev/shm rw",
            "/v/hosts /etc/hosts ro",
        ]
    );
    pod.config.termination_path = Some("/dev/own-log".into());
    let own = pod.at("/mounts");
    let own = own.as_array().unwrap().iter();
    let mut own = own.filter(|mount| mount["source"] == "/pods/message");
    assert_eq!(own.next().unwrap()["destination"], "/dev/own-log");
    let kernels: Vec<&Value> = mounts
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["type"])
        .collect();
    assert!(kernels.contains(&&json!("proc")) && kernels.contains(&&json!("mqueue")));
    let shm = mounts
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| m["destination"] == "/dev/shm");
    assert_eq!(shm.count(), 1);

    pod.config.mounts = vec![mount("/v", "relative", false)];
    assert!(pod.plan().unwrap_err().contains("not absolute"));
}
