//! Pods of containers: how fast they start, what a command in one takes, and what Services cost who
//! calls them. It takes root, busybox, skopeo and kubectl.

use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DeleteParams};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::{Value, json};

use crate::cluster::busybox::cluster_with_busybox;
use crate::cluster::websocket::{messages, proxy};
use crate::cluster::{Cluster, Kubectl, eventually};
use crate::figures::{figures, print};
use crate::{Row, percentile, pods};

/// Pods that are started one after the other, and at once.
const SINGLE: usize = 40;
const BURST: i32 = 60;
/// Commands that are executed.
const COMMANDS: usize = 100;
/// Turns that each way to a Pod takes, after one to get warm.
const ROUNDS: usize = 7;
/// Times that the file is read in a turn, and its size, which is a hole: no disk is measured.
const READS: u32 = 4;
const MEBIBYTES: u32 = 1024;

pub(crate) fn rows() {
    let Some((cluster, kubectl)) = cluster_with_busybox(&[]) else {
        eprintln!("SKIPPED: Pods of containers are not measured");
        Row::new("Pods of containers", "not measured", "").print();
        return;
    };
    starts(&cluster);
    command(&cluster, &kubectl).print();
    throughput(&kubectl).print();
    drop(cluster);
    services();
    runtime();
}

fn spec(script: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "main",
            "image": "busybox:v1",
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", script],
        }],
    })
}

/// Makes a Pod that is labelled with its name, and waits until it runs.
fn start(kubectl: &Kubectl, name: &str, script: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": spec(script),
    });
    kubectl.apply(&pod.to_string());
    kubectl.wait_value(&["pod", name], ".status.phase", "Running");
}

/// Pods one after the other, and many at once.
fn starts(cluster: &Cluster) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = pods::client(cluster).await;
        let spec = spec("exec sleep 100000");
        let mut times = pods::one_by_one(&client, &spec, SINGLE).await;
        Row::new(
            format!("image cached: create of a Pod of one busybox container to Ready, p50 / p99 of {SINGLE}"),
            format!(
                "{:.0} / {:.0} ms",
                percentile(&mut times, 50.0),
                percentile(&mut times, 99.0)
            ),
            "p50 ≤ 150 ms",
        )
        .print();
        let burst = pods::burst(&client, &spec, BURST).await;
        Row::new(
            format!("a Deployment of such Pods scaled 0 → {BURST} Ready"),
            format!("{:.1} Pods/s", f64::from(BURST) / burst.as_secs_f64()),
            "≥ 20/s",
        )
        .print();
        empty(&client).await;
    });
}

/// Takes the Deployment away, which goes after its Pods: what follows is alone on the node.
async fn empty(client: &kube::Client) {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let how = DeleteParams::foreground();
    let going = deployments.delete("burst", &how).await.expect("deleted");
    if let Some(uid) = going.left().and_then(|object| object.metadata.uid) {
        let gone = await_condition(deployments, "burst", conditions::is_deleted(&uid));
        gone.await.expect("a watch");
    }
}

