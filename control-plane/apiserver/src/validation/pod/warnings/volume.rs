//! What is odd about volumes: kinds that nothing mounts any more, files that hide each other.

use std::rc::Rc;

use coracle_apimachinery::field::Path;
use k8s_openapi::api::core::v1::{KeyToPath, PersistentVolumeClaimSpec, Volume, VolumeProjection};

use super::container::warnings_of_bytes;
use super::{COMPARED, is_enough};
use crate::validation::{items, text};

pub(super) fn warnings_of_volume(volume: &Volume, at: &Path, warnings: &mut Vec<String>) {
    let removed = [
        (
            volume.photon_persistent_disk.is_some(),
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        (
            volume.git_repo.is_some(),
            "gitRepo",
            "deprecated in v1.11, and disabled by default in v1.33+",
        ),
        (
            volume.scale_io.is_some(),
            "scaleIO",
            "deprecated in v1.16, non-functional in v1.22+",
        ),
        (
            volume.flocker.is_some(),
            "flocker",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            volume.storageos.is_some(),
            "storageOS",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            volume.quobyte.is_some(),
            "quobyte",
            "deprecated in v1.22, non-functional in v1.25+",
        ),
        (
            volume.glusterfs.is_some(),
            "glusterfs",
            "deprecated in v1.25, non-functional in v1.26+",
        ),
        (
            volume.cephfs.is_some(),
            "cephfs",
            "deprecated in v1.28, non-functional in v1.31+",
        ),
        (
            volume.rbd.is_some(),
            "rbd",
            "deprecated in v1.28, non-functional in v1.31+",
        ),
    ];
    for (_, field, message) in removed.into_iter().filter(|(set, ..)| *set) {
        warnings.push(format!("{}: {message}", at.child(field)));
    }
    let template = volume
        .ephemeral
        .as_ref()
        .and_then(|source| source.volume_claim_template.as_ref());
    if let Some(template) = template {
        let at = at.child("ephemeral").child("volumeClaimTemplate");
        claim_warnings(&template.spec, &at.child("spec"), warnings);
    }
}

/// Warnings about a claim, by itself or in a template.
pub(crate) fn claim_warnings(
    spec: &PersistentVolumeClaimSpec,
    at: &Path,
    warnings: &mut Vec<String>,
) {
    let Some(resources) = &spec.resources else {
        return;
    };
    let at = at.child("resources");
    for (field, list) in [
        ("requests", resources.requests.as_ref()),
        ("limits", resources.limits.as_ref()),
    ] {
        warnings_of_bytes(list, &["storage"], &at.child(field), warnings);
    }
}

/// A file of a volume, and what it comes from where there are several sources.
struct File<'a> {
    path: &'a str,
    source: Rc<str>,
}

impl<'a> File<'a> {
    fn new(path: &'a str, source: &Rc<str>) -> Self {
        Self {
            path: path.trim_end_matches('/'),
            source: Rc::clone(source),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        !self.path.is_empty()
            && !other.path.is_empty()
            && (is_within(self.path, other.path) || is_within(other.path, self.path))
    }

    fn shown(&self) -> String {
        match &*self.source {
            "" => format!("{:?}", self.path),
            source => format!("{:?} ({source})", self.path),
        }
    }
}

/// Whether a path is, or lies below, another.
fn is_within(path: &str, other: &str) -> bool {
    path.strip_prefix(other)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Files of one volume that are, or lie below, each other.
pub(super) fn warnings_of_files(volume: &Volume, warnings: &mut Vec<String>) {
    if let Some(source) = &volume.config_map {
        let of = format!("ConfigMap {:?}", source.name);
        overlaps(&volume.name, &of, &keys(&source.items, ""), warnings);
    }
    if let Some(source) = &volume.secret {
        let of = format!("Secret {:?}", text(&source.secret_name));
        overlaps(&volume.name, &of, &keys(&source.items, ""), warnings);
    }
    if let Some(source) = &volume.downward_api {
        let files = of_source(items(&source.items).iter().map(|file| &*file.path), "");
        overlaps(&volume.name, "DownwardAPI", &files, warnings);
    }
    if let Some(projected) = &volume.projected {
        let mut files = Vec::new();
        for source in items(&projected.sources) {
            if *source == VolumeProjection::default() {
                let name = &volume.name;
                warnings.push(format!(
                    "volume {name:?} (Projected) has no sources provided"
                ));
            }
            files.extend(projected_files(source));
        }
        overlaps(&volume.name, "Projected", &files, warnings);
    }
}

fn projected_files(source: &VolumeProjection) -> Vec<File<'_>> {
    if let Some(map) = &source.config_map {
        keys(&map.items, &format!("ConfigMap {:?}", map.name))
    } else if let Some(secret) = &source.secret {
        keys(&secret.items, &format!("Secret {:?}", secret.name))
    } else if let Some(downward) = &source.downward_api {
        let paths = items(&downward.items).iter().map(|file| &*file.path);
        of_source(paths, "DownwardAPI")
    } else if let Some(token) = &source.service_account_token {
        of_source([&*token.path], "ServiceAccountToken")
    } else if let Some(bundle) = &source.cluster_trust_bundle {
        let name = bundle.name.as_ref().or(bundle.signer_name.as_ref());
        let of = format!(
            "ClusterTrustBundle {:?}",
            name.map_or("", |name| name.as_str())
        );
        of_source([&*bundle.path], &of)
    } else if let Some(certificate) = &source.pod_certificate {
        let files = [
            (&certificate.certificate_chain_path, "PodCertificate chain"),
            (&certificate.key_path, "PodCertificate key"),
            (
                &certificate.credential_bundle_path,
                "PodCertificate credential bundle",
            ),
        ];
        files
            .into_iter()
            .flat_map(|(path, of)| of_source([text(path)], of))
            .collect()
    } else {
        Vec::new()
    }
}

fn keys<'a>(keys: &'a Option<Vec<KeyToPath>>, source: &str) -> Vec<File<'a>> {
    of_source(items(keys).iter().map(|key| &*key.path), source)
}

fn of_source<'a>(paths: impl IntoIterator<Item = &'a str>, source: &str) -> Vec<File<'a>> {
    let source: Rc<str> = source.into();
    let paths = paths.into_iter();
    paths.map(|path| File::new(path, &source)).collect()
}

fn overlaps(volume: &str, of: &str, files: &[File<'_>], warnings: &mut Vec<String>) {
    for (i, file) in files.iter().enumerate() {
        let before = &files[..i.min(COMPARED)];
        for other in before.iter().filter(|other| file.overlaps(other)) {
            if is_enough(warnings) {
                return;
            }
            warnings.push(format!(
                "volume {volume:?} ({of}): overlapping paths: {} with {}",
                file.shown(),
                other.shown()
            ));
        }
    }
}
