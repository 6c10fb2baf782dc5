//! The commands that change one thing of an object, and those that replace or compose it.

use super::said;
use crate::cluster::{Cluster, Kubectl, eventually, kubectl_available, sample};

const OBJECT: [&str; 2] = ["deployment", "app"];

fn patch(kubectl: &Kubectl, kind: &str, patch: &str) {
    let kind = format!("--type={kind}");
    kubectl.ok(&["patch", "deployment", "app", &kind, "-p", patch]);
}

#[test]
fn each_type_of_patch_and_the_short_ways_change_what_they_name() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    kubectl.ok(&[
        "create",
        "deployment",
        "app",
        "--image=absent:v1",
        "--replicas=0",
    ]);
    patch(
        &kubectl,
        "json",
        r#"[{"op":"test","path":"/spec/replicas","value":0},{"op":"add","path":"/metadata/labels/tier","value":"a"}]"#,
    );
    patch(
        &kubectl,
        "merge",
        r#"{"metadata":{"labels":{"tier":null,"team":"b"}}}"#,
    );
    patch(
        &kubectl,
        "strategic",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"absent","env":[{"name":"A","value":"a"}]}]}}}}"#,
    );
    assert_eq!(
        kubectl.value(&OBJECT, ".metadata.labels"),
        r#"{"app":"app","team":"b"}"#
    );
    let container = ".spec.template.spec.containers[*]";
    assert_eq!(
        kubectl.value(&OBJECT, &format!("{container}.image")),
        "absent:v1"
    );
    assert_eq!(
        kubectl.value(&OBJECT, &format!("{container}.env[*].name")),
        "A"
    );
    let failed = kubectl.fails(&[
        "patch",
        "deployment",
        "app",
        "--type=json",
        "-p",
        r#"[{"op":"test","path":"/spec/replicas","value":7}]"#,
    ]);
    assert!(
        failed.contains("the server rejected our request"),
        "{failed}"
    );
    kubectl.ok(&[
        "patch",
        "deployment",
        "app",
        "--subresource=scale",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":1}}"#,
    ]);
    assert_eq!(kubectl.value(&OBJECT, ".spec.replicas"), "1");
    let scaled = kubectl.fails(&[
        "scale",
        "deployment",
        "app",
        "--replicas=3",
        "--current-replicas=2",
    ]);
    assert!(
        scaled.contains("Expected replicas to be 2, was 1"),
        "{scaled}"
    );

    let taken = kubectl.fails(&["label", "deployment", "app", "team=c"]);
    assert!(taken.contains("--overwrite is false"), "{taken}");
    kubectl.ok(&["label", "--overwrite", "deployment", "app", "team=c"]);
    kubectl.ok(&["annotate", "deployment", "app", "note=one"]);
    kubectl.ok(&["annotate", "--overwrite", "deployment", "app", "note=two"]);
    assert_eq!(kubectl.value(&OBJECT, ".metadata.annotations.note"), "two");
    kubectl.ok(&["annotate", "deployment", "app", "note-"]);
    kubectl.ok(&["label", "deployment", "app", "team-"]);
    assert_eq!(
        kubectl.value(&OBJECT, ".metadata.labels"),
        r#"{"app":"app"}"#
    );
}

#[test]
fn replace_force_makes_an_object_anew() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    cluster.coracle(&["push", sample("batch-hello").to_str().unwrap()]);
    let file = cluster.folder().join("pod.yaml");
    let path = file.to_str().unwrap();
    let write = |argument: &str| {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: batch}}\nspec: {{restartPolicy: Never, containers: [{{name: c, image: 'batch-hello:v1', args: [{argument}]}}]}}\n"
        );
        std::fs::write(&file, manifest).unwrap();
    };
    write("Ada");
    kubectl.ok(&["create", "-f", path]);
    let object = ["pod", "batch"];
    let first = kubectl.value(&object, ".metadata.uid");
    // Or else its node may change it between kubectl's read and write.
    kubectl.wait_value(&object, ".status.phase", "Succeeded");
    write("Grace");
    let immutable = kubectl.fails(&["replace", "-f", path]);
    assert!(
        immutable.contains("pod updates may not change fields"),
        "{immutable}"
    );
    kubectl.ok(&["replace", "--force", "-f", path]);
    assert_ne!(kubectl.value(&object, ".metadata.uid"), first);
    kubectl.wait_value(&object, ".status.phase", "Succeeded");
    assert_eq!(kubectl.ok(&["logs", "batch"]), "Hello, Grace\n");
}

