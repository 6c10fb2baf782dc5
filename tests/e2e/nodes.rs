//! Servers and agents as separate processes.

use std::path::Path;
use std::process::Command;

use crate::cluster::{
    CORACLE, Kubectl, Process, UNDISTURBED, api_address, cluster_cidr, eventually, http_get,
    is_root, kubectl_available, processes_of, sample, succeeded,
};

/// A server without a node.
pub(crate) struct Server {
    /// Ends when the server is dropped, before its folder does.
    pub(crate) process: Process,
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let cidr = cluster_cidr();
        let mut process = Process::start(
            &[
                "server",
                UNDISTURBED,
                "--no-node",
                "--cluster-cidr",
                &cidr,
                "--data-dir",
                data.to_str().unwrap(),
                "--listen",
                "127.0.0.1:0",
                "--registry-listen",
                "127.0.0.1:0",
            ],
            folder.path().join("output"),
        );
        process.wait_for_line("is ready");
        Self { process, folder }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn coracle(&self, arguments: &[&str]) -> String {
        succeeded(
            &Command::new(CORACLE)
                .args(arguments)
                .arg("--data-dir")
                .arg(self.data())
                .output()
                .unwrap(),
        )
    }

    pub(crate) fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.data().join("kubeconfig"), self.folder.path())
    }

    /// The API's URL, from the kubeconfig.
    fn url(&self) -> String {
        format!("https://{}", api_address(&self.data().join("kubeconfig")))
    }
}

/// A folder for agents. Guests outlive an agent that ends, as they should; those of a test are
/// reset with its folder.
pub(crate) struct AgentFolder(tempfile::TempDir);

impl AgentFolder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for AgentFolder {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.path()).unwrap() {
            let path = entry.unwrap().path();
            if !path.is_dir() {
                continue;
            }
            let reset = Command::new(CORACLE)
                .args(["reset", "--data-dir"])
                .arg(&path)
                .output()
                .unwrap();
            if !std::thread::panicking() {
                succeeded(&reset);
                assert_eq!(processes_of(&path), []);
            }
        }
    }
}

pub(crate) fn agent(server: &Server, name: &str, token: &str, folder: &Path) -> Process {
    let data = folder.join(format!("data-{name}"));
    Process::start(
        &[
            "agent",
            UNDISTURBED,
            "--server",
            &server.url(),
            "--token",
            token,
            "--node-name",
            name,
            "--kubelet-port",
            "0",
            "--data-dir",
            data.to_str().unwrap(),
        ],
        folder.join(format!("output-{name}")),
    )
}

#[test]
fn two_agents_join_a_server_and_run_pods() {
    if !kubectl_available() {
        return;
    }
    let server = Server::start();
    let kubectl = server.kubectl();
    let token = server.coracle(&["token", "create"]);
    let token = token.trim();
    let folder = AgentFolder::new();
    let _one = agent(&server, "one", token, folder.path());
    let _two = agent(&server, "two", token, folder.path());
    for name in ["one", "two"] {
        eventually(&format!("node {name}"), || {
            let nodes = kubectl.ok(&["get", "nodes"]);
            let ready = nodes
                .lines()
                .any(|line| line.starts_with(name) && line.contains(" Ready"));
            if ready { Ok(()) } else { Err(nodes) }
        });
    }
    server.coracle(&["push", sample("batch-hello").to_str().unwrap()]);
    for name in ["one", "two"] {
        kubectl.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: on-{name}}}\nspec:\n  nodeName: {name}\n  restartPolicy: Never\n  containers: [{{name: main, image: 'batch-hello:v1'}}]\n"
        ));
        let pod = format!("on-{name}");
        kubectl.wait_value(&["pod", &pod], ".status.phase", "Succeeded");
        assert!(kubectl.ok(&["logs", &pod]).contains("Hello"));
    }
}

