//! Server-side apply by kubectl.

use super::said;
use crate::cluster::{Cluster, kubectl_available};

/// A Deployment that one manager applies.
fn deployment(replicas: &str, labels: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: owned, labels: {{{labels}}}}}\nspec:\n  {replicas}\n  selector: {{matchLabels: {{app: owned}}}}\n  template:\n    metadata: {{labels: {{app: owned}}}}\n    spec: {{containers: [{{name: c, image: 'absent:v1'}}]}}\n"
    )
}

#[test]
fn managers_own_what_they_apply() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let file = cluster.folder().join("owned.yaml");
    let apply = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let mut arguments = vec!["apply", "--server-side", "-f", file.to_str().unwrap()];
        arguments.extend(more);
        kubectl.run(&arguments)
    };
    let first = apply(&deployment("replicas: 0", "tier: a, team: b"), &[]);
    assert!(first.status.success(), "{}", said(&first));

    // Another manager may not take what is owned, unless it insists.
    let other = deployment("replicas: 2", "tier: a");
    let conflict = apply(&other, &["--field-manager=other"]);
    assert!(!conflict.status.success());
    let message = said(&conflict);
    assert!(
        message.contains("conflict with \"kubectl\"") && message.contains(".spec.replicas"),
        "{message}"
    );
    let forced = apply(&other, &["--field-manager=other", "--force-conflicts"]);
    assert!(forced.status.success(), "{}", said(&forced));
    assert_eq!(
        kubectl.value(&["deployment", "owned"], ".spec.replicas"),
        "2"
    );

    // What its only owner drops goes; what is shared stays.
    let dropped = apply(&deployment("paused: false", "x: one"), &[]);
    assert!(dropped.status.success(), "{}", said(&dropped));
    let labels = kubectl.value(&["deployment", "owned"], ".metadata.labels");
    assert!(
        labels.contains("tier") && labels.contains(r#""x":"one""#) && !labels.contains("team"),
        "{labels}"
    );
    assert_eq!(
        kubectl.value(&["deployment", "owned"], ".spec.replicas"),
        "2"
    );

    // A dry run shows the difference and changes nothing.
    std::fs::write(&file, deployment("paused: true", "x: two")).unwrap();
    let difference = kubectl.run(&["diff", "--server-side", "-f", file.to_str().unwrap()]);
    assert_eq!(difference.status.code(), Some(1), "{}", said(&difference));
    assert!(
        said(&difference).contains("+    x: two"),
        "{}",
        said(&difference)
    );
    assert_eq!(
        kubectl.value(&["deployment", "owned"], ".metadata.labels.x"),
        "one"
    );
}
