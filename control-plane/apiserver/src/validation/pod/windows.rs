//! What Kubernetes says of Pods for Windows, which no node of ours runs: the API takes them all
//! the same, and leaves them pending.

use coracle_apimachinery::field::{Error, ErrorList, Path};
use coracle_apimachinery::names;
use k8s_openapi::api::core::v1::{PodSpec, SecurityContext, WindowsSecurityContextOptions};

use super::each_container;
use crate::validation::items;

const MAX_CREDENTIAL_SPEC: usize = 64 * 1024;
const MAX_DOMAIN: usize = 256;
const MAX_USER: usize = 104;

/// The options of Windows in a security context.
pub(crate) fn validate_windows_options(
    options: &WindowsSecurityContextOptions,
    at: &Path,
    errors: &mut ErrorList,
) {
    if let Some(name) = &options.gmsa_credential_spec_name {
        crate::validation::faults(
            name,
            names::dns_subdomain(name),
            &at.child("gmsaCredentialSpecName"),
            errors,
        );
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let at = at.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(Error::invalid(
                &at,
                "",
                "gmsaCredentialSpec cannot be an empty string",
            ));
        } else if spec.len() > MAX_CREDENTIAL_SPEC {
            errors.push(Error::invalid(
                &at,
                spec.as_str(),
                "gmsaCredentialSpec size must be under 64 KiB",
            ));
        }
    }
    if let Some(name) = &options.run_as_user_name {
        let at = at.child("runAsUserName");
        errors.extend(
            user_name(name)
                .into_iter()
                .map(|fault| Error::invalid(&at, name.as_str(), fault)),
        );
    }
}

fn user_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string".to_owned()];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".to_owned()];
    }
    if name.matches('\\').count() > 1 {
        return vec!["runAsUserName cannot contain more than one backslash".to_owned()];
    }
    let (domain, user) = name
        .split_once('\\')
        .map_or((None, name), |(domain, user)| (Some(domain), user));
    let mut wrong = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= MAX_DOMAIN {
            wrong.push(format!(
                "runAsUserName's Domain length must be under {MAX_DOMAIN} characters"
            ));
        }
        if !is_netbios(domain) && !is_dns(domain) {
            wrong.push(
                "runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned(),
            );
        }
    }
    if user.is_empty() {
        wrong.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > MAX_USER {
        wrong.push(format!(
            "runAsUserName's User length must not be longer than {MAX_USER} characters"
        ));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        wrong.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        let detail =
            r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#;
        wrong.push(detail.to_owned());
    }
    wrong
}

fn is_netbios(domain: &str) -> bool {
    (1..=15).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.contains(|c| "\\/:*?\"<>|".contains(c))
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// HostProcess containers: all of a Pod or none, and only on the host's network.
pub(crate) fn validate_host_process(spec: &PodSpec, at: &Path, errors: &mut ErrorList) {
    let options =
        |options: Option<&WindowsSecurityContextOptions>| options.and_then(|o| o.host_process);
    let pod = options(
        spec.security_context
            .as_ref()
            .and_then(|c| c.windows_options.as_ref()),
    );
    let (mut containers, mut host_process) = (0, 0);
    each_container(spec, at, |context, at| {
        containers += 1;
        let own = options(context.and_then(|c| c.windows_options.as_ref()));
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let at = at
                .child("securityContext")
                .child("windowsOptions")
                .child("hostProcess");
            let detail =
                format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.push(Error::invalid(&at, own, detail));
        }
        host_process += usize::from(own.or(pod) == Some(true));
    });
    if host_process == 0 {
        return;
    }
    if host_process != containers {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(Error::invalid(at, "", detail));
    }
    if spec.host_network != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(Error::invalid(&at.child("hostNetwork"), false, detail));
    }
}

