//! `--apply`: manifests are read before anything starts, and applied when the API answers.
//!
//! Applying is what `kubectl apply` does on the client: the last applied manifest is kept in an
//! annotation, so that kubectl can go on from here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use coracle_apimachinery::managed::last_applied::ANNOTATION as LAST_APPLIED;
use coracle_apimachinery::yaml;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use serde_json::Value;

/// As whom what is in the annotation was written: kubectl's server-side apply takes over from this
/// manager without a conflict.
const MANAGER: &str = "kubectl-client-side-apply";

/// What one `--apply` names: manifests, and the guests beside them.
pub(crate) struct Bundle {
    /// Objects in the order of the files and of the documents in them.
    pub(crate) objects: Vec<Value>,
    /// Guests that stand beside the manifests, as (image, file).
    pub(crate) guests: Vec<(String, PathBuf)>,
}

/// Reads a manifest, or all manifests of a folder.
///
/// # Errors
/// Names the file, the line and the reason.
pub(crate) fn read(path: &Path) -> Result<Bundle> {
    let mut files = Vec::new();
    let is_folder = path.is_dir();
    if is_folder {
        let entries =
            std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        for entry in entries {
            let file = entry
                .with_context(|| format!("cannot read {}", path.display()))?
                .path();
            let extension = file.extension().and_then(|e| e.to_str());
            if matches!(extension, Some("yaml" | "yml" | "json")) {
                files.push(file);
            }
        }
        files.sort();
        if files.is_empty() {
            bail!("{} holds no .yaml, .yml or .json file", path.display());
        }
    } else {
        files.push(path.to_owned());
    }
    let mut objects = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let documents = yaml::read(&file.display().to_string(), &text)?;
        objects.extend(documents.into_iter().map(|document| document.object));
    }
    let guests = if is_folder {
        guests_beside(path, &objects)
    } else {
        Vec::new()
    };
    Ok(Bundle { objects, guests })
}

/// Images that the manifests name and for which the folder has a guest: `NAME.wasm`, or
/// `NAME.wat`, for the image `NAME:tag`.
fn guests_beside(folder: &Path, objects: &[Value]) -> Vec<(String, PathBuf)> {
    let mut images = BTreeSet::new();
    for object in objects {
        collect_images(object, &mut images);
    }
    images
        .into_iter()
        .filter_map(|image| {
            let name = image.split([':', '@']).next()?;
            let file = ["wasm", "wat"]
                .map(|extension| folder.join(format!("{name}.{extension}")))
                .into_iter()
                .find(|file| !name.contains('/') && file.is_file())?;
            Some((image, file))
        })
        .collect()
}

fn collect_images(value: &Value, images: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::String(image) if key == "image" => {
                        images.insert(image.clone());
                    }
                    _ => collect_images(member, images),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_images(item, images)),
        _ => {}
    }
}

/// An object that stands in the cluster now.
pub(crate) struct Applied {
    /// `deployment.apps/name`, as kubectl names it.
    pub(crate) name: String,
    /// `created` or `configured`.
    pub(crate) verb: &'static str,
    /// Its namespace, for kinds that have one.
    pub(crate) namespace: Option<String>,
    kind: String,
    object: String,
}

impl Applied {
    /// The Service that it is, if it is one.
    pub(crate) async fn service(&self, client: &kube::Client) -> Result<Option<Service>> {
        match (&self.namespace, self.kind.as_str()) {
            (Some(namespace), "Service") => {
                let services: Api<Service> = Api::namespaced(client.clone(), namespace);
                Ok(services.get_opt(&self.object).await?)
            }
            _ => Ok(None),
        }
    }
}

/// Creates or updates one object.
pub(crate) async fn apply(
    client: &kube::Client,
    discovery: &kube::Discovery,
    manifest: &Value,
) -> Result<Applied> {
    let mut object: DynamicObject =
        serde_json::from_value(manifest.clone()).context("a manifest is no object")?;
    let types = object.types.clone().context("a manifest names no kind")?;
    let kind = GroupVersionKind::try_from(&types)
        .with_context(|| format!("apiVersion {:?} does not read", types.api_version))?;
    let Some((resource, capabilities)) = discovery.resolve_gvk(&kind) else {
        bail!(
            "no matches for kind {:?} in version {:?}: this cluster does not serve it",
            types.kind,
            types.api_version
        );
    };
    let name = object
        .metadata
        .name
        .clone()
        .context("a manifest has no metadata.name")?;
    let namespace = namespace_of(&object, &capabilities);
    let api = api_for(client, &resource, namespace.as_deref());
    object
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(LAST_APPLIED.to_owned(), format!("{manifest}\n"));
    let (mut creating, mut patching) = (PostParams::default(), PatchParams::default());
    creating.field_manager = Some(MANAGER.to_owned());
    patching.field_manager = Some(MANAGER.to_owned());
    let verb = match api.create(&creating, &object).await {
        Ok(_) => "created",
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
            api.patch(&name, &patching, &Patch::Merge(&object))
                .await
                .with_context(|| format!("{} {name} was not updated", types.kind))?;
            "configured"
        }
        Err(error) => {
            return Err(error).with_context(|| format!("{} {name} was not created", types.kind));
        }
    };
    let shown = match resource.group.as_str() {
        "" => types.kind.to_lowercase(),
        group => format!("{}.{group}", types.kind.to_lowercase()),
    };
    Ok(Applied {
        name: format!("{shown}/{name}"),
        verb,
        namespace,
        kind: types.kind,
        object: name,
    })
}

fn namespace_of(object: &DynamicObject, capabilities: &ApiCapabilities) -> Option<String> {
    match capabilities.scope {
        Scope::Cluster => None,
        Scope::Namespaced => Some(
            object
                .metadata
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
        ),
    }
}

fn api_for(
    client: &kube::Client,
    resource: &ApiResource,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_objects_and_the_guests_that_they_name() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "b.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {containers: [{name: m, image: 'app:v1'}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: c}\nspec: {containers: [{name: m, image: 'other:v1'}]}\n",
        );
        write(
            "a.json",
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}"#,
        );
        write("app.wasm", "");
        write("unused.wasm", "");
        let bundle = read(folder.path()).unwrap();
        let names: Vec<_> = bundle
            .objects
            .iter()
            .map(|object| object["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(
            bundle.guests,
            [("app:v1".to_owned(), folder.path().join("app.wasm"))]
        );
    }

    #[test]
    fn the_samples_name_the_guests_beside_them() {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm-samples");
        for (sample, guests) in [
            ("hello-http", 1),
            ("kv-counter", 2),
            ("tcp-echo", 1),
            ("batch-hello", 1),
            ("faults", 4),
        ] {
            assert_eq!(
                read(&samples.join(sample)).unwrap().guests.len(),
                guests,
                "{sample}"
            );
        }
    }
}
