//! One cluster with busybox for the tests that run at the same time: each has a namespace of its
//! own in it, and the last one ends it. Where tests run one after the other each has a new cluster.

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};

use crate::cluster::busybox::{cluster_with_busybox, push_speaker};
use crate::cluster::{Cluster, Kubectl, eventually, sample};

/// Guests whose images the cluster has beside `busybox:v1`, as `NAME:v1`.
const GUESTS: [&str; 2] = ["hello-http", "tcp-echo"];

/// A namespace of a cluster, in which kubectl is when nobody names one.
pub(super) struct Place {
    kubectl: Kubectl,
    pub(super) namespace: String,
    pub(super) cluster: Arc<Cluster>,
}

impl Deref for Place {
    type Target = Kubectl;

    fn deref(&self) -> &Kubectl {
        &self.kubectl
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = ["delete", "namespace", &self.namespace, "--wait=false"];
        let output = self.kubectl.run(&gone);
        if !std::thread::panicking() {
            assert!(output.status.success(), "{output:?}");
        }
    }
}

/// A new namespace, where containers can run.
pub(super) fn place() -> Option<Place> {
    static CLUSTER: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let cluster = {
        // A test that fails leaves a cluster that works.
        let mut shared = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            cluster
        } else {
            let (cluster, _) = cluster_with_busybox(&[])?;
            for guest in GUESTS {
                let file = sample(guest).join(format!("{guest}.wasm"));
                cluster.coracle(&["push", file.to_str().unwrap(), &format!("{guest}:v1")]);
            }
            push_speaker(&cluster, "speaker:v1");
            let cluster = Arc::new(cluster);
            *shared = Arc::downgrade(&cluster);
            cluster
        }
    };
    let namespace = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let kubectl = cluster.kubectl().within(&namespace);
    kubectl.ok(&["create", "namespace", &namespace]);
    kubectl.wait_value(&["serviceaccount", "default"], ".metadata.name", "default");
    Some(Place {
        kubectl,
        namespace,
        cluster,
    })
}

impl Place {
    /// Makes an object of version v1 with a name, and labelled with that.
    #[track_caller]
    pub(super) fn make(&self, kind: &str, name: &str, spec: &Value) {
        let metadata = json!({"name": name, "labels": {"name": name}});
        super::create(
            self,
            &json!({"kind": kind, "metadata": metadata, "spec": spec}),
        );
    }

    /// Makes a Pod of busybox that runs a script of its shell.
    #[track_caller]
    pub(super) fn script(&self, name: &str, script: &str) {
        self.make("Pod", name, &pod(script));
    }

    /// Waits until Pods are ready.
    #[track_caller]
    pub(super) fn wait_ready(&self, pods: &[&str]) {
        for pod in pods {
            let ready = r#".status.conditions[?(@.type=="Ready")].status"#;
            self.wait_value(&["pod", pod], ready, "True");
        }
    }

    /// Runs a script in a Pod, which must succeed: what it prints.
    #[track_caller]
    pub(super) fn shell(&self, pod: &str, script: &str) -> String {
        self.ok(&["exec", pod, "--", "sh", "-c", script])
    }

    /// Runs a script in a Pod: what it prints where it succeeds.
    pub(super) fn try_shell(&self, pod: &str, script: &str) -> Result<String, String> {
        let output = self.run(&["exec", pod, "--", "sh", "-c", script]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            let error = String::from_utf8_lossy(&output.stderr);
            Err(format!("{text}{error}"))
        }
    }

    /// Runs a script in a Pod until what it prints is as wanted.
    #[track_caller]
    pub(super) fn shell_until(&self, pod: &str, script: &str, wanted: impl Fn(&str) -> bool) {
        eventually(script, || match self.try_shell(pod, script) {
            Ok(text) if wanted(&text) => Ok(()),
            Ok(text) | Err(text) => Err(text),
        });
    }

    #[track_caller]
    pub(super) fn address(&self, pod: &str) -> String {
        self.value(&["pod", pod], ".status.podIP")
    }
}

/// A Pod of one container, `main`, that runs a script.
pub(super) fn pod(script: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "busybox:v1", "command": ["sh", "-c", script]}],
    })
}

/// A script that goes on until it is ended.
pub(super) const IDLE: &str = "trap exit TERM; while true; do sleep 0.1; done";

/// A script that answers requests of HTTP on port 8080 with the name of its Pod.
pub(super) const WEB: &str =
    "mkdir /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www";

/// The same Pod, in which the machine's own programs are as well.
pub(super) fn with_programs_of_the_machine(mut pod: Value) -> Value {
    let folders = ["/usr", "/lib", "/lib64"];
    let there = folders.iter().filter(|folder| Path::new(folder).exists());
    for (number, folder) in there.enumerate() {
        let name = format!("machine-{number}");
        let mounts = &mut pod["containers"][0]["volumeMounts"];
        append(
            mounts,
            json!({"name": name, "mountPath": folder, "readOnly": true}),
        );
        append(
            &mut pod["volumes"],
            json!({"name": name, "hostPath": {"path": folder}}),
        );
    }
    pod
}

fn append(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}
