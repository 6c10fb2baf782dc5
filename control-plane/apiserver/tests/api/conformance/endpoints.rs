//! Every endpoint that tests of conformance call, called.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};

use super::examples::example;
use super::lists::{self, Endpoint, Waiting};
use super::page::resource_lists;
use crate::harness::{Answer, Api};

/// What a path is about.
struct Target {
    /// `apps/v1`, or `v1`.
    group_version: String,
    /// `deployments`.
    plural: String,
    /// `apps/deployments`, or `/pods`.
    resource: String,
    /// `deployments/status`, or `pods`.
    full: String,
    subresource: Option<String>,
}

/// Understands the path of an endpoint that has an action.
fn target(path: &str) -> Target {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, mut rest) = match segments.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => panic!("{path}"),
    };
    if let ["namespaces", "{namespace}", inside @ ..] = rest {
        rest = inside;
    }
    let subresource = rest.get(2).map(|name| (*name).to_owned());
    Target {
        group_version: if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        },
        plural: rest[0].to_owned(),
        resource: format!("{group}/{}", rest[0]),
        full: subresource
            .as_ref()
            .map_or(rest[0].to_owned(), |name| format!("{}/{name}", rest[0])),
        subresource,
    }
}

impl Target {
    /// Where objects of the kind are created.
    fn collection(&self, namespaced: bool) -> String {
        let root = match self.group_version.contains('/') {
            true => "/apis",
            false => "/api",
        };
        let namespace = if namespaced {
            "/namespaces/default"
        } else {
            ""
        };
        format!("{root}/{}{namespace}/{}", self.group_version, self.plural)
    }
}

/// A server, and what its discovery says of it: the kind of each group-version and resource.
struct Caller {
    api: Api,
    kinds: BTreeMap<(String, String), Known>,
}

/// A resource or subresource that discovery names.
struct Known {
    kind: String,
    namespaced: bool,
}

/// What an endpoint answered instead of what it should.
type Wrong = String;

impl Caller {
    async fn new() -> Self {
        let api = Api::new().await;
        let mut kinds = BTreeMap::new();
        for list in resource_lists(&api).await {
            for resource in list["resources"].as_array().unwrap() {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let key = (text(&list["groupVersion"]), text(&resource["name"]));
                let known = Known {
                    kind: text(&resource["kind"]),
                    namespaced: resource["namespaced"] == true,
                };
                kinds.insert(key, known);
            }
        }
        Self { api, kinds }
    }

    fn known(&self, target: &Target) -> Option<&Known> {
        let key = (target.group_version.clone(), target.full.clone());
        self.kinds.get(&key)
    }

    /// Calls an endpoint that should answer, on an object that was made for it.
    async fn call(&self, endpoint: &Endpoint, number: usize) -> Result<(), Wrong> {
        if endpoint.action == "-" {
            return self.discover(&endpoint.path).await;
        }
        let target = target(&endpoint.path);
        let Known { kind, namespaced } = self
            .known(&target)
            .ok_or_else(|| format!("{} is not in discovery", target.full))?;
        let object = example(&target.resource, number);
        let name = object["metadata"]["name"].as_str().unwrap_or("review");
        let path = fill(&endpoint.path, name);
        let parent = match &target.subresource {
            Some(subresource) => path.trim_end_matches(&format!("/{subresource}")).to_owned(),
            None => path.clone(),
        };
        if endpoint.action != "post" || target.subresource.is_some() {
            let collection = target.collection(*namespaced);
            wants(&self.api.post(&collection, &object).await, 201, None)?;
        }
        let selected = format!("labelSelector=number%3D{number}");
        let list = format!("{path}?{selected}");
        match endpoint.action.as_str() {
            "list" => {
                let list = self.api.get(&list).await;
                let list = wants(&list, 200, Some(&format!("{kind}List")))?;
                same(&list["items"][0]["metadata"]["name"], name)
            }
            "post" => self.post(&target, kind, &path, object.clone()).await,
            "get" if target.subresource.as_deref() == Some("log") => {
                let answer = self.api.get(&path).await;
                same(&json!(answer.code), 200)
            }
            "get" => {
                let read = self.api.get(&path).await;
                same(&wants(&read, 200, Some(kind))?["metadata"]["name"], name)
            }
            "put" => {
                // What can only be written is read as the object that it belongs to.
                let mut read = self.api.get(&path).await;
                if read.code == 405 {
                    read = self.api.get(&parent).await;
                }
                let written = self.api.put(&path, &wants(&read, 200, None)?).await;
                same(&wants(&written, 200, Some(kind))?["metadata"]["name"], name)
            }
            "patch" => {
                let (patch, changed) = patch_of(&target);
                let patched = self.api.patch(&path, "strategic-merge", &patch).await;
                let patched = wants(&patched, 200, Some(kind))?;
                let at = patched.pointer(changed).cloned().unwrap_or_default();
                same(&at, patch.pointer(changed).cloned().unwrap_or_default())
            }
            "delete" => {
                let answer = wants(&self.api.delete(&path).await, 200, None)?;
                either(&answer["kind"], ["Status", kind])?;
                self.is_gone(&[self.api.get(&path).await])
            }
            "deletecollection" => {
                let answer = wants(&self.api.delete(&list).await, 200, None)?;
                either(&answer["kind"], ["Status", &format!("{kind}List")])?;
                let left = wants(&self.api.get(&list).await, 200, None)?;
                let left = left["items"].as_array().unwrap().iter();
                let left: Vec<Answer> = left.map(answer_of).collect();
                self.is_gone(&left)
            }
            "connect" if target.subresource.as_deref() == Some("proxy") => {
                let method = connect_method(&endpoint.name);
                self.lead(&target.plural, method, &path, name).await
            }
            // A stream begins with an upgrade, and that on a node that runs the Pod: this one has none.
            "connect" => {
                let asked = format!("{path}?command=id&stdout=true");
                let answer = self.api.get(&asked).await;
                let status = wants(&answer, 400, Some("Status"))?;
                let message = format!("pod {name} does not have a host assigned");
                same(&status["message"], message)
            }
            other => Err(format!("no way to call {other}")),
        }
    }

