//! Security contexts of Pods and containers.

use std::collections::BTreeSet;

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
};

use super::windows::validate_windows_options;
use crate::validation::volume::path::validate_local_descending;
use crate::validation::{items, one_of, shown};

/// Longest path that a profile may have: PATH_MAX without the end of the string.
const MAX_PROFILE: usize = 4095;
const MAX_SYSCTL: usize = 253;
const SYSCTL_PATTERN: &str =
    r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// The security context of a Pod; `at` is that of the context.
pub(crate) fn validate_pod_security_context(
    context: &PodSecurityContext,
    spec: &PodSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    let ids = [
        ("fsGroup", context.fs_group),
        ("runAsUser", context.run_as_user),
        ("runAsGroup", context.run_as_group),
    ];
    for (field, id) in ids {
        validate_id(id, &at.child(field), errors);
    }
    let groups_at = at.child("supplementalGroups");
    for (i, group) in items(&context.supplemental_groups).iter().enumerate() {
        validate_id(Some(*group), &groups_at.index(i), errors);
    }
    validate_sysctls(items(&context.sysctls), spec, &at.child("sysctls"), errors);
    let policies: [(&str, &Option<String>, &[&str]); 3] = [
        (
            "fsGroupChangePolicy",
            &context.fs_group_change_policy,
            &["Always", "OnRootMismatch"],
        ),
        (
            "supplementalGroupsPolicy",
            &context.supplemental_groups_policy,
            &["Merge", "Strict"],
        ),
        (
            "seLinuxChangePolicy",
            &context.se_linux_change_policy,
            &["MountOption", "Recursive"],
        ),
    ];
    for (field, policy, supported) in policies {
        if let Some(policy) = policy
            && !supported.contains(&policy.as_str())
        {
            errors.push(Error::not_supported(
                &at.child(field),
                policy.as_str(),
                supported,
            ));
        }
    }
    validate_profiles(
        context.seccomp_profile.as_ref(),
        context.app_armor_profile.as_ref(),
        at,
        errors,
    );
    if let Some(options) = &context.windows_options {
        validate_windows_options(options, &at.child("windowsOptions"), errors);
    }
}

