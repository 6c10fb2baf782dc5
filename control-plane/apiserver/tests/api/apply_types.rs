//! Server-side apply by the sort of list and map: who owns what, what conflicts, what goes.

use coracle_apimachinery::cbor;
use http::Method;
use serde_json::{Value, json};

use crate::apply::{DEPLOYMENTS, config_map, fields, names};
use crate::harness::{Api, CONFIG_MAPS, deployment};

const SERVICE: &str = "/api/v1/namespaces/default/services/s";

fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec})
}

#[tokio::test]
async fn items_of_a_set_have_owners_of_their_own() {
    let api = Api::new().await;
    let path = &format!("{CONFIG_MAPS}/a");
    // Not even empty data, which one would own.
    let bare = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let with = |finalizers: Value| {
        let mut config = bare.clone();
        config["metadata"]["finalizers"] = finalizers;
        config
    };
    let a = with(json!(["x.io/a", "x.io/shared"]));
    api.apply(path, "fieldManager=x", &a).await.ok(201);
    let b = with(json!(["x.io/shared", "x.io/b"]));
    let both = api.apply(path, "fieldManager=y", &b).await.ok(200);
    assert_eq!(
        both["metadata"]["finalizers"],
        json!(["x.io/a", "x.io/shared", "x.io/b"])
    );
    assert_eq!(
        fields(&both, "y/Apply")["f:metadata"]["f:finalizers"],
        json!({"v:\"x.io/b\"": {}, "v:\"x.io/shared\"": {}})
    );
    let left = api
        .apply(path, "fieldManager=x", &with(json!([])))
        .await
        .ok(200);
    assert_eq!(
        left["metadata"]["finalizers"],
        json!(["x.io/shared", "x.io/b"])
    );
    let none = api.apply(path, "fieldManager=y", &bare).await.ok(200);
    assert!(none["metadata"].get("finalizers").is_none(), "{none}");
}

#[tokio::test]
async fn an_atomic_list_has_one_owner() {
    let api = Api::new().await;
    let path = &format!("{DEPLOYMENTS}/web");
    let mut config = deployment("web");
    config["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["a", "b"]);
    api.apply(path, "fieldManager=x", &config).await.ok(201);
    config["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["a", "c"]);
    let message = api
        .apply(path, "fieldManager=y", &config)
        .await
        .fails(409, "Conflict");
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"x\": .spec.template.spec.containers[name=\"c\"].args"
    );
    let forced = api
        .apply(path, "fieldManager=y&force=true", &config)
        .await
        .ok(200);
    let container = |object: &Value| object["spec"]["template"]["spec"]["containers"][0].clone();
    assert_eq!(container(&forced)["args"], json!(["a", "c"]));
    let owned = |object: &Value, who: &str| {
        let of = fields(object, who);
        of["f:spec"]["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"].clone()
    };
    assert_eq!(owned(&forced, "y/Apply")["f:args"], json!({}));
    assert!(owned(&forced, "x/Apply").get("f:args").is_none());
}

#[tokio::test]
async fn an_atomic_map_is_replaced_whole() {
    let api = Api::new().await;
    let ports = json!([{"port": 80}]);
    let one = service(json!({"ports": ports, "selector": {"app": "a"}}));
    api.apply(SERVICE, "fieldManager=x", &one).await.ok(201);
    let other = service(json!({"selector": {"tier": "b"}}));
    let message = api
        .apply(SERVICE, "fieldManager=y", &other)
        .await
        .fails(409, "Conflict");
    assert!(
        message.ends_with("conflict with \"x\": .spec.selector"),
        "{message}"
    );
    let forced = api
        .apply(SERVICE, "fieldManager=y&force=true", &other)
        .await
        .ok(200);
    assert_eq!(forced["spec"]["selector"], json!({"tier": "b"}));
    assert_eq!(
        fields(&forced, "y/Apply"),
        json!({"f:spec": {"f:selector": {}}})
    );
}

#[tokio::test]
async fn an_item_stays_while_somebody_has_a_part_of_it() {
    let api = Api::new().await;
    let x = service(
        json!({"selector": {"a": "b"}, "ports": [{"port": 80, "name": "http"}, {"port": 81, "name": "more"}]}),
    );
    api.apply(SERVICE, "fieldManager=x", &x).await.ok(201);
    let y = service(json!({"ports": [{"port": 80, "targetPort": 8080}]}));
    // What was defaulted when x created it is nobody's.
    api.apply(SERVICE, "fieldManager=y", &y).await.ok(200);
    let left = api
        .apply(
            SERVICE,
            "fieldManager=x",
            &service(json!({"selector": {"a": "b"}})),
        )
        .await
        .ok(200);
    let ports = left["spec"]["ports"].as_array().unwrap();
    assert_eq!(
        (ports.len(), &ports[0]["targetPort"]),
        (1, &json!(8080)),
        "{left}"
    );
    assert!(ports[0].get("name").is_none(), "{left}");
}

#[tokio::test]
async fn every_manager_that_loses_is_named() {
    let api = Api::new().await;
    let path = &format!("{CONFIG_MAPS}/a");
    let one = config_map(json!({"a": "1"}));
    for manager in ["x", "y"] {
        let done = api
            .apply(path, &format!("fieldManager={manager}"), &one)
            .await;
        assert!(done.code < 300, "{}", done.text);
    }
    let patch = json!({"data": {"b": "1"}});
    api.patch(&format!("{path}?fieldManager=u"), "merge", &patch)
        .await
        .ok(200);
    let two = config_map(json!({"a": "2", "b": "2"}));
    let answer = api.apply(path, "fieldManager=z", &two).await;
    let message = answer.fails(409, "Conflict");
    assert!(
        message.starts_with("Apply failed with 3 conflicts: "),
        "{message}"
    );
    for part in [
        "conflicts with \"x\":\n- .data.a",
        "conflicts with \"y\":\n- .data.a",
        "conflicts with \"u\" using v1:\n- .data.b",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let causes = answer.json()["details"]["causes"].as_array().unwrap().len();
    assert_eq!(causes, 3);
    let forced = api
        .apply(path, "fieldManager=z&force=true", &two)
        .await
        .ok(200);
    let owned = fields(&forced, "z/Apply");
    assert_eq!(owned, json!({"f:data": {"f:a": {}, "f:b": {}}}));
    // Who has lost all that it had is no manager any more.
    assert_eq!(names(&forced), ["z/Apply"]);
}

#[tokio::test]
async fn a_field_is_handed_over_by_no_longer_saying_it() {
    let api = Api::new().await;
    let path = &format!("{DEPLOYMENTS}/web");
    let mut config = deployment("web");
    config["spec"]["replicas"] = json!(3);
    api.apply(path, "fieldManager=x", &config).await.ok(201);
    // Somebody else says the same, and now both have it.
    let replicas = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 3}});
    api.apply(path, "fieldManager=scaler", &replicas)
        .await
        .ok(200);
    config["spec"].as_object_mut().unwrap().remove("replicas");
    let handed = api.apply(path, "fieldManager=x", &config).await.ok(200);
    assert_eq!(handed["spec"]["replicas"], 3);
    assert!(
        fields(&handed, "x/Apply")
            .pointer("/f:spec/f:replicas")
            .is_none()
    );
    let mut more = replicas.clone();
    more["spec"]["replicas"] = json!(5);
    let scaled = api.apply(path, "fieldManager=scaler", &more).await.ok(200);
    assert_eq!(scaled["spec"]["replicas"], 5);
    // Whoever drops it last leaves the default.
    more["spec"] = json!({});
    let left = api.apply(path, "fieldManager=scaler", &more).await.ok(200);
    assert_eq!(left["spec"]["replicas"], 1);
}

