//! test/e2e/common/node/security_context.go, sysctl.go and test/e2e/node/security_context.go: as
//! whom containers run, and what they may do.

use serde_json::{Value, json};

use super::outputs::{container, output};
use super::shared::place;

/// What a container of that `securityContext` prints, in a Pod of that one.
#[track_caller]
fn said(script: &str, own: Value, of_pod: Value) -> Option<String> {
    let place = place()?;
    let mut container = container(script);
    container["securityContext"] = own;
    let pod = json!({"securityContext": of_pod});
    Some(output(&place, &container, pod))
}

/// Must: a container runs as the user that it asks for.
#[test]
fn security_context_when_creating_a_container_with_runasuser_should_run_the_container_with_uid_65534()
 {
    let user = json!({"runAsUser": 65534});
    if let Some(said) = said("id -u", user, json!({})) {
        assert_eq!(said, "65534\n");
    }
}

/// Must: a container runs as the user and in the group that its Pod asks for.
#[test]
fn security_context_should_support_pod_spec_securitycontext_runasuser_and_pod_spec_securitycontext_runasgroup()
 {
    let of_pod = json!({"runAsUser": 1001, "runAsGroup": 2002});
    if let Some(said) = said("id", json!({}), of_pod) {
        assert_eq!(said, "uid=1001 gid=2002 groups=2002\n");
    }
}

/// Must: a container runs as the user and in the group that it asks for, whatever its Pod does.
#[test]
fn security_context_should_support_container_securitycontext_runasuser_and_container_securitycontext_runasgroup()
 {
    let of_pod = json!({"runAsUser": 1001, "runAsGroup": 2001});
    let own = json!({"runAsUser": 1002, "runAsGroup": 2002});
    if let Some(said) = said("id", own, of_pod) {
        assert_eq!(said, "uid=1002 gid=2002 groups=2002\n");
    }
}

/// Must: a container writes to its own files.
/// Must: its Pod ends well.
#[test]
fn security_context_when_creating_a_pod_with_readonlyrootfilesystem_should_run_the_container_with_writable_rootfs_when_readonlyrootfilesystem_false()
 {
    let own = json!({"readOnlyRootFilesystem": false});
    if let Some(said) = said("touch checkfile && ls checkfile", own, json!({})) {
        assert_eq!(said, "checkfile\n");
    }
}

/// Must: a container without privileges runs to its end, and may not add an interface.
#[test]
fn security_context_when_creating_a_pod_with_privileged_should_run_the_container_as_unprivileged_when_false()
 {
    let script = "ip link add dummy0 type dummy 2>&1 || true";
    if let Some(said) = said(script, json!({"privileged": false}), json!({})) {
        assert!(said.contains("Operation not permitted"), "{said}");
    }
}

/// Must: a program whose file would make it root's runs as the container's own user.
#[test]
fn security_context_when_creating_containers_with_allowprivilegeescalation_should_not_allow_privilege_escalation_when_false()
 {
    // One of its programs that looks at the effective user, and does no more unless that is root.
    let script =
        "id -u; grep NoNewPrivs /proc/self/status; /bin/setuid/busybox su nobody 2>&1; true";
    let own = |allowed: bool| json!({"allowPrivilegeEscalation": allowed, "runAsUser": 1000});
    let Some(held) = said(script, own(false), json!({})) else {
        return;
    };
    let no_root = "su: must be suid to work properly";
    assert_eq!(held, format!("1000\nNoNewPrivs:\t1\n{no_root}\n"));
    // Elsewhere the same file does that.
    let free = said(script, own(true), json!({})).unwrap();
    assert!(free.starts_with("1000\nNoNewPrivs:\t0\n"), "{free}");
    assert!(!free.contains(no_root), "{free}");
}

/// Must: a container finds the parameter of the kernel that its Pod asks for.
/// Must: its Pod ends well.
#[test]
fn sysctls_should_support_sysctls() {
    let sysctls = json!({"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]});
    let script = "/bin/sysctl kernel.shm_rmid_forced";
    if let Some(said) = said(script, json!({}), sysctls) {
        assert_eq!(said, "kernel.shm_rmid_forced = 1\n");
    }
}