/// The security context of a container. `host_users` is whether the Pod shares the host's users.
pub(crate) fn validate_security_context(
    context: &SecurityContext,
    host_users: bool,
    at: &Path,
    errors: &mut ErrorList,
) {
    validate_id(context.run_as_user, &at.child("runAsUser"), errors);
    validate_id(context.run_as_group, &at.child("runAsGroup"), errors);
    if let Some(mount) = &context.proc_mount {
        let at = at.child("procMount");
        if !matches!(mount.as_str(), "Default" | "Unmasked") {
            errors.push(Error::not_supported(
                &at,
                mount.as_str(),
                &["Default", "Unmasked"],
            ));
        }
        if host_users && mount == "Unmasked" {
            let detail = "`hostUsers` must be false to use `Unmasked`";
            errors.push(Error::invalid(&at, mount.as_str(), detail));
        }
    }
    if context.allow_privilege_escalation == Some(false) {
        let mut refuse = |detail: &str| errors.push(Error::invalid(at, shown(context), detail));
        if context.privileged == Some(true) {
            refuse("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = context
            .capabilities
            .as_ref()
            .and_then(|c| c.add.as_deref())
            .unwrap_or_default();
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            refuse(
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    validate_profiles(
        context.seccomp_profile.as_ref(),
        context.app_armor_profile.as_ref(),
        at,
        errors,
    );
    if let Some(options) = &context.windows_options {
        validate_windows_options(options, &at.child("windowsOptions"), errors);
    }
}

/// The ID of a user or a group.
pub(crate) fn validate_id(id: Option<i64>, at: &Path, errors: &mut ErrorList) {
    if let Some(id) = id
        && i32::try_from(id).map_or(true, |id| id < 0)
    {
        errors.push(Error::invalid(
            at,
            id,
            "must be between 0 and 2147483647, inclusive",
        ));
    }
}

fn validate_profiles(
    seccomp: Option<&SeccompProfile>,
    apparmor: Option<&AppArmorProfile>,
    at: &Path,
    errors: &mut ErrorList,
) {
    if let Some(profile) = seccomp {
        validate_seccomp(profile, &at.child("seccompProfile"), errors);
    }
    if let Some(profile) = apparmor {
        validate_apparmor(profile, &at.child("appArmorProfile"), errors);
    }
}

fn validate_seccomp(profile: &SeccompProfile, at: &Path, errors: &mut ErrorList) {
    if profile.type_.is_empty() {
        errors.push(Error::required(
            &at.child("type"),
            "type is required when seccompProfile is set",
        ));
    } else {
        one_of(
            &profile.type_,
            &["Localhost", "RuntimeDefault", "Unconfined"],
            &at.child("type"),
            errors,
        );
    }
    let at = at.child("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (None, true) => errors.push(Error::required(
            &at,
            "must be set when seccomp type is Localhost",
        )),
        (Some(path), true) => validate_local_descending(path, &at, errors),
        (Some(_), false) => {
            errors.push(Error::invalid(
                &at,
                shown(profile),
                "can only be set when seccomp type is Localhost",
            ));
        }
        (None, false) => {}
    }
}

pub(super) fn validate_apparmor(profile: &AppArmorProfile, at: &Path, errors: &mut ErrorList) {
    let profile_at = at.child("localhostProfile");
    let path = profile.localhost_profile.as_deref();
    match (profile.type_.as_str(), path) {
        ("Localhost", None | Some("")) => {
            errors.push(Error::required(
                &profile_at,
                "must be set when AppArmor type is Localhost",
            ));
        }
        ("Localhost", Some(path)) => {
            if path.trim() != path {
                errors.push(Error::invalid(
                    &profile_at,
                    path,
                    "must not be padded with whitespace",
                ));
            }
            if path.len() > MAX_PROFILE {
                errors.push(Error::too_long(&profile_at, MAX_PROFILE));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(path)) => {
            errors.push(Error::invalid(
                &profile_at,
                path,
                "can only be set when AppArmor type is Localhost",
            ));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            errors.push(Error::required(
                &at.child("type"),
                "type is required when appArmorProfile is set",
            ));
        }
        (other, _) => {
            let supported = ["Localhost", "RuntimeDefault", "Unconfined"];
            errors.push(Error::not_supported(&at.child("type"), other, &supported));
        }
    }
}

fn validate_sysctls(sysctls: &[Sysctl], spec: &PodSpec, at: &Path, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let at = at.index(i).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if !is_sysctl(name) {
            let detail = format!(
                "must have at most {MAX_SYSCTL} characters and match regex {SYSCTL_PATTERN}"
            );
            errors.push(Error::invalid(&at, name, detail));
        } else if !seen.insert(name) {
            errors.push(Error::duplicate(&at, name));
        }
        let dotted = name.replace('/', ".");
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            errors.push(Error::invalid(
                &at,
                name,
                "may not be specified when 'hostNetwork' is true",
            ));
        }
        let ipc = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."];
        if spec.host_ipc == Some(true) && ipc.iter().any(|prefix| dotted.starts_with(prefix)) {
            errors.push(Error::invalid(
                &at,
                name,
                "may not be specified when 'hostIPC' is true",
            ));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let segment = |segment: &str| {
        let bytes = segment.as_bytes();
        let ends = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        ends(bytes.first())
            && ends(bytes.last())
            && bytes
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= MAX_SYSCTL && name.split(['.', '/']).all(segment)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    #[test]
    fn containers() {
        let table: Vec<(Value, Vec<&str>)> = vec![
            (
                json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}}),
                vec![],
            ),
            (
                json!({"runAsUser": -1}),
                vec!["s.runAsUser FieldValueInvalid must be between 0 and 2147483647"],
            ),
            (
                json!({"allowPrivilegeEscalation": false, "privileged": true}),
                vec!["s FieldValueInvalid cannot set `allowPrivilegeEscalation` to false"],
            ),
            (
                json!({"procMount": "Unmasked"}),
                vec!["s.procMount FieldValueInvalid `hostUsers` must be false"],
            ),
            (
                json!({"seccompProfile": {"type": "RuntimeDefault"}}),
                vec![],
            ),
            (
                json!({"seccompProfile": {"type": ""}}),
                vec!["s.seccompProfile.type FieldValueRequired"],
            ),
            (
                json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "/x"}}),
                vec!["s.seccompProfile.localhostProfile FieldValueInvalid must be a relative path"],
            ),
            (
                json!({"appArmorProfile": {"type": "Off"}}),
                vec!["s.appArmorProfile.type FieldValueNotSupported"],
            ),
        ];
        for (value, want) in table {
            let mut errors = ErrorList::default();
            let context = serde_json::from_value(value).unwrap();
            validate_security_context(&context, true, &Path::new("s"), &mut errors);
            assert_causes(&errors, &want);
        }
    }

    #[test]
    fn pods() {
        let spec: PodSpec = serde_json::from_value(json!({
            "hostNetwork": true, "containers": [],
            "securityContext": {
                "fsGroup": 4294967296_i64,
                "fsGroupChangePolicy": "Never",
                "sysctls": [{"name": "net.core.somaxconn", "value": "1"}, {"name": "Net", "value": ""}],
            },
        }))
        .unwrap();
        let mut errors = ErrorList::default();
        let context = spec.security_context.clone().unwrap();
        validate_pod_security_context(&context, &spec, &Path::new("s"), &mut errors);
        assert_causes(
            &errors,
            &[
                "s.fsGroup FieldValueInvalid",
                "s.sysctls[0].name FieldValueInvalid may not be specified when 'hostNetwork' is true",
                "s.sysctls[1].name FieldValueInvalid must have at most 253 characters",
                "s.fsGroupChangePolicy FieldValueNotSupported",
            ],
        );
    }
}