/// A command through the API, over a WebSocket as kubectl's. Its proxy is started once.
fn command(cluster: &Cluster, kubectl: &Kubectl) -> Row {
    start(kubectl, "idle", "exec sleep 100000");
    let (_running, address) = proxy(kubectl, &cluster.folder().join("proxy"));
    let path = "/api/v1/namespaces/default/pods/idle/exec?command=true&stdout=1&stderr=1";
    let mut times: Vec<f64> = (0..COMMANDS)
        .map(|_| {
            let began = Instant::now();
            let messages = messages(&address, path, "v4.channel.k8s.io");
            let took = began.elapsed();
            let succeeded = messages.iter().any(|(_, bytes)| {
                bytes.first() == Some(&3)
                    && String::from_utf8_lossy(bytes).contains(r#""status":"Success""#)
            });
            assert!(succeeded, "{messages:?}");
            took.as_secs_f64() * 1e3
        })
        .collect();
    Row::new(
        format!("exec of `true` through the API, p50 / p99 of {COMMANDS}"),
        format!(
            "{:.1} / {:.1} ms",
            percentile(&mut times, 50.0),
            percentile(&mut times, 99.0)
        ),
        "p50 ≤ 60 ms",
    )
}

/// What one container reads from another through a Service, beside what it reads from it directly.
fn throughput(kubectl: &Kubectl) -> Row {
    let serve = format!(
        "mkdir /www && truncate -s {MEBIBYTES}M /www/file && exec httpd -f -p 8080 -h /www"
    );
    start(kubectl, "server", &serve);
    start(kubectl, "client", "exec sleep 100000");
    kubectl.apply(
        "
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080}]
",
    );
    let pod = kubectl.value(&["pod", "server"], ".status.podIP");
    let service = kubectl.value(&["service", "server"], ".spec.clusterIP");
    let ways = [format!("{pod}:8080"), format!("{service}:80")];
    for way in &ways {
        eventually("an answer", || read(kubectl, way, 1).map(drop));
    }
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        for (way, rates) in ways.iter().zip(&mut rates) {
            let seconds =
                read(kubectl, way, READS).unwrap_or_else(|error| panic!("{way}: {error}"));
            if round > 0 {
                rates.push(f64::from(READS * MEBIBYTES) / seconds);
            }
        }
    }
    let [direct, through] = rates.map(|mut rates| percentile(&mut rates, 50.0));
    Row::new(
        format!("one TCP stream from container to container through a Service, median of {ROUNDS}"),
        format!("{through:.0} MiB/s"),
        "≥ 0.95",
    )
    .beside("to the Pod's address", through, Some(direct))
}

/// Seconds in which the client reads the file so often, by a clock beside it: it does not wait for
/// the call that starts it.
fn read(kubectl: &Kubectl, from: &str, times: u32) -> Result<f64, String> {
    let script = format!(
        "read -r began idle < /proc/uptime
         for turn in $(seq {times}); do wget -q -O /dev/null http://{from}/file || exit 1; done
         read -r ended idle < /proc/uptime
         echo $began $ended"
    );
    let output = kubectl.run(&["exec", "client", "--", "sh", "-c", &script]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let times = text.split_whitespace().filter_map(|word| word.parse().ok());
    match times.collect::<Vec<f64>>()[..] {
        [began, ended] if output.status.success() => Ok(ended - began),
        _ => Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Services in nftables, as a test of their module measures them in namespaces of its own.
fn services() {
    let test = "many_services_are_loaded_in_one_batch_and_changed_by_elements";
    let aims = [
        ("1000 Services of 3 endpoints, loaded", "≤ 100 ms"),
        ("1000 Services of 3 endpoints, one changed", "≤ 30 ms"),
    ];
    // Together with the program its features are those of what has been built.
    let packages = ["--package", "coracle", "--package", "coracle-network"];
    let run = ["--lib", "--", "--nocapture", test];
    print(
        &figures(&[&["test", "--release"], &packages[..], &run].concat()),
        &aims,
    );
}

/// What the runtime's own measurements say, beside crun and runc.
fn runtime() {
    let figures = figures(&["bench", "--workspace", "--bench", "containers"]);
    let named = |name: &str| figures.iter().find(|figure| figure.name == name);
    if let Some(ours) = named("a container, created and started") {
        for (peer, aim) in [("crun", "≤ 1.5"), ("runc", "")] {
            let theirs = named(&format!("the same by {peer}"));
            let theirs = theirs.map(|figure| figure.value);
            ours.row(aim).beside(peer, ours.value, theirs).print();
        }
    }
    let alone = ["exec of true", "private memory of a shim"];
    for figure in alone.iter().filter_map(|name| named(name)) {
        figure.row("").print();
    }
}
