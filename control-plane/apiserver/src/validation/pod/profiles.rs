//! Profiles of AppArmor and seccomp as annotations name them, from before they had fields.

use std::collections::{BTreeMap, BTreeSet};

use coracle_apimachinery::field::{Error, ErrorList, Path};
use k8s_openapi::api::core::v1::{AppArmorProfile, Pod, PodSpec, SecurityContext};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::security::validate_apparmor;
use super::warnings::{SECCOMP_OF_CONTAINER, SECCOMP_OF_POD};
use crate::validation::items;
use crate::validation::volume::path::validate_local_descending;

/// Before the name of the container whose AppArmor profile it is.
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const LOCALHOST: &str = "localhost/";

/// What annotations of a Pod or a template say of profiles.
pub(super) fn validate_profiles(
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    let names: BTreeSet<&str> = containers(spec).map(|(_, _, name, _)| name).collect();
    for (key, profile) in annotations {
        if key == SECCOMP_OF_POD || key.starts_with(SECCOMP_OF_CONTAINER) {
            validate_seccomp(profile, &at.child(key), errors);
        }
        let Some(container) = key.strip_prefix(APP_ARMOR) else {
            continue;
        };
        let at = at.key(key);
        if !names.contains(container) {
            errors.push(Error::invalid(&at, container, "container not found"));
        }
        let known = matches!(profile.as_str(), "" | "runtime/default" | "unconfined");
        if !known && !profile.starts_with(LOCALHOST) {
            let detail = format!("invalid AppArmor profile name: {profile:?}");
            errors.push(Error::invalid(&at, profile.as_str(), detail));
        }
    }
}

fn validate_seccomp(profile: &str, at: &Path, errors: &mut ErrorList) {
    match profile.strip_prefix(LOCALHOST) {
        Some(path) => validate_local_descending(path, at, errors),
        None if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
        None => errors.push(Error::invalid(
            at,
            profile,
            "must be a valid seccomp profile",
        )),
    }
}

/// List, index, name and security context of each container.
fn containers(
    spec: &PodSpec,
) -> impl Iterator<Item = (&'static str, usize, &str, Option<&SecurityContext>)> {
    let init = items(&spec.init_containers).iter().enumerate();
    let init = init.map(|(i, c)| {
        let context = c.security_context.as_ref();
        ("initContainers", i, c.name.as_str(), context)
    });
    let regular = spec.containers.iter().enumerate().map(|(i, c)| {
        let context = c.security_context.as_ref();
        ("containers", i, c.name.as_str(), context)
    });
    let ephemeral = items(&spec.ephemeral_containers).iter().enumerate();
    let ephemeral = ephemeral.map(|(i, c)| {
        let context = c.security_context.as_ref();
        ("ephemeralContainers", i, c.name.as_str(), context)
    });
    init.chain(regular).chain(ephemeral)
}

/// On creation, what an annotation and a field say of the same container must be the same; `at` is
/// that of the spec.
pub(crate) fn validate_same_profiles(
    meta: &ObjectMeta,
    spec: &PodSpec,
    at: &Path,
    errors: &mut ErrorList,
) {
    let Some(annotations) = meta.annotations.as_ref().filter(|_| !is_windows(spec)) else {
        return;
    };
    let of_pod = spec.security_context.as_ref();
    let of_pod = of_pod.and_then(|context| context.app_armor_profile.as_ref());
    for (list, i, name, context) in containers(spec) {
        let own = context.and_then(|context| context.app_armor_profile.as_ref());
        let annotation = annotations.get(&format!("{APP_ARMOR}{name}"));
        let (Some(profile), Some(annotation)) = (own.or(of_pod), annotation) else {
            continue;
        };
        let local = annotation.strip_prefix(LOCALHOST);
        let same_type = match profile.type_.as_str() {
            "Unconfined" => annotation == "unconfined",
            "RuntimeDefault" => annotation == "runtime/default",
            "Localhost" => local.is_some(),
            _ => true,
        };
        let at = at.child(list).index(i).child("securityContext");
        let at = at.child("appArmorProfile");
        if !same_type {
            let detail = "apparmor type in annotation and field must match";
            errors.push(Error::forbidden(&at.child("type"), detail));
        } else if profile.type_ == "Localhost" && local != profile.localhost_profile.as_deref() {
            let detail = "apparmor profile in annotation and field must match";
            errors.push(Error::forbidden(&at.child("localhostProfile"), detail));
        }
    }
}