    /// A proxy to what is not there says so, whatever the method: a Pod on no node has no address,
    /// and a Service without Pods no endpoints.
    async fn lead(
        &self,
        plural: &str,
        method: Method,
        path: &str,
        name: &str,
    ) -> Result<(), Wrong> {
        let (code, message) = match plural {
            "pods" => (400, "address not allowed".to_owned()),
            _ => {
                let message = format!("no endpoints available for service {name:?}");
                (503, message)
            }
        };
        let is_head = method == Method::HEAD;
        let answer = self.api.raw(method, path, "", Body::empty()).await;
        if is_head {
            return same(&json!(answer.code), code);
        }
        let status = wants(&answer, code, Some("Status"))?;
        same(&status["message"], message)
    }

    /// Posts to a collection an object, and to a subresource what that takes.
    async fn post(
        &self,
        target: &Target,
        kind: &str,
        path: &str,
        object: Value,
    ) -> Result<(), Wrong> {
        let name = object["metadata"]["name"].clone();
        let (body, answered) = match target.subresource.as_deref() {
            None => (object, kind),
            Some("binding") => (json!({"target": {"kind": "Node", "name": "n1"}}), "Status"),
            Some("eviction") => (json!({"metadata": {"name": name}}), "Status"),
            Some("token") => (json!({"spec": {}}), kind),
            Some(other) => return Err(format!("no way to post to {other}")),
        };
        let answer = wants(&self.api.post(path, &body).await, 201, Some(answered))?;
        match answered {
            "Status" => same(&answer["status"], "Success"),
            // Reviews are answered, and are no objects with names.
            _ if answer["metadata"]["name"].is_null() => {
                same(&answer["status"].is_object().into(), true)
            }
            _ => same(&answer["metadata"]["name"], name),
        }
    }

    /// Deleted objects are gone, or wait for their finalizers.
    fn is_gone(&self, objects: &[Answer]) -> Result<(), Wrong> {
        let there = objects.iter().find(|answer| {
            answer.code != 404 && answer.json()["metadata"]["deletionTimestamp"].is_null()
        });
        there.map_or(Ok(()), |answer| {
            Err(format!("is still there: {}", answer.text))
        })
    }

    async fn discover(&self, path: &str) -> Result<(), Wrong> {
        let answer = self.api.get(path).await;
        let segments = path.trim_matches('/').split('/').count();
        let kind = match (path, segments) {
            ("/version/", _) => {
                let version = wants(&answer, 200, None)?;
                return same(&version["gitVersion"].is_string().into(), true);
            }
            ("/api/", _) => "APIVersions",
            ("/apis/", _) => "APIGroupList",
            ("/api/v1/", _) | (_, 3) => "APIResourceList",
            _ => "APIGroup",
        };
        wants(&answer, 200, Some(kind)).map(|_| ())
    }

