//! Tokens of service accounts, from the one who asks for them to the guest that uses them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Kubectl, eventually, kubectl_available, sample};

/// A kubeconfig of somebody who has a token and no certificate.
fn with_token(cluster: &Cluster, token: &str) -> Kubectl {
    let text = std::fs::read_to_string(cluster.data().join("kubeconfig")).unwrap();
    let mut config: Value = serde_yaml::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({ "token": token });
    let path = cluster.folder().join("kubeconfig-of-token");
    std::fs::write(&path, config.to_string()).unwrap();
    Kubectl::new(path, cluster.folder())
}

/// The user of a token, as a review has it.
#[track_caller]
fn reviewed(cluster: &Cluster, token: &str) -> Value {
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
    });
    let file = cluster.folder().join("review.json");
    std::fs::write(&file, review.to_string()).unwrap();
    // To validate what can only be created, kubectl looks for definitions of custom resources.
    let file = file.to_str().unwrap();
    let create = ["create", "--validate=false", "-f", file, "-o", "json"];
    let answer = cluster.kubectl().ok(&create);
    let status = serde_json::from_str::<Value>(&answer).unwrap()["status"].clone();
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status.get("error"), None);
    status["user"].clone()
}

/// The folder on the node of a projected volume of a Pod, whose name begins so.
#[track_caller]
fn volume(cluster: &Cluster, pod: &str, prefix: &str) -> PathBuf {
    let uid = cluster.kubectl().value(&["pod", pod], ".metadata.uid");
    let volumes = cluster
        .data()
        .join("agent/pods/pods")
        .join(uid)
        .join("volumes/kubernetes.io~projected");
    let entries = std::fs::read_dir(&volumes).unwrap();
    let mut names = entries.map(|entry| entry.unwrap().path());
    let found = names.find(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(prefix)
    });
    found.unwrap_or_else(|| panic!("no volume {prefix} in {}", volumes.display()))
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn a_guest_asks_the_api_server_who_it_is() {
    if !kubectl_available() {
        return;
    }
    let folder = sample("whoami");
    let folder = folder.to_str().unwrap();
    for cluster in [Cluster::up_as_nobody(&[]), Cluster::up(&[])] {
        let kubectl = cluster.kubectl();
        cluster.coracle(&["push", folder]);
        kubectl.ok(&["apply", "-f", folder]);
        kubectl.wait_value(&["pod", "whoami"], ".status.phase", "Succeeded");
        let said = kubectl.ok(&["logs", "whoami"]);
        let uid = kubectl.value(&["pod", "whoami"], ".metadata.uid");
        for line in [
            "namespace default, certificates 1",
            "system:serviceaccount:default:whoami",
            "authentication.kubernetes.io/pod-name [\"whoami\"]",
            &format!("authentication.kubernetes.io/pod-uid [\"{uid}\"]"),
        ] {
            assert!(said.lines().any(|said| said == line), "{line}: {said}");
        }
        assert!(
            said.contains("authentication.kubernetes.io/node-name"),
            "{said}"
        );
    }
}

#[test]
fn kubectl_makes_tokens_that_end_with_their_pod() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&["--apply", sample("whoami").to_str().unwrap()]);
    let kubectl = cluster.kubectl();
    kubectl.wait_value(&["serviceaccount", "default"], ".metadata.name", "default");
    let token = kubectl.ok(&["create", "token", "default", "--duration", "10m"]);
    let own = with_token(&cluster, token.trim());
    let said = own.ok(&["auth", "whoami"]);
    assert!(
        said.contains("system:serviceaccount:default:default"),
        "{said}"
    );
    assert!(own.fails(&["get", "secrets"]).contains("Forbidden"));
    let refused = kubectl.fails(&["create", "token", "default", "--duration", "1m"]);
    assert!(refused.contains("10 minutes"), "{refused}");

    let bound = [
        "create",
        "token",
        "whoami",
        "--bound-object-kind",
        "Pod",
        "--bound-object-name",
        "whoami",
    ];
    let token = kubectl.ok(&bound);
    let own = with_token(&cluster, token.trim());
    own.ok(&["auth", "whoami"]);
    kubectl.ok(&["delete", "pod", "whoami", "--now"]);
    let refused = own.fails(&["auth", "whoami"]);
    assert!(
        refused.contains("Unauthorized") || refused.contains("logged in"),
        "{refused}"
    );
}