/// Sets the fields that annotations of a new Pod stand for.
pub(crate) fn set_profiles(pod: &mut Pod) {
    let (Some(annotations), Some(spec)) = (&pod.metadata.annotations, &mut pod.spec) else {
        return;
    };
    if is_windows(spec) {
        return;
    }
    let of_pod = spec.security_context.as_ref();
    let of_pod = of_pod.and_then(|context| context.app_armor_profile.clone());
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(spec.containers.iter_mut()) {
        let annotation = annotations.get(&format!("{APP_ARMOR}{}", container.name));
        let profile = annotation.and_then(|annotation| profile_of(annotation));
        if profile.is_some() && profile != of_pod {
            let context = container.security_context.get_or_insert_default();
            context.app_armor_profile = context.app_armor_profile.take().or(profile);
        }
    }
}

/// The field for an annotation, where it is a valid one.
fn profile_of(annotation: &str) -> Option<AppArmorProfile> {
    let (type_, localhost_profile) = match annotation {
        "unconfined" => ("Unconfined", None),
        "runtime/default" => ("RuntimeDefault", None),
        other => ("Localhost", Some(other.strip_prefix(LOCALHOST)?.to_owned())),
    };
    let profile = AppArmorProfile {
        type_: type_.to_owned(),
        localhost_profile,
    };
    let mut errors = ErrorList::default();
    validate_apparmor(&profile, &Path::root(), &mut errors);
    errors.is_empty().then_some(profile)
}

fn is_windows(spec: &PodSpec) -> bool {
    spec.os.as_ref().is_some_and(|os| os.name == "windows")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validation::testing::assert_causes;

    fn pod(annotations: Value, context: Value) -> Pod {
        let container = json!({"name": "c", "image": "i", "securityContext": context});
        serde_json::from_value(json!({
            "metadata": {"annotations": annotations}, "spec": {"containers": [container]},
        }))
        .unwrap()
    }

    #[test]
    fn annotations_name_profiles_and_containers() {
        let table: Vec<(&str, &str, Vec<&str>)> = vec![
            (
                "container.apparmor.security.beta.kubernetes.io/c",
                "localhost/x",
                vec![],
            ),
            (
                "container.apparmor.security.beta.kubernetes.io/no",
                "x",
                vec![
                    "a[container.apparmor.security.beta.kubernetes.io/no] FieldValueInvalid container not found",
                    "a[container.apparmor.security.beta.kubernetes.io/no] FieldValueInvalid invalid AppArmor profile name: \"x\"",
                ],
            ),
            (
                "seccomp.security.alpha.kubernetes.io/pod",
                "docker/default",
                vec![],
            ),
            (
                "seccomp.security.alpha.kubernetes.io/pod",
                "localhost/../x",
                vec![
                    "a.seccomp.security.alpha.kubernetes.io/pod FieldValueInvalid must not contain '..'",
                ],
            ),
            (
                "container.seccomp.security.alpha.kubernetes.io/c",
                "x",
                vec![
                    "a.container.seccomp.security.alpha.kubernetes.io/c FieldValueInvalid must be a valid seccomp",
                ],
            ),
        ];
        for (key, profile, want) in table {
            let pod = pod(json!({key: profile}), json!({}));
            let mut errors = ErrorList::default();
            let annotations = pod.metadata.annotations.unwrap();
            validate_profiles(
                &annotations,
                &pod.spec.unwrap(),
                &Path::new("a"),
                &mut errors,
            );
            assert_causes(&errors, &want);
        }
    }

    #[test]
    fn annotations_become_fields_and_agree_with_them() {
        let key = "container.apparmor.security.beta.kubernetes.io/c";
        let table = [
            (
                "unconfined",
                json!({}),
                json!({"type": "Unconfined"}),
                vec![],
            ),
            (
                "localhost/x",
                json!({}),
                json!({"type": "Localhost", "localhostProfile": "x"}),
                vec![],
            ),
            ("localhost/", json!({}), Value::Null, vec![]),
            (
                "unconfined",
                json!({"appArmorProfile": {"type": "RuntimeDefault"}}),
                json!({"type": "RuntimeDefault"}),
                vec![
                    "s.containers[0].securityContext.appArmorProfile.type FieldValueForbidden apparmor type",
                ],
            ),
        ];
        for (annotation, context, profile, want) in table {
            let mut pod = pod(json!({key: annotation}), context);
            set_profiles(&mut pod);
            let (meta, spec) = (pod.metadata, pod.spec.unwrap());
            let got = serde_json::to_value(&spec.containers[0]).unwrap();
            assert_eq!(
                got["securityContext"]["appArmorProfile"], profile,
                "{annotation}"
            );
            let mut errors = ErrorList::default();
            validate_same_profiles(&meta, &spec, &Path::new("s"), &mut errors);
            assert_causes(&errors, &want);
        }
    }
}
