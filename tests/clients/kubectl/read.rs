//! The commands that read.

use std::fmt::Write;

use crate::cluster::{Cluster, kubectl_available, sample};

#[test]
fn all_kinds_are_listed_described_and_explained() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&["--apply", sample("hello-http").to_str().unwrap()]);
    let kubectl = cluster.kubectl();
    let kinds = kubectl.ok(&["api-resources", "--verbs=list", "-o", "name"]);
    assert!(kinds.lines().count() >= 50, "{kinds}");
    for kind in kinds.lines() {
        kubectl.ok(&["get", kind, "-A", "-o", "wide"]);
        kubectl.ok(&["get", kind, "-A", "-o", "yaml"]);
        kubectl.ok(&["describe", kind, "-A"]);
    }
    let versions = kubectl.ok(&["api-resources", "--no-headers"]);
    for line in versions.lines() {
        // From the end, as not every kind has a short name.
        let fields: Vec<_> = line.split_whitespace().collect();
        let [name, .., version, _, _] = fields[..] else {
            panic!("{line}");
        };
        let version = format!("--api-version={version}");
        kubectl.ok(&["explain", name, &version, "--recursive"]);
    }
}

#[test]
fn lists_of_all_sizes_come_whole() {
    if !kubectl_available() {
        return;
    }
    let cluster = Cluster::up(&[]);
    let kubectl = cluster.kubectl();
    let file = cluster.folder().join("many.yaml");
    let path = file.to_str().unwrap();
    // Beyond what is sent in one piece, then beyond what is sent as it is, then in pages.
    let mut made = 0;
    for count in [80, 120, 400] {
        let mut manifests = String::new();
        for number in made..made + count {
            let value = "x".repeat(500);
            writeln!(
                manifests,
                "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: many-{number}, labels: {{many: ''}}}}\ndata: {{v: {value}}}"
            )
            .unwrap();
        }
        std::fs::write(&file, manifests).unwrap();
        kubectl.ok(&["create", "-f", path]);
        made += count;
        let names = "jsonpath={.items[*].metadata.name}";
        for chunk in ["--chunk-size=0", "--chunk-size=500"] {
            let listed = kubectl.ok(&["get", "configmaps", "-l", "many", chunk, "-o", names]);
            assert_eq!(listed.split(' ').count(), made);
        }
    }
}