#[test]
fn pods_of_two_nodes_reach_each_other() {
    if !kubectl_available() || !is_root() {
        return;
    }
    let server = Server::start();
    let kubectl = server.kubectl();
    let token = server.coracle(&["token", "create"]);
    let folder = AgentFolder::new();
    let mut agents: Vec<Process> = ["one", "two"]
        .map(|name| agent(&server, name, token.trim(), folder.path()))
        .into();
    for agent in &mut agents {
        agent.wait_for_line("is Ready");
    }
    let path = sample("kv-counter");
    let path = path.to_str().unwrap();
    server.coracle(&["push", path]);
    kubectl.ok(&["apply", "-f", path]);
    for (deployment, node) in [("kv-store", "one"), ("kv-web", "two")] {
        let selector = format!(
            r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"kubernetes.io/hostname":"{node}"}}}}}}}}}}"#
        );
        kubectl.ok(&["patch", "deployment", deployment, "-p", &selector]);
        let deployment = format!("deployment/{deployment}");
        kubectl.ok(&["rollout", "status", &deployment, "--timeout=60s"]);
    }
    eventually("a visit across nodes", || {
        let selector = "--field-selector=spec.nodeName=two,status.phase=Running";
        let web = kubectl.ok(&[
            "get",
            "pods",
            "-l",
            "app=kv-web",
            selector,
            "-o",
            "jsonpath={.items[0].status.podIP}",
        ]);
        match http_get(&format!("{web}:8080"), "/") {
            Ok((200, body)) if body.starts_with("visit ") => Ok(()),
            other => Err(format!("{web} {other:?}")),
        }
    });
    drop(agents);
}

#[test]
fn a_wrong_token_does_not_join() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let token = server.coracle(&["token", "create"]);
    let token = token.trim();
    let (pin, _) = token.split_once("::").unwrap();
    let flipped = if pin.ends_with('0') { '1' } else { '0' };
    let other_authority = format!(
        "{}{flipped}::abcdef.0123456789abcdef",
        &pin[..pin.len() - 1]
    );
    let unknown = format!("{pin}::abcdef.0123456789abcdef");
    for (wrong, said) in [
        (other_authority, "not the one in the token"),
        (unknown, "token is not known"),
    ] {
        let mut process = agent(&server, "stranger", &wrong, folder.path());
        let status = process.wait();
        assert_eq!(status.code(), Some(1));
        assert!(process.printed().contains(said), "{}", process.printed());
    }
}

#[test]
fn pods_survive_a_kill_of_their_agent() {
    if !kubectl_available() {
        return;
    }
    let server = Server::start();
    let kubectl = server.kubectl();
    let token = server.coracle(&["token", "create"]);
    let token = token.trim();
    let folder = AgentFolder::new();
    let mut first = agent(&server, "one", token, folder.path());
    for name in ["tcp-echo", "hello-http"] {
        let path = sample(name);
        let path = path.to_str().unwrap();
        server.coracle(&["push", path]);
        kubectl.ok(&["apply", "-f", path]);
        kubectl.ok(&[
            "rollout",
            "status",
            &format!("deployment/{name}"),
            "--timeout=90s",
        ]);
    }
    let path = "/api/v1/namespaces/default/services/hello-http:80/proxy/greet";
    let proxied = kubectl.ok(&["get", "--raw", path]);
    assert!(proxied.contains("you asked for /greet"), "{proxied}");
    let state = || {
        kubectl.ok(&[
            "get",
            "pods",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}",
        ])
    };
    let before = state();
    assert!(before.contains("wasm://"), "{before}");
    first.signal(libc::SIGKILL);
    first.wait();
    let mut second = agent(&server, "one", token, folder.path());
    second.wait_for_line("is Ready");
    eventually("an answer through the new agent", || {
        let port = kubectl.node_port("hello-http");
        match http_get(&format!("127.0.0.1:{port}"), "/") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(before, state());
    kubectl.ok(&["delete", "deployments", "--all"]);
    eventually("the Pods to go", || {
        let pods = state();
        if pods.is_empty() { Ok(()) } else { Err(pods) }
    });
}