#[test]
fn a_kustomization_is_composed_applied_and_deleted() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let folder = cluster.folder().join("kustomize");
    std::fs::create_dir(&folder).unwrap();
    for (name, text) in [
        (
            "kustomization.yaml",
            "namePrefix: over-\nlabels: [{pairs: {layer: over}, includeSelectors: true}]\nresources: [deployment.yaml]\nimages: [{name: absent, newTag: v2}]\nreplicas: [{name: app, count: 0}]\nconfigMapGenerator: [{name: settings, literals: [a=1]}]\n",
        ),
        (
            "deployment.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app}\nspec:\n  selector: {matchLabels: {app: app}}\n  template:\n    metadata: {labels: {app: app}}\n    spec: {containers: [{name: c, image: 'absent:v1', envFrom: [{configMapRef: {name: settings}}]}]}\n",
        ),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let path = folder.to_str().unwrap();
    let composed = kubectl.ok(&["kustomize", path]);
    assert!(composed.contains("image: absent:v2"), "{composed}");
    let applied = kubectl.ok(&["apply", "-k", path]);
    assert!(
        applied.contains("deployment.apps/over-app created"),
        "{applied}"
    );
    let name = kubectl.ok(&["get", "configmaps", "-l", "layer=over", "-o", "name"]);
    let used = kubectl.value(
        &["deployment", "over-app"],
        ".spec.template.spec.containers[0].envFrom[0].configMapRef.name",
    );
    assert_eq!(name, format!("configmap/{used}\n"));
    let same = kubectl.run(&["diff", "-k", path]);
    assert!(same.status.success(), "{}", said(&same));
    kubectl.ok(&["delete", "-k", path]);
    kubectl.fails(&["get", "deployment", "over-app"]);
}

#[test]
fn a_drain_evicts_and_events_tell_of_it() {
    if !kubectl_available() {
        return;
    }
    let mut cluster = Cluster::up(&["--apply", sample("hello-http").to_str().unwrap()]);
    cluster.process.wait_for_line("http://127.0.0.1:");
    let kubectl = cluster.kubectl();
    kubectl.ok(&[
        "rollout",
        "status",
        "deployment/hello-http",
        "--timeout=60s",
    ]);
    let paged = kubectl.ok(&["get", "pods", "--chunk-size=1", "-o", "name"]);
    assert_eq!(paged.lines().count(), 2, "{paged}");
    let node = kubectl.value(&["nodes"], ".items[0].metadata.name");
    kubectl.ok(&[
        "create",
        "poddisruptionbudget",
        "guard",
        "--selector=app=hello-http",
        "--min-available=2",
    ]);
    kubectl.wait_value(&["pdb", "guard"], ".status.currentHealthy", "2");
    let guarded = kubectl.fails(&["drain", &node, "--timeout=2s"]);
    assert!(
        guarded.contains("Cannot evict pod as it would violate"),
        "{guarded}"
    );
    kubectl.ok(&["delete", "pdb", "guard"]);
    let drained = kubectl.ok(&["drain", &node, "--timeout=60s"]);
    assert!(drained.contains("evicted"), "{drained}");
    for pod in paged.lines() {
        kubectl.fails(&["get", pod]);
        let told = kubectl.ok(&["events", "--for", pod]);
        assert!(
            told.contains("Killing") && told.contains("Scheduled"),
            "{told}"
        );
    }
    // Their successors find no place.
    eventually("Pods that wait", || {
        let waiting = kubectl.ok(&[
            "get",
            "pods",
            "--field-selector=status.phase=Pending",
            "-o",
            "name",
        ]);
        if waiting.lines().count() == 2 {
            Ok(())
        } else {
            Err(waiting)
        }
    });
}