    /// An endpoint that waits is unknown: discovery does not name it, and a Status says so.
    async fn refuse(&self, endpoint: &Endpoint) -> Result<(), Wrong> {
        let method = match endpoint.action.as_str() {
            "post" => Method::POST,
            "put" => Method::PUT,
            "patch" => Method::PATCH,
            "delete" | "deletecollection" => Method::DELETE,
            "connect" => connect_method(&endpoint.name),
            _ => Method::GET,
        };
        if endpoint.action != "-" && self.known(&target(&endpoint.path)).is_some() {
            return Err("is in discovery, and so waits no more".to_owned());
        }
        let head = method == Method::HEAD;
        let path = fill(&endpoint.path, "e");
        let answer = self.api.raw(method, &path, "", Body::empty()).await;
        either(&json!(answer.code), [json!(404), json!(405)])?;
        if head {
            return Ok(());
        }
        let status = wants(&answer, answer.code, Some("Status"))?;
        same(&status["status"], "Failure")
    }
}

/// A patch of an object or of a subresource, and where it changes something.
fn patch_of(target: &Target) -> (Value, &'static str) {
    match target.subresource.as_deref() {
        Some("status") => match target.plural.as_str() {
            // The status of these is written without their metadata.
            "resourceclaims" => (json!({"status": {"allocation": {}}}), "/status/allocation"),
            "volumeattachments" => (json!({"status": {"attached": true}}), "/status/attached"),
            "apiservices"
            | "flowschemas"
            | "prioritylevelconfigurations"
            | "validatingadmissionpolicies" => (
                json!({"status": {"conditions": [{
                    "type": "Shown", "status": "True", "reason": "Test", "message": "it is",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }]}}),
                "/status/conditions/0/type",
            ),
            _ => annotation(),
        },
        Some("scale") => (json!({"spec": {"replicas": 3}}), "/spec/replicas"),
        Some("ephemeralcontainers") => (
            json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "app:v1"}]}}),
            "/spec/ephemeralContainers/0/name",
        ),
        Some("resize") => (
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2m"}}}]}}),
            "/spec/containers/0/resources/requests/cpu",
        ),
        _ => annotation(),
    }
}

fn annotation() -> (Value, &'static str) {
    (
        json!({"metadata": {"annotations": {"a": "b"}}}),
        "/metadata/annotations/a",
    )
}

fn answer_of(object: &Value) -> Answer {
    Answer {
        code: 200,
        headers: http::HeaderMap::new(),
        text: object.to_string(),
    }
}

fn fill(path: &str, name: &str) -> String {
    path.replace("{namespace}", "default")
        .replace("{name}", name)
        .replace("{path}", "x")
}

/// `connectCoreV1HeadNamespacedPodProxy` is a HEAD.
fn connect_method(endpoint: &str) -> Method {
    let rest = endpoint.trim_start_matches("connectCoreV1");
    let end = rest.find("Namespaced").unwrap_or(rest.len());
    rest[..end].to_uppercase().parse().unwrap()
}

fn wants(answer: &Answer, code: u16, kind: Option<&str>) -> Result<Value, Wrong> {
    if answer.code != code {
        return Err(format!(
            "{} instead of {code}: {}",
            answer.code, answer.text
        ));
    }
    let object: Value =
        serde_json::from_str(&answer.text).map_err(|error| format!("{error}: {}", answer.text))?;
    match kind {
        Some(kind) if object["kind"] != kind => Err(format!("no {kind}: {object}")),
        _ => Ok(object),
    }
}

fn same(value: &Value, want: impl Into<Value>) -> Result<(), Wrong> {
    either(value, [want.into()])
}

fn either<const N: usize>(value: &Value, wanted: [impl Into<Value>; N]) -> Result<(), Wrong> {
    let wanted = wanted.map(Into::into);
    if wanted.contains(value) {
        return Ok(());
    }
    Err(format!("{value} instead of {wanted:?}"))
}

#[tokio::test]
async fn every_endpoint_that_conformance_calls_answers_as_its_kind_should() {
    let caller = Caller::new().await;
    let waiting = Waiting::read();
    let mut unused: BTreeSet<&str> = waiting.0.iter().map(|[path, _]| path.as_str()).collect();
    let mut wrong = Vec::new();
    for (number, endpoint) in lists::endpoints().iter().enumerate() {
        let outcome = match waiting.of(endpoint) {
            Some((path, _)) => {
                unused.remove(path);
                caller.refuse(endpoint).await
            }
            None => caller.call(endpoint, number).await,
        };
        if let Err(why) = outcome {
            wrong.push(format!("{} ({}): {why}", endpoint.name, endpoint.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(unused.is_empty(), "nothing waits below {unused:?}");
}
