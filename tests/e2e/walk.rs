//! What a user does with kubectl, command by command.

use crate::cluster::{Cluster, eventually, http_get, kubectl_available, sample};

#[test]
fn kubectl_finds_its_way_around() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();

    assert!(kubectl.ok(&["version"]).contains("Server Version: v1.37"));
    assert!(kubectl.ok(&["cluster-info"]).contains("is running at"));
    let resources = kubectl.ok(&["api-resources"]);
    for kind in [
        "Pod",
        "Deployment",
        "EndpointSlice",
        "RuntimeClass",
        "Lease",
    ] {
        assert!(resources.contains(kind), "{resources}");
    }
    assert!(kubectl.ok(&["api-versions"]).contains("apps/v1"));
    assert!(
        kubectl
            .ok(&["explain", "deployment.spec.strategy"])
            .contains("FIELDS")
    );
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        kubectl.ok(&["get", "namespace", name]);
    }
    let everything = kubectl.ok(&["get", "nodes,deployments,pods,services", "-A", "-o", "wide"]);
    assert!(everything.contains("service/kubernetes"), "{everything}");
    assert!(everything.contains(" Ready"), "{everything}");
    kubectl.wait_value(&["serviceaccount", "default"], ".metadata.name", "default");
    let endpoint = kubectl.value(
        &["endpointslice", "kubernetes"],
        ".endpoints[0].addresses[0]",
    );
    assert!(!endpoint.starts_with("127."), "{endpoint}");
}

#[test]
fn a_deployment_lives_its_life_under_kubectl() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let guest = sample("hello-http").join("hello-http.wasm");
    let guest = guest.to_str().unwrap();
    cluster.coracle(&["push", guest, "app:v1"]);
    cluster.coracle(&["push", guest, "app:v2"]);

    kubectl.ok(&[
        "create",
        "deployment",
        "app",
        "--image=app:v1",
        "--port=8080",
    ]);
    kubectl.ok(&["expose", "deployment", "app", "--type=NodePort"]);
    kubectl.ok(&["rollout", "status", "deployment/app", "--timeout=60s"]);
    let authority = format!("127.0.0.1:{}", kubectl.node_port("app"));
    eventually("an answer", || match http_get(&authority, "/") {
        Ok((200, body)) if body.contains("Hello") => Ok(()),
        other => Err(format!("{other:?}")),
    });

    kubectl.ok(&["scale", "deployment", "app", "--replicas=3"]);
    kubectl.wait_value(&["deployment", "app"], ".status.readyReplicas", "3");
    kubectl.ok(&["set", "image", "deployment/app", "app=app:v2"]);
    kubectl.ok(&["rollout", "status", "deployment/app", "--timeout=60s"]);
    let history = kubectl.ok(&["rollout", "history", "deployment/app"]);
    assert!(
        history.lines().any(|line| line.starts_with('2')),
        "{history}"
    );
    kubectl.ok(&["rollout", "undo", "deployment/app"]);
    kubectl.ok(&["rollout", "status", "deployment/app", "--timeout=60s"]);
    assert_eq!(
        kubectl.value(
            &["deployment", "app"],
            ".spec.template.spec.containers[0].image"
        ),
        "app:v1"
    );
    kubectl.ok(&["rollout", "pause", "deployment/app"]);
    kubectl.ok(&["set", "env", "deployment/app", "COLOUR=blue"]);
    let before = kubectl.value(
        &["deployment", "app"],
        ".metadata.annotations.deployment\\.kubernetes\\.io/revision",
    );
    kubectl.ok(&["rollout", "resume", "deployment/app"]);
    kubectl.ok(&["rollout", "status", "deployment/app", "--timeout=60s"]);
    let after = kubectl.value(
        &["deployment", "app"],
        ".metadata.annotations.deployment\\.kubernetes\\.io/revision",
    );
    assert_ne!(before, after);
    kubectl.ok(&["rollout", "restart", "deployment/app"]);
    kubectl.ok(&["rollout", "status", "deployment/app", "--timeout=60s"]);

    kubectl.ok(&["label", "deployment", "app", "tier=front"]);
    kubectl.ok(&["annotate", "deployment", "app", "note=hello"]);
    kubectl.ok(&[
        "patch",
        "deployment",
        "app",
        "-p",
        r#"{"spec":{"minReadySeconds":1}}"#,
    ]);
    kubectl.ok(&[
        "wait",
        "--for=condition=Available",
        "deployment/app",
        "--timeout=60s",
    ]);
    assert!(
        kubectl
            .ok(&["get", "deployments", "-l", "tier=front", "-o", "name"])
            .contains("deployment.apps/app")
    );
    kubectl.edit("s/replicas: [0-9]*/replicas: 2/", &["deployment", "app"]);
    kubectl.wait_value(&["deployment", "app"], ".spec.replicas", "2");
    let described = kubectl.ok(&["describe", "deployment", "app"]);
    assert!(described.contains("ScalingReplicaSet"), "{described}");
    let pod = kubectl.ok(&["get", "pods", "-l", "app=app", "-o", "name"]);
    let pod = pod.lines().next().unwrap().to_owned();
    let described = kubectl.ok(&["describe", &pod]);
    for word in ["Scheduled", "Started", "wasm://", "Ready"] {
        assert!(described.contains(word), "{word}: {described}");
    }
    kubectl.ok(&["delete", "deployment", "app"]);
    eventually("the Pods to go", || {
        let pods = kubectl.ok(&["get", "pods", "-l", "app=app", "-o", "name"]);
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
}

#[test]
fn logs_are_followed_and_events_watched() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let events = kubectl.spawn(
        &["get", "events", "--watch"],
        &cluster.folder().join("events"),
    );
    let echo = sample("tcp-echo");
    let echo = echo.to_str().unwrap();
    cluster.coracle(&["push", echo]);
    kubectl.ok(&["apply", "-f", echo]);
    kubectl.ok(&["rollout", "status", "deployment/tcp-echo", "--timeout=60s"]);
    let logs = kubectl.spawn(
        &["logs", "-f", "deployment/tcp-echo"],
        &cluster.folder().join("logs"),
    );
    let address = ("127.0.0.1", kubectl.node_port("tcp-echo"));
    eventually("the log of a connection", || {
        drop(std::net::TcpStream::connect(address));
        let printed = logs.printed();
        if printed.contains("listening on") && printed.contains("bytes") {
            Ok(())
        } else {
            Err(printed)
        }
    });
    let last = kubectl.ok(&["logs", "deployment/tcp-echo", "--tail=1", "--timestamps"]);
    assert_eq!(last.lines().count(), 1, "{last}");
    assert!(last.starts_with("20"), "{last}");
    eventually("the events", || {
        let printed = events.printed();
        if printed.contains("Scheduled") && printed.contains("Started") {
            Ok(())
        } else {
            Err(printed)
        }
    });
}

