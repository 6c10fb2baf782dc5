//! Priority and fairness.

use coracle_apiserver::FlowLimits;
use coracle_store::MemoryStore;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::json;

use super::{FLOW_SCHEMAS, LEVELS, Running, condition, node, tenant, until_dangling};
use crate::harness::{Api, CONFIG_MAPS, DEADLINE, PODS};

const DUMPS: &str = "/debug/api_priority_and_fairness";

async fn small() -> Running {
    let api = Api::over(MemoryStore::new(), |config| {
        config.flow = FlowLimits {
            read_only: 40,
            mutating: 20,
        };
    });
    Running::start(api.await).await
}

#[tokio::test]
async fn a_tenants_flood_of_lists_does_not_hold_up_leases_and_health() {
    let running = small().await;
    let api = &running.api;
    for i in 0..300 {
        let body = json!({"metadata": {"name": format!("c{i}")}, "data": {"a": "x".repeat(600)}});
        api.post(CONFIG_MAPS, &body).await.ok(201);
    }
    // Nobody reads the answers: the seats of those that are served stay taken.
    let flood: Vec<_> = (0..200)
        .map(|_| {
            let tenant = tenant(api);
            tokio::spawn(async move {
                let request = Request::get(CONFIG_MAPS).body(axum::body::Body::empty());
                tenant.send(request.unwrap()).await
            })
        })
        .collect();
    // Some wait when there is no seat left in the level.
    let waiting = async {
        loop {
            let dump = api.get(&format!("{DUMPS}/dump_requests")).await.text;
            if dump.lines().count() > 50 {
                break dump;
            }
            tokio::task::yield_now().await;
        }
    };
    let dump = tokio::time::timeout(DEADLINE, waiting).await.unwrap();
    assert!(dump.contains("global-default,"), "{dump}");
    assert!(dump.contains("system:kube-proxy"), "{dump}");

    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let node = node(api);
    let others = async {
        let lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}});
        node.post(leases, &lease).await.ok(201);
        for _ in 0..20 {
            let lease = node.get(&format!("{leases}/n1")).await.ok(200);
            node.put(&format!("{leases}/n1"), &lease).await.ok(200);
            assert_eq!(api.user(None).get("/livez").await.code, 200);
            node.get("/api/v1/nodes").await.ok(200);
        }
    };
    tokio::time::timeout(DEADLINE, others)
        .await
        .expect("others are served while the flood waits");

    // When the answers are read, those who waited are served.
    let mut codes = Vec::new();
    for request in flood {
        let response = tokio::time::timeout(DEADLINE, request)
            .await
            .unwrap()
            .unwrap();
        codes.push(response.status().as_u16());
        response.into_body().collect().await.unwrap();
    }
    assert!(codes.iter().filter(|code| **code == 200).count() > 50);
    assert!(
        codes.iter().all(|code| [200, 429].contains(code)),
        "{codes:?}"
    );
    running.stop().await;
}

#[tokio::test]
async fn answers_say_of_which_flow_they_were() {
    let running = small().await;
    let api = &running.api;
    let uid = |object: serde_json::Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    for (who, schema, level) in [
        (api.clone(), "exempt", "exempt"),
        (node(api), "system-nodes", "system"),
        (tenant(api), "global-default", "global-default"),
    ] {
        let headers = who.get(CONFIG_MAPS).await.headers;
        let schema = uid(api.get(&format!("{FLOW_SCHEMAS}/{schema}")).await.ok(200));
        let level = uid(api.get(&format!("{LEVELS}/{level}")).await.ok(200));
        assert_eq!(headers["x-kubernetes-pf-flowschema-uid"], schema.as_str());
        assert_eq!(headers["x-kubernetes-pf-prioritylevel-uid"], level.as_str());
    }
    running.stop().await;
}

