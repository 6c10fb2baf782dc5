//! Helm, with a chart whose workload, hook and test are guests.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::reach::Reach;
use super::{folder, program};
use crate::cluster::{eventually, http_get, succeeded, tool_available};

const RELEASE: &str = "greeter";

/// Helm with a cluster's kubeconfig.
struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Helm {
    fn of(reach: &Reach, program: PathBuf) -> Self {
        Self {
            program,
            kubeconfig: reach.kubeconfig(),
            home: reach.cluster().folder().to_owned(),
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(&self.program)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        succeeded(&self.run(arguments))
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "helm {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// Each revision of the release: its number, and what became of it.
fn history(helm: &Helm) -> Vec<(u64, String)> {
    let text = helm.ok(&["history", RELEASE, "-o", "json"]);
    let revisions: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    revisions
        .iter()
        .map(|revision| {
            let status = revision["status"].as_str().unwrap();
            (revision["revision"].as_u64().unwrap(), status.to_owned())
        })
        .collect()
}

#[test]
fn helm_takes_a_chart_through_its_life() {
    let program = program("HELM", "helm");
    let third = |text: &str| text.starts_with("v3.");
    if !tool_available("helm", &program, &["version", "--short"], third) {
        return;
    }
    let mut reach = Reach::up();
    let helm = Helm::of(&reach, program);
    let chart = folder("helm").join("chart");
    let chart = chart.to_str().unwrap();
    let upgrade = |more: &[&str]| {
        let mut arguments = vec!["upgrade", RELEASE, chart, "--wait", "--timeout=60s"];
        arguments.extend(more);
        helm.run(&arguments)
    };

    let rendered = helm.ok(&["install", RELEASE, chart, "--dry-run=server"]);
    assert!(rendered.contains("kind: Deployment"), "{rendered}");
    let installed = helm.ok(&["install", RELEASE, chart, "--wait", "--timeout=60s"]);
    assert!(installed.contains("STATUS: deployed"), "{installed}");
    let again = helm.fails(&["install", RELEASE, chart]);
    assert!(again.contains("cannot re-use a name"), "{again}");
    assert!(helm.ok(&["list", "-q"]).contains(RELEASE));
    let password = kubectl_value(&reach, &["secret", RELEASE], ".data.password");
    assert_eq!(ready(&reach), "1");
    answers(&reach);
    let tested = helm.ok(&["test", RELEASE, "--logs", "--timeout=60s"]);
    assert!(tested.contains("Phase:          Succeeded"), "{tested}");
    assert!(tested.contains("Hello, test of greeter"), "{tested}");

    succeeded(&upgrade(&["--set", "replicas=2"]));
    assert_eq!(ready(&reach), "2");
    // The chart looked it up and kept it.
    assert_eq!(
        kubectl_value(&reach, &["secret", RELEASE], ".data.password"),
        password
    );
    reach.restart();
    // An upgrade that cannot work is undone.
    let failed = upgrade(&["--set", "image=absent:v1", "--atomic", "--timeout=5s"]);
    assert!(!failed.status.success());
    let expected = [
        (1, "superseded"),
        (2, "superseded"),
        (3, "failed"),
        (4, "deployed"),
    ];
    assert_eq!(
        history(&helm),
        expected.map(|(number, status)| (number, status.to_owned()))
    );
    assert_eq!(ready(&reach), "2");

    helm.ok(&["rollback", RELEASE, "1", "--wait", "--timeout=60s"]);
    assert_eq!(ready(&reach), "1");
    let values = helm.ok(&["get", "values", RELEASE, "--all", "-o", "json"]);
    assert!(values.contains(r#""replicas":1"#), "{values}");
    reach.cut();
    helm.ok(&["uninstall", RELEASE, "--wait", "--timeout=60s"]);
    let left = reach.cluster().kubectl().ok(&[
        "get",
        "deployments,services,secrets",
        "-l",
        "app.kubernetes.io/instance=greeter",
        "-o",
        "name",
    ]);
    assert_eq!(left, "");
    assert!(!helm.ok(&["list", "-aq"]).contains(RELEASE));
}

fn kubectl_value(reach: &Reach, object: &[&str], path: &str) -> String {
    reach.cluster().kubectl().value(object, path)
}

fn ready(reach: &Reach) -> String {
    kubectl_value(reach, &["deployment", RELEASE], ".status.readyReplicas")
}

/// The chart's Service leads to its workload.
fn answers(reach: &Reach) {
    let port = reach.cluster().kubectl().node_port(RELEASE);
    let authority = format!("127.0.0.1:{port}");
    eventually("an answer", || match http_get(&authority, "/") {
        Ok((200, body)) if body.contains("Hello") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}