/// Must: token, root certificates and namespace of a Pod are files in every container, at the path
/// that clients know; each is what it is called.
/// Must: the volume with them is mounted without being asked for.
#[test]
fn serviceaccounts_should_mount_an_api_token_into_pods() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    cluster.coracle(&["push", sample("hello-http").to_str().unwrap()]);
    cluster.coracle(&["push", sample("whoami").to_str().unwrap()]);
    kubectl.ok(&["create", "serviceaccount", "mount-test"]);
    // The first container ends once it has read the three files; the second goes on, so that the
    // volume stays.
    kubectl.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: mounts}, spec: {
            serviceAccountName: mount-test, terminationGracePeriodSeconds: 0,
            initContainers: [{name: reads, image: 'whoami:v1'}],
            containers: [{name: test, image: 'hello-http:v1'}]}}",
    );
    kubectl.wait_value(&["pod", "mounts"], ".status.phase", "Running");
    let said = kubectl.ok(&["logs", "mounts", "-c", "reads"]);
    assert!(said.contains("namespace default, certificates 1"), "{said}");
    assert!(
        said.contains("system:serviceaccount:default:mount-test"),
        "{said}"
    );
    let paths = kubectl.value(
        &["pod", "mounts"],
        ".spec.containers[*].volumeMounts[*].mountPath",
    );
    assert_eq!(paths, "/var/run/secrets/kubernetes.io/serviceaccount");

    let folder = volume(&cluster, "mounts", "kube-api-access-");
    let certificates = kubectl.value(&["configmap", "kube-root-ca.crt"], ".data.ca\\.crt");
    assert_eq!(read(&folder, "ca.crt"), certificates);
    assert_eq!(read(&folder, "namespace"), "default");
    let user = reviewed(&cluster, &read(&folder, "token"));
    assert_eq!(user["username"], "system:serviceaccount:default:mount-test");
    let groups = user["groups"].as_array().unwrap();
    for group in [
        "authenticated",
        "serviceaccounts",
        "serviceaccounts:default",
    ] {
        let group = json!(format!("system:{group}"));
        assert!(groups.contains(&group), "{user}");
    }
}

/// Must: a token that a Pod asks for in a volume of its own is mounted there, and is one.
#[test]
fn serviceaccounts_should_mount_projected_service_account_token() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    cluster.coracle(&["push", sample("hello-http").to_str().unwrap()]);
    cluster.coracle(&["push", sample("whoami").to_str().unwrap()]);
    // The token goes with the last container, and the second one goes on.
    kubectl.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: projected}, spec: {
            automountServiceAccountToken: false, terminationGracePeriodSeconds: 0,
            volumes: [{name: test-volume, projected: {sources: [
                {serviceAccountToken: {path: token, expirationSeconds: 3600}}]}}],
            initContainers: [{name: reads, image: 'whoami:v1', args: [/test-volume/token],
                volumeMounts: [{name: test-volume, mountPath: /test-volume, readOnly: true}]}],
            containers: [{name: test, image: 'hello-http:v1'}]}}",
    );
    kubectl.wait_value(&["pod", "projected"], ".status.phase", "Running");
    let said = kubectl.ok(&["logs", "projected", "-c", "reads"]);
    assert!(
        said.contains("system:serviceaccount:default:default"),
        "{said}"
    );
    let token = read(&volume(&cluster, "projected", "test-volume"), "token");
    assert_eq!(token.split('.').count(), 3, "{token}");
    eventually("a review", || Ok(reviewed(&cluster, &token)));
}

/// Must: a Pod can read what the issuer of its token says of itself, and the keys that this names.
/// Must: the issuer is the one that the token names, and one of its keys has signed the token.
#[test]
fn serviceaccounts_serviceaccountissuerdiscovery_should_support_oidc_discovery_of_service_account_issuer()
 {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    cluster.coracle(&["push", sample("whoami").to_str().unwrap()]);
    kubectl.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: oidc-discovery-validator}, spec: {
            restartPolicy: Never,
            volumes: [{name: sa-token, projected: {sources: [{serviceAccountToken: {
                path: sa-token, expirationSeconds: 600, audience: oidc-discovery-test}}]}}],
            containers: [{name: validator, image: 'whoami:v1',
                args: [verify, /var/run/secrets/tokens/sa-token, oidc-discovery-test],
                volumeMounts: [
                    {name: sa-token, mountPath: /var/run/secrets/tokens, readOnly: true}]}]}}",
    );
    let pod = ["pod", "oidc-discovery-validator"];
    kubectl.wait_value(&pod, ".status.phase", "Succeeded");
    let said = kubectl.ok(&["logs", "oidc-discovery-validator"]);
    let want = "verified \"system:serviceaccount:default:default\" for oidc-discovery-test by \
                https://kubernetes.default.svc.cluster.local";
    assert_eq!(said.trim(), want);
}
