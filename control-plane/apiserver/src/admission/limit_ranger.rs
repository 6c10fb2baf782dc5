//! LimitRanger: Pods and claims get the defaults of the LimitRanges of their namespace, and keep
//! within their bounds.

use async_trait::async_trait;
use coracle_apimachinery::quantity::Quantity;
use coracle_apimachinery::resources::{
    ResourceList, container_limits, container_requests, parse, pod_limits, pod_requests,
};
use coracle_apimachinery::status::Status;
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec,
};

use super::{Admission, Operation, Review, pod};
use crate::registry::Registry;
use crate::registry::erased::Object;
use crate::validation::resources::ResourceList as ApiResourceList;

/// Says on a Pod what was set.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(super) struct LimitRanger;

#[async_trait]
impl Admission for LimitRanger {
    async fn admit(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&mut dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        if !review.creates_pod() {
            return Ok(());
        }
        let Some(pod) = pod(object) else {
            return Ok(());
        };
        for range in registry.find_all::<LimitRange>(review.namespace).await? {
            set_defaults(pod, &range);
        }
        Ok(())
    }

    async fn validate(
        &self,
        registry: &Registry,
        review: &mut Review<'_>,
        object: Option<&dyn Object>,
        _old: Option<&dyn Object>,
    ) -> Result<(), Status> {
        let Some(object) = object.filter(|_| review.subresource.is_empty()) else {
            return Ok(());
        };
        let name = object.meta().name.clone().unwrap_or_default();
        let faults: fn(&dyn Object, &LimitRangeItem) -> Vec<String> = if review.creates_pod() {
            |object, item| match object.as_any().downcast_ref::<Pod>() {
                Some(pod) => pod_faults(pod, item),
                None => Vec::new(),
            }
        } else if object.as_any().is::<PersistentVolumeClaim>()
            && review.operation != Operation::Delete
        {
            |object, item| match object.as_any().downcast_ref() {
                Some(claim) => claim_faults(claim, item),
                None => Vec::new(),
            }
        } else {
            return Ok(());
        };
        for range in registry.find_all::<LimitRange>(review.namespace).await? {
            let items = range.spec.map(|spec| spec.limits).unwrap_or_default();
            let found: Vec<String> = items.iter().flat_map(|item| faults(object, item)).collect();
            match &found[..] {
                [] => {}
                [only] => return Err(review.forbidden(&name, only)),
                several => {
                    let all = format!("[{}]", several.join(", "));
                    return Err(review.forbidden(&name, all));
                }
            }
        }
        Ok(())
    }
}

/// Gives containers what they do not say, and notes it.
fn set_defaults(pod: &mut Pod, range: &LimitRange) {
    let items = range.spec.as_ref().map(|spec| &spec.limits[..]);
    let (mut limits, mut requests) = (ApiResourceList::new(), ApiResourceList::new());
    for item in items.unwrap_or_default() {
        if item.type_ == "Container" {
            limits.extend(item.default.clone().unwrap_or_default());
            requests.extend(item.default_request.clone().unwrap_or_default());
        }
    }
    let Some(spec) = &mut pod.spec else {
        return;
    };
    let mut notes = Vec::new();
    for container in &mut spec.containers {
        merge(container, "container", &requests, &limits, &mut notes);
    }
    for container in spec.init_containers.iter_mut().flatten() {
        merge(container, "init container", &requests, &limits, &mut notes);
    }
    if !notes.is_empty() {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        annotations.insert(ANNOTATION.to_owned(), note);
    }
}

fn merge(
    container: &mut Container,
    what: &str,
    requests: &ApiResourceList,
    limits: &ApiResourceList,
    notes: &mut Vec<String>,
) {
    let resources = container.resources.get_or_insert_default();
    let lists = [
        ("request", requests, &mut resources.requests),
        ("limit", limits, &mut resources.limits),
    ];
    for (list, defaults, own) in lists {
        let mut set = Vec::new();
        for (name, quantity) in defaults {
            let own = own.get_or_insert_default();
            if !own.contains_key(name) {
                own.insert(name.clone(), quantity.clone());
                set.push(name.as_str());
            }
        }
        if !set.is_empty() {
            notes.push(format!(
                "{} {list} for {what} {}",
                set.join(", "),
                container.name
            ));
        }
    }
}

fn pod_faults(pod: &Pod, item: &LimitRangeItem) -> Vec<String> {
    let none = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&none);
    match item.type_.as_str() {
        "Container" => {
            let init = spec.init_containers.iter().flatten();
            let containers = spec.containers.iter().chain(init);
            containers
                .flat_map(|container| {
                    let requests = container_requests(container);
                    faults(item, &requests, &container_limits(container))
                })
                .collect()
        }
        "Pod" => {
            // The overhead is not the Pod's own wish.
            let bare = PodSpec {
                overhead: None,
                ..spec.clone()
            };
            faults(item, &pod_requests(&bare), &pod_limits(&bare))
        }
        _ => Vec::new(),
    }
}

