//! How the server behaves as a server: fairness, audit, times, its end, and what it tells of
//! itself.

mod audit;
mod flow;
mod health;
mod impersonation;
mod metrics;
mod shutdown;
mod times;

use coracle_apiserver::UserInfo;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::Api;

const FLOW_SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

/// A server whose chores run, and whose configuration of flow control is in use.
struct Running {
    api: Api,
    cancel: CancellationToken,
    chores: JoinHandle<()>,
}

impl Running {
    async fn start(api: Api) -> Self {
        let cancel = CancellationToken::new();
        let chores = tokio::spawn({
            let (server, cancel) = (api.server.clone(), cancel.clone());
            async move { server.run(cancel).await }
        });
        until_dangling(&api, "exempt", "False").await;
        Self {
            api,
            cancel,
            chores,
        }
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.chores.await.unwrap();
    }
}

/// Waits until the status of a flow schema says whether its level is missing. It says so after
/// the configuration has been taken into use.
async fn until_dangling(api: &Api, name: &str, status: &str) {
    let path = format!("{FLOW_SCHEMAS}?watch=1&fieldSelector=metadata.name%3D{name}");
    let mut watch = api.watch(&path).await;
    loop {
        let event = watch.event().await.expect("an event");
        if condition(&event["object"])["status"] == status {
            return;
        }
    }
}

fn condition(schema: &Value) -> &Value {
    &schema["status"]["conditions"][0]
}

/// A component that may do everything and is of no group but `system:authenticated`.
fn tenant(api: &Api) -> Api {
    api.user(Some(UserInfo::new("system:kube-proxy", &[])))
}

/// A node.
fn node(api: &Api) -> Api {
    api.user(Some(UserInfo::new("system:node:n1", &["system:nodes"])))
}
