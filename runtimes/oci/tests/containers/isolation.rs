//! What containers cannot do.

use std::io::Write;
use std::process::{Command, Stdio};

use coracle_images::ImageConfig;
use coracle_runtime::apparmor::AppArmorPlaces;
use coracle_runtime::identity::Identity;
use coracle_runtime::{AppArmor, ContainerConfig, ContainerUser, Mount, RuntimeService, Seccomp};

use crate::node::{self, Node};
use crate::users::RANGE;

const STATUS: &str = "grep -E '^(Seccomp|NoNewPrivs|CapEff|CapBnd|Groups):' /proc/self/status";
const RUNS: &str = "; while true; do sleep 1; done";
/// The capabilities that every container has, less what this machine's root lacks.
const DEFAULT: &str = "00000000a80425fb";

/// The fields of a status, as first and as further process.
async fn statuses(edit: impl FnOnce(&mut ContainerConfig)) -> [Vec<String>; 2] {
    let node = Node::new().await;
    let pod = node.start(&format!("{STATUS}{RUNS}"), edit).await;
    let (code, further) = node.exec(&pod, &["sh", "-c", STATUS]).await;
    assert_eq!(code, 0, "{further}");
    let first = async {
        while pod.output().lines().count() < 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(node::DEADLINE, first).await.unwrap();
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
    let fields = |text: &str| {
        let lines = text.lines();
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    let log = pod_output(&node);
    [fields(&log), fields(&further)]
}

fn has_app_armor() -> bool {
    let profiles = AppArmorPlaces::of_machine().profiles();
    let enabled = profiles.is_ok_and(|profiles| profiles.is_some());
    if !enabled {
        eprintln!("SKIPPED: profiles of AppArmor: it is not enabled here");
    }
    enabled
}

/// Loads a profile of AppArmor under whose name processes cannot write `/denied`; none where the
/// machine has no AppArmor.
fn load_profile() -> Option<String> {
    if !has_app_armor() {
        return None;
    }
    let name = format!("coracle-test-{}", std::process::id());
    let text = format!(
        "profile {name} flags=(attach_disconnected,mediate_deleted) {{\n\
         file,\ncapability,\nnetwork,\nsignal,\ndeny /denied w,\n}}\n"
    );
    let mut parser = Command::new("apparmor_parser");
    let parser = parser.args(["--replace", "--skip-cache"]);
    let mut parser = parser.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = parser.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    assert!(parser.wait().unwrap().success());
    Some(name)
}

pub(crate) async fn a_profile_of_apparmor_is_of_all_processes() {
    let Some(name) = load_profile() else { return };
    let node = Node::new().await;
    let script = "cat /proc/self/attr/current; touch /allowed && echo allowed; touch /denied";
    let under = Some(AppArmor::Localhost(name.clone()));
    let edit = |config: &mut ContainerConfig| config.security.app_armor = under.clone();
    let pod = node.start(&format!("({script}) 2>&1{RUNS}"), edit).await;
    let (code, further) = node.exec(&pod, &["sh", "-c", script]).await;
    assert_ne!(code, 0);
    let first = async {
        while pod.output().lines().count() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(node::DEADLINE, first).await.unwrap();
    let expected = [
        &format!("{name} (enforce)"),
        "allowed",
        "touch: /denied: Permission denied",
    ];
    for said in [pod.output(), further] {
        assert_eq!(said.trim_end().lines().collect::<Vec<_>>(), expected);
    }
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
    let profiles = "/sys/kernel/security/apparmor/.remove";
    std::fs::write(profiles, name).unwrap();
}

pub(crate) async fn the_default_profile_confines_who_asks_for_none() {
    if !has_app_armor() {
        return;
    }
    let node = Node::new().await;
    node.runtime.ensure_image(&node.busybox).await.unwrap();
    // Asked for `h`, the kernel prints what it could be asked for.
    let script = "cat /proc/self/attr/current; mkdir -p /m; \
                  (mount -t tmpfs none /m) 2>/dev/null && echo mounted; \
                  (echo h > /proc/sysrq-trigger) 2>/dev/null && echo triggered; echo end";
    let confined = ["coracle-default (enforce)", "end"];
    let free = ["unconfined", "mounted", "triggered", "end"];
    let default = Some(AppArmor::RuntimeDefault);
    for (asked, privileged, users, expected) in [
        (&None, false, None, &confined[..]),
        (&default, false, None, &confined[..]),
        (&None, false, Some(RANGE), &confined[..]),
        (&Some(AppArmor::Unconfined), false, None, &free[..]),
        (&None, true, None, &free[..]),
        (&default, true, None, &free[..]),
    ] {
        let mut sandbox = node.sandbox_config();
        sandbox.namespaces.users = users;
        let id = node.runtime.run_pod_sandbox(sandbox.clone()).await.unwrap();
        let mut container = node.container_config(&format!("{script}{RUNS}"));
        let security = &mut container.security;
        // Nothing but the profile is in the way.
        security.add_capabilities = vec!["SYS_ADMIN".into()];
        security.unmasked_proc = true;
        security.privileged = privileged;
        security.app_armor = asked.clone();
        let pod = node.start_in(&id, &sandbox, container).await;
        let first = async {
            while !pod.output().lines().any(|line| line == "end") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(node::DEADLINE, first).await.unwrap();
        let (_, further) = node.exec(&pod, &["sh", "-c", script]).await;
        for said in [pod.output(), further] {
            let lines: Vec<&str> = said.trim_end().lines().collect();
            assert_eq!(lines, expected, "{asked:?} privileged: {privileged}");
        }
        node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
    }
}

/// The log of the one container of a node; its Pod is gone.
fn pod_output(node: &Node) -> String {
    let log = std::fs::read_to_string(node.folder.path().join("logs/0/main/0.log")).unwrap();
    let lines = log.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

pub(crate) async fn first_and_further_processes_are_filtered() {
    let [first, further] = statuses(|_| ()).await;
    assert_eq!(first, further, "what joins later is no freer");
    for field in [
        "Seccomp: 2",
        "NoNewPrivs: 0",
        &format!("CapEff: {DEFAULT}"),
        &format!("CapBnd: {DEFAULT}"),
        "Groups: 0",
    ] {
        assert!(
            first.iter().any(|found| found == field),
            "{first:?} lacks {field}"
        );
    }
}

pub(crate) async fn no_new_privileges_and_no_filter_are_honoured() {
    let [first, further] = statuses(|config| config.security.no_new_privileges = true).await;
    assert_eq!(first, further);
    let has = |fields: &[String], field: &str| fields.iter().any(|found| found == field);
    assert!(
        has(&first, "NoNewPrivs: 1") && has(&first, "Seccomp: 2"),
        "{first:?}"
    );
    let [first, further] = statuses(|config| config.security.seccomp = Seccomp::Unconfined).await;
    assert_eq!(first, further);
    assert!(has(&first, "Seccomp: 0"), "{first:?}");
    assert!(has(&first, &format!("CapEff: {DEFAULT}")), "{first:?}");
}

pub(crate) async fn users_keep_no_rights_of_roots() {
    let [first, further] = statuses(|config| {
        config.security.user = Some(33);
        config.security.supplemental_groups = vec![77];
    })
    .await;
    assert_eq!(first, further);
    for field in [
        "Seccomp: 2",
        "CapEff: 0000000000000000",
        &format!("CapBnd: {DEFAULT}"),
        "Groups: 44 55 77",
    ] {
        assert!(
            first.iter().any(|found| found == field),
            "{first:?} lacks {field}"
        );
    }
}

pub(crate) async fn groups_of_the_image_are_left_out_where_the_pod_says_so() {
    let strict = |config: &mut ContainerConfig| {
        config.security.user = Some(33);
        config.security.supplemental_groups = vec![77];
        config.security.strict_groups = true;
    };
    let [first, further] = statuses(strict).await;
    assert_eq!(first, further);
    assert!(
        first.iter().any(|found| found == "Groups: 44 77"),
        "{first:?}"
    );

    let node = Node::new().await;
    let pod = node.start(&format!("true{RUNS}"), strict).await;
    let user = ContainerUser {
        uid: 33,
        gid: 44,
        supplemental_groups: vec![44, 77],
    };
    let told = node.runtime.container_status(&pod.container).await;
    assert_eq!(told.unwrap().user.as_ref(), Some(&user));
    node.runtime.detach().await;
    let next = node.restart().await;
    let told = next.container_status(&pod.container).await;
    assert_eq!(told.unwrap().user, Some(user));
    next.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

pub(crate) async fn the_runtimes_own_program_cannot_be_written() {
    let node = Node::new().await;
    let pod = node.start(&format!("true{RUNS}"), |_| ()).await;
    let (pid, _pidfd) = Identity::living(&node.shim_folder(&pod.sandbox))
        .unwrap()
        .unwrap();
    // What somebody holds who has found it under /proc: a file of a mount that cannot be written, or
    // one that is sealed, also when nothing runs it any more.
    let exe = std::fs::File::open(format!("/proc/{pid}/exe")).unwrap();
    let mount = rustix::fs::fstatvfs(&exe).unwrap();
    let read_only = mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    let sealed = rustix::fs::fcntl_get_seals(&exe);
    let sealed = sealed.is_ok_and(|seals| seals.contains(rustix::fs::SealFlags::WRITE));
    assert!(read_only || sealed, "{:?}", mount.f_flag);

    // A container that tries to be there at the moment when a process of the runtime is.
    let hostile = "while true; do for p in /proc/[0-9]*; do \
                   [ -e $p/exe ] && ( : >> $p/exe ) 2>/dev/null && \
                   [ \"$(readlink $p/exe)\" != /bin/busybox ] && echo WRITTEN $p; done; done";
    let attacker = node.start(hostile, |_| ()).await;
    for _ in 0..5 {
        node.exec(&attacker, &["true"]).await;
    }
    assert_eq!(attacker.output(), "");
    let own = std::fs::metadata(std::env::current_exe().unwrap()).unwrap();
    assert!(own.len() > 1 << 20);
    node.runtime
        .remove_pod_sandbox(&attacker.sandbox)
        .await
        .unwrap();
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

pub(crate) async fn devices_are_those_that_every_container_has() {
    let node = Node::new().await;
    let script = "cat /dev/null && head -c 4 /dev/urandom > /dev/zero && echo usual; \
                  mknod /dev/disk b 254 0; cat /dev/disk 2>&1 | head -c 60; \
                  mknod /tmp-zero c 1 5; head -c 1 /tmp-zero 2>&1";
    let (_, output) = node.run(script, |_| ()).await;
    assert!(output.starts_with("usual"), "{output}");
    assert!(
        !output.contains('\0') && output.contains("denied") || output.contains("permitted"),
        "{output}"
    );
    // What may be made may not be used, also where files are devices.
    let script = "mknod /dev/memory c 1 1 && true < /dev/memory && echo memory; \
                  mknod /dev/null2 c 1 3 && true < /dev/null2 && echo null";
    let (_, output) = node.run(script, |_| ()).await;
    let said: Vec<&str> = output.lines().collect();
    assert!(
        said.contains(&"null") && !said.contains(&"memory"),
        "{output}"
    );
    assert!(
        output.contains("/dev/memory: Operation not permitted"),
        "{output}"
    );

    // One that the image brings.
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Char);
    header.set_mode(0o666);
    header.set_device_major(1).unwrap();
    header.set_device_minor(5).unwrap();
    header.set_size(0);
    tar.append_data(&mut header, "zero", &[][..]).unwrap();
    let layers: [Vec<u8>; 2] = [node::archive(&[]), tar.into_inner().unwrap()];
    let brings = node::image(&node.content, "brings", &layers, ImageConfig::default());
    node.runtime.ensure_image(&brings).await.unwrap();
    let edit = |config: &mut ContainerConfig| config.image_digest = brings.digest.clone();
    let (_, output) = node.run("ls /zero; head -c 1 /zero", edit).await;
    assert!(
        output.contains("/zero\n") && output.contains("denied"),
        "{output}"
    );
}

pub(crate) async fn hostile_programs_gain_nothing() {
    let node = Node::new().await;
    let secret = node.folder.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let volume = node.folder.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    for (script, gains) in [
        ("mount -t tmpfs none /mnt", "mounted"),
        ("unshare -m true", "a namespace"),
        (
            "echo 1 > /proc/sys/vm/overcommit_memory",
            "a setting of the machine",
        ),
        ("echo b > /proc/sysrq-trigger", "the machine's end"),
        (
            "cat /proc/kcore | head -c 1 | grep .",
            "the machine's memory",
        ),
        (
            "echo 1 > /sys/kernel/mm/ksm/run",
            "a setting of the machine",
        ),
        ("mkdir /sys/fs/cgroup/memory/x", "a cgroup"),
        ("mkdir /sys/fs/cgroup/x", "a cgroup"),
        ("echo max > /sys/fs/cgroup/memory.max", "memory"),
        ("ls /volume/link", "a file of the machine"),
        ("touch /volume/x", "a read-only volume"),
    ] {
        let link = volume.join("link");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        let script = format!("({script}) 2>&1 && echo GAINED");
        let edit = |config: &mut ContainerConfig| {
            config.mounts = vec![Mount {
                host_path: volume.clone(),
                container_path: "/volume".into(),
                read_only: true,
                ..Mount::default()
            }];
        };
        let (_, output) = node.run(&script, edit).await;
        let gained = output.contains("GAINED") && !output.contains("link\n");
        assert!(!gained, "{gains}: {output}");
    }
    let (_, output) = node
        .run("cat /volume/link 2>&1; echo done", |config| {
            config.mounts = vec![Mount {
                host_path: volume.clone(),
                container_path: "/volume".into(),
                read_only: true,
                ..Mount::default()
            }];
        })
        .await;
    assert!(
        !output.contains("secret\n") && output.ends_with("done"),
        "{output}"
    );
}

pub(crate) async fn the_privileged_have_the_machine() {
    let node = Node::new().await;
    let script = "grep -E '^(Seccomp|CapEff):' /proc/self/status; \
                  mkdir /m && mount -t tmpfs none /m && echo mounted; \
                  mknod /zero c 1 5 && head -c 1 /zero | stat -c made /zero; \
                  test -w /proc/sys/vm/overcommit_memory && echo settings; \
                  cd /sys/fs/cgroup && if test -e pids; then cd pids; fi; \
                  mkdir below && rmdir below && echo cgroup; ls /dev";
    let (exit, output) = node.run(script, |c| c.security.privileged = true).await;
    assert_eq!(exit.code, 0, "{output}");
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = format!("CapEff:{}", own.unwrap());
    for line in [
        "Seccomp:\t0",
        &capabilities,
        "mounted",
        "made",
        "settings",
        "cgroup",
    ] {
        assert!(output.lines().any(|said| said == line), "{line}: {output}");
    }
    for entry in std::fs::read_dir("/dev").unwrap() {
        let entry = entry.unwrap();
        let device = std::os::unix::fs::FileTypeExt::is_block_device(&entry.file_type().unwrap());
        let name = entry.file_name().into_string().unwrap();
        assert!(
            !device || output.lines().any(|said| said == name),
            "{name}: {output}"
        );
    }
    // A further process has the same.
    let pod = node
        .start(&format!("true{RUNS}"), |c| c.security.privileged = true)
        .await;
    let (_, further) = node.exec(&pod, &["sh", "-c", STATUS]).await;
    assert!(further.contains("Seccomp:\t0") && further.contains(&capabilities));
    node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
}

pub(crate) async fn a_filter_of_the_machines_is_of_all_processes() {
    let node = Node::new().await;
    let profile = node.folder.path().join("no-mkdir.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 1, "value": 7, "op": "SCMP_CMP_EQ"}]}]}"#;
    std::fs::write(&profile, text).unwrap();
    let script = "mkdir /x 2>&1; kill -7 $$ 2>/dev/null || echo refused; kill -0 $$ && echo other; \
                  grep Seccomp: /proc/self/status";
    for no_new_privileges in [false, true] {
        let edit = |config: &mut ContainerConfig| {
            config.security.seccomp = Seccomp::Localhost(profile.clone());
            config.security.no_new_privileges = no_new_privileges;
        };
        let pod = node.start(&format!("({script}) > /said{RUNS}"), edit).await;
        // What the container was made with is kept, whatever becomes of the file.
        std::fs::write(&profile, "{}").unwrap();
        let (code, further) = node.exec(&pod, &["sh", "-c", script]).await;
        assert_eq!(code, 0, "{further}");
        for said in ["No space left", "refused", "other", "Seccomp:\t2"] {
            assert!(further.contains(said), "{said}: {further}");
        }
        let (_, first) = node.exec(&pod, &["cat", "/said"]).await;
        assert_eq!(first, further);
        node.runtime.remove_pod_sandbox(&pod.sandbox).await.unwrap();
        std::fs::write(&profile, text).unwrap();
    }
    let (sandbox, _) = node.sandbox().await;
    for (text, why) in [(None, "No such file"), (Some("{"), "EOF")] {
        let missing = node.folder.path().join("missing.json");
        if let Some(text) = text {
            std::fs::write(&missing, text).unwrap();
        }
        let mut config = node.container_config("true");
        config.security.seccomp = Seccomp::Localhost(missing.clone());
        let error = node.runtime.create_container(&sandbox, config).await;
        let error = error.unwrap_err().to_string();
        let names = format!("cannot load seccomp profile \"{}\"", missing.display());
        assert!(error.contains(&names) && error.contains(why), "{error}");
    }
    node.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}