#[test]
fn cordoned_nodes_take_no_pods() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let node = kubectl.value(&["nodes"], ".items[0].metadata.name");
    cluster.coracle(&["push", sample("batch-hello").to_str().unwrap()]);
    kubectl.ok(&["cordon", &node]);
    kubectl.ok(&["run", "one", "--image=batch-hello:v1", "--restart=Never"]);
    eventually("FailedScheduling", || {
        let events = kubectl.ok(&["get", "events"]);
        if events.contains("0/1 nodes are available: 1 node(s) were unschedulable") {
            Ok(())
        } else {
            Err(events)
        }
    });
    kubectl.ok(&["uncordon", &node]);
    kubectl.wait_value(&["pod", "one"], ".status.phase", "Succeeded");
}

#[test]
fn bad_input_gets_the_answers_that_kubectl_users_know() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let missing = kubectl.fails(&["get", "pod", "absent"]);
    assert!(missing.contains(r#"pods "absent" not found"#), "{missing}");
    kubectl.ok(&["create", "configmap", "twice"]);
    let twice = kubectl.fails(&["create", "configmap", "twice"]);
    assert!(
        twice.contains(r#"configmaps "twice" already exists"#),
        "{twice}"
    );
    let nowhere = kubectl.fails(&["create", "configmap", "a", "-n", "nowhere"]);
    assert!(
        nowhere.contains(r#"namespaces "nowhere" not found"#),
        "{nowhere}"
    );
    let invalid = kubectl.fails(&["run", "Bad_Name", "--image=a"]);
    assert!(invalid.contains("metadata.name"), "{invalid}");
    let manifest = cluster.folder().join("unknown.yaml");
    std::fs::write(
        &manifest,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {colour: blue, containers: [{name: c, image: a}]}\n",
    )
    .unwrap();
    let strict = kubectl.fails(&["create", "-f", manifest.to_str().unwrap()]);
    assert!(
        strict.contains(r#"unknown field "spec.colour""#),
        "{strict}"
    );
}