/// What the operating system that a Pod names leaves out.
pub(crate) fn validate_os(spec: &PodSpec, at: &Path, errors: &mut ErrorList) {
    let Some(os) = &spec.os else {
        return;
    };
    match os.name.as_str() {
        "" => errors.push(Error::required(&at.child("os").child("name"), "")),
        "linux" => validate_linux(spec, at, errors),
        "windows" => validate_windows(spec, at, errors),
        other => errors.push(Error::not_supported(
            &at.child("os"),
            other,
            &["linux", "windows"],
        )),
    }
}

fn validate_linux(spec: &PodSpec, at: &Path, errors: &mut ErrorList) {
    let detail = "windows options cannot be set for a linux pod";
    if spec
        .security_context
        .as_ref()
        .is_some_and(|c| c.windows_options.is_some())
    {
        errors.push(Error::forbidden(
            &at.child("securityContext").child("windowsOptions"),
            detail,
        ));
    }
    each_container(spec, at, |context, at| {
        if context.is_some_and(|c| c.windows_options.is_some()) {
            errors.push(Error::forbidden(
                &at.child("securityContext").child("windowsOptions"),
                detail,
            ));
        }
    });
}

fn validate_windows(spec: &PodSpec, at: &Path, errors: &mut ErrorList) {
    let mut forbid = |at: &Path, fields: &[(&str, bool)]| {
        for (field, _) in fields.iter().filter(|(_, set)| *set) {
            errors.push(Error::forbidden(
                &at.child(field),
                "cannot be set for a windows pod",
            ));
        }
    };
    forbid(
        at,
        &[
            ("hostUsers", spec.host_users.is_some()),
            ("hostPID", spec.host_pid == Some(true)),
            ("hostIPC", spec.host_ipc == Some(true)),
            (
                "shareProcessNamespace",
                spec.share_process_namespace.is_some(),
            ),
        ],
    );
    if let Some(context) = &spec.security_context {
        forbid(
            &at.child("securityContext"),
            &[
                ("appArmorProfile", context.app_armor_profile.is_some()),
                ("seLinuxOptions", context.se_linux_options.is_some()),
                ("seccompProfile", context.seccomp_profile.is_some()),
                ("fsGroup", context.fs_group.is_some()),
                (
                    "fsGroupChangePolicy",
                    context.fs_group_change_policy.is_some(),
                ),
                ("sysctls", !items(&context.sysctls).is_empty()),
                ("runAsUser", context.run_as_user.is_some()),
                ("runAsGroup", context.run_as_group.is_some()),
                ("supplementalGroups", context.supplemental_groups.is_some()),
                (
                    "supplementalGroupsPolicy",
                    context.supplemental_groups_policy.is_some(),
                ),
                (
                    "seLinuxChangePolicy",
                    context.se_linux_change_policy.is_some(),
                ),
            ],
        );
    }
    each_container(spec, at, |context: Option<&SecurityContext>, at| {
        let Some(context) = context else {
            return;
        };
        forbid(
            &at.child("securityContext"),
            &[
                ("appArmorProfile", context.app_armor_profile.is_some()),
                ("seLinuxOptions", context.se_linux_options.is_some()),
                ("seccompProfile", context.seccomp_profile.is_some()),
                ("capabilities", context.capabilities.is_some()),
                (
                    "readOnlyRootFilesystem",
                    context.read_only_root_filesystem.is_some(),
                ),
                ("privileged", context.privileged.is_some()),
                (
                    "allowPrivilegeEscalation",
                    context.allow_privilege_escalation.is_some(),
                ),
                ("procMount", context.proc_mount.is_some()),
                ("runAsUser", context.run_as_user.is_some()),
                ("runAsGroup", context.run_as_group.is_some()),
            ],
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names() {
        let table = [
            ("ContainerUser", 0),
            (r"NT AUTHORITY\NETWORK SERVICE", 0),
            (r"a.example\user", 0),
            ("", 1),
            (r"a\b\c", 1),
            (r"a*b\user", 1),
            ("a@b", 1),
            ("..", 1),
            ("a\nb", 1),
        ];
        for (name, want) in table {
            assert_eq!(
                user_name(name).len(),
                want,
                "{name:?}: {:?}",
                user_name(name)
            );
        }
    }
}