fn claim_faults(claim: &PersistentVolumeClaim, item: &LimitRangeItem) -> Vec<String> {
    if item.type_ != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = parse(resources.and_then(|resources| resources.requests.as_ref()));
    let mut found = min_faults(item, &requests, &ResourceList::new());
    for (name, most) in parse(item.max.as_ref()) {
        let bound = format!("maximum {name} usage per {} is {most}", item.type_);
        match requests.get(&name) {
            None => found.push(format!("{bound}.  No request is specified")),
            Some(request) if *request > most => {
                found.push(format!("{bound}, but request is {request}"));
            }
            Some(_) => {}
        }
    }
    found
}

/// Everything of an item that requests and limits break.
fn faults(item: &LimitRangeItem, requests: &ResourceList, limits: &ResourceList) -> Vec<String> {
    let mut found = min_faults(item, requests, limits);
    for (name, most) in parse(item.max.as_ref()) {
        let bound = format!("maximum {name} usage per {} is {most}", item.type_);
        match (limits.get(&name), requests.get(&name)) {
            (None, _) => found.push(format!("{bound}.  No limit is specified")),
            (Some(limit), _) if *limit > most => {
                found.push(format!("{bound}, but limit is {limit}"));
            }
            (_, Some(request)) if *request > most => {
                found.push(format!("{bound}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, most) in parse(item.max_limit_request_ratio.as_ref()) {
        let bound = format!(
            "{name} max limit to request ratio per {} is {most}",
            item.type_
        );
        let given = |list: &ResourceList| {
            let amount = list.get(&name).copied();
            amount.filter(|amount: &Quantity| !amount.is_zero())
        };
        match (given(requests), given(limits)) {
            (None, _) => {
                found.push(format!(
                    "{bound}, but no request is specified or request is 0"
                ));
            }
            (_, None) => found.push(format!("{bound}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.as_f64() / request.as_f64();
                if ratio > most.as_f64() {
                    found.push(format!("{bound}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
    found
}

fn min_faults(
    item: &LimitRangeItem,
    requests: &ResourceList,
    limits: &ResourceList,
) -> Vec<String> {
    let mut found = Vec::new();
    for (name, least) in parse(item.min.as_ref()) {
        let bound = format!("minimum {name} usage per {} is {least}", item.type_);
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => found.push(format!("{bound}.  No request is specified")),
            (Some(request), _) if *request < least => {
                found.push(format!("{bound}, but request is {request}"));
            }
            (_, Some(limit)) if *limit < least => {
                found.push(format!("{bound}, but limit is {limit}"));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(resources: Value) -> Pod {
        serde_json::from_value(
            json!({"spec": {"containers": [{"name": "c", "resources": resources}]}}),
        )
        .unwrap()
    }

    #[test]
    fn bounds() {
        let item = |item: Value| serde_json::from_value::<LimitRangeItem>(item).unwrap();
        let cpu = |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
        let min = json!({"type": "Container", "min": {"cpu": "100m"}});
        let max = json!({"type": "Pod", "max": {"cpu": "1"}});
        let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
        let table: [(&Value, Value, Option<&str>); 9] = [
            (&min, cpu("100m", "1"), None),
            (
                &min,
                cpu("50m", "1"),
                Some("minimum cpu usage per Container is 100m, but request is 50m"),
            ),
            (
                &min,
                json!({}),
                Some("minimum cpu usage per Container is 100m.  No request is specified"),
            ),
            (
                &max,
                cpu("1", "2"),
                Some("maximum cpu usage per Pod is 1, but limit is 2"),
            ),
            (
                &max,
                json!({"requests": {"cpu": "1"}}),
                Some("maximum cpu usage per Pod is 1.  No limit is specified"),
            ),
            (&max, cpu("1", "1"), None),
            (&ratio, cpu("500m", "1"), None),
            (
                &ratio,
                cpu("400m", "1"),
                Some(
                    "cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000",
                ),
            ),
            (
                &ratio,
                json!({"limits": {"cpu": "1"}}),
                Some(
                    "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
                ),
            ),
        ];
        for (bound, resources, want) in table {
            let got = pod_faults(&pod(resources.clone()), &item(bound.clone()));
            let want: Vec<String> = want.into_iter().map(str::to_owned).collect();
            assert_eq!(got, want, "{bound} {resources}");
        }
        let claim = |size: &str| {
            serde_json::from_value(json!({"spec": {"resources": {"requests": {"storage": size}}}}))
                .unwrap()
        };
        let storage = item(
            json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}),
        );
        assert_eq!(
            claim_faults(&claim("3Gi"), &storage),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]
        );
        assert_eq!(
            claim_faults(&claim("1Mi"), &storage),
            ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"]
        );
    }
}