#[tokio::test]
async fn what_kubectl_applied_on_its_side_is_its_own() {
    const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let api = Api::new().await;
    let path = &format!("{CONFIG_MAPS}/a");
    let mut object = config_map(json!({"a": "1", "b": "1"}));
    object["metadata"]["annotations"] =
        json!({LAST_APPLIED: config_map(json!({"a": "1", "b": "1"})).to_string()});
    api.post(
        &format!("{CONFIG_MAPS}?fieldManager=kubectl-client-side-apply"),
        &object,
    )
    .await
    .ok(201);
    let changed = config_map(json!({"a": "2"}));
    // By another name it is a stranger.
    api.apply(path, "fieldManager=other", &changed)
        .await
        .fails(409, "Conflict");
    let applied = api
        .apply(path, "fieldManager=kubectl", &changed)
        .await
        .ok(200);
    assert_eq!(applied["data"]["a"], "2");
    let annotation = applied["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .unwrap();
    let kept: Value = serde_json::from_str(annotation).unwrap();
    assert_eq!(kept["data"], json!({"a": "2"}));
    assert_eq!(
        fields(&applied, "kubectl/Apply")["f:data"],
        json!({"f:a": {}})
    );
}

#[tokio::test]
async fn configurations_are_applied_in_cbor() {
    let api = Api::new().await;
    let path = format!("{CONFIG_MAPS}/a?fieldManager=x");
    let media_type = "application/apply-patch+cbor";
    let apply = |config: &Value| {
        let body = cbor::from_json(config.to_string().as_bytes()).unwrap();
        api.raw(Method::PATCH, &path, media_type, body)
    };
    let created = apply(&config_map(json!({"a": "1"}))).await.ok(201);
    assert_eq!(fields(&created, "x/Apply"), json!({"f:data": {"f:a": {}}}));
    let changed = apply(&config_map(json!({"b": "1"}))).await.ok(200);
    assert_eq!(changed["data"], json!({"b": "1"}));
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 2}});
    api.post(DEPLOYMENTS, &deployment("web")).await.ok(201);
    let body = cbor::from_json(scale.to_string().as_bytes()).unwrap();
    let of_scale = format!("{DEPLOYMENTS}/web/scale?fieldManager=x&force=true");
    let scaled = api
        .raw(Method::PATCH, &of_scale, media_type, body)
        .await
        .ok(200);
    assert_eq!(scaled["spec"]["replicas"], 2);
}