#[tokio::test]
async fn a_schema_dangles_until_its_level_comes_and_a_level_without_shares_refuses() {
    let running = small().await;
    let api = &running.api;
    let schema = json!({
        "metadata": {"name": "jail"},
        "spec": {
            "matchingPrecedence": 800,
            "priorityLevelConfiguration": {"name": "jail"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "system:kube-proxy"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["*"]}],
            }],
        },
    });
    api.post(FLOW_SCHEMAS, &schema).await.ok(201);
    until_dangling(api, "jail", "True").await;
    let told = api.get(&format!("{FLOW_SCHEMAS}/jail")).await.ok(200);
    assert_eq!(condition(&told)["reason"], "NotFound");
    // One that dangles is none.
    tenant(api).get(CONFIG_MAPS).await.ok(200);

    let level = json!({
        "metadata": {"name": "jail"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 0,
            "limitResponse": {"type": "Reject"},
        }},
    });
    api.post(LEVELS, &level).await.ok(201);
    until_dangling(api, "jail", "False").await;
    let refused = tenant(api).get(CONFIG_MAPS).await;
    refused.fails(429, "TooManyRequests");
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(
        refused
            .headers
            .contains_key("x-kubernetes-pf-prioritylevel-uid")
    );
    tenant(api)
        .get("/api/v1/namespaces/default/pods")
        .await
        .ok(200);
    let metrics = api.get("/metrics").await.text;
    let want = "apiserver_flowcontrol_rejected_requests_total{priority_level=\"jail\",flow_schema=\"jail\",reason=\"concurrency-limit\"} 1";
    assert!(metrics.contains(want), "{metrics}");

    api.delete(&format!("{LEVELS}/jail")).await.ok(200);
    until_dangling(api, "jail", "True").await;
    tenant(api).get(CONFIG_MAPS).await.ok(200);
    running.stop().await;
}

#[tokio::test]
async fn what_is_bootstrapped_comes_back() {
    let running = small().await;
    let api = &running.api;
    let path = format!("{FLOW_SCHEMAS}?watch=1&fieldSelector=metadata.name%3Dprobes");
    let mut watch = api.watch(&path).await;
    let first = watch.event().await.unwrap();
    api.delete(&format!("{FLOW_SCHEMAS}/probes")).await.ok(200);
    loop {
        let event = watch.event().await.expect("an event");
        if event["type"] == "ADDED" {
            assert_ne!(
                event["object"]["metadata"]["uid"],
                first["object"]["metadata"]["uid"]
            );
            break;
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn watches_give_their_seats_back_when_they_have_begun() {
    let api = Api::over(MemoryStore::new(), |config| {
        config.flow = FlowLimits {
            read_only: 1,
            mutating: 0,
        };
    });
    let api = api.await;
    api.config_map("a").await;
    // Without its configuration the server has one level beside the exempt one, of one seat.
    let tenant = tenant(&api);
    let mut first = tenant.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    tenant.get(CONFIG_MAPS).await.fails(429, "TooManyRequests");
    // What lasts and is no watch needs none.
    for lasts in ["log?follow=true", "proxy/"] {
        let answer = tenant.get(&format!("{PODS}/none/{lasts}")).await;
        answer.fails(404, "NotFound");
        let flow = answer.headers.get("x-kubernetes-pf-flowschema-uid");
        assert_eq!(flow, None, "{lasts}");
    }
    assert_eq!(first.line().await, "ADDED a");
    tenant.get(CONFIG_MAPS).await.ok(200);
    let _second = tenant
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1"))
        .await;
    tenant.get(CONFIG_MAPS).await.ok(200);
}

#[tokio::test]
async fn queues_are_shown_to_administrators_only() {
    let api = Api::new().await;
    for (dump, column) in [
        ("dump_priority_levels", "ActiveQueues"),
        ("dump_queues", "NextDispatchR"),
        ("dump_requests", "FlowDistingsher"),
    ] {
        let path = format!("{DUMPS}/{dump}");
        let answer = api.get(&path).await;
        assert_eq!(answer.code, 200);
        assert!(answer.text.starts_with("PriorityLevelName,") && answer.text.contains(column));
        let jane = api.user(Some(coracle_apiserver::UserInfo::new("jane", &[])));
        jane.get(&path).await.fails(403, "Forbidden");
        api.raw(Method::POST, &path, "", "")
            .await
            .fails(404, "NotFound");
    }
    api.get(&format!("{DUMPS}/dump_everything"))
        .await
        .fails(404, "NotFound");
}
