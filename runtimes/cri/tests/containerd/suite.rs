//! The suite that every runtime passes.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_runtime::RuntimeService;
use coracle_runtime::conformance::{self, Factory, Fixtures};
use serde_json::json;

use crate::node::Node;

struct Containers {
    node: Node,
    fixtures: Fixtures,
}

#[async_trait]
impl Factory for Containers {
    async fn start(&self) -> Arc<dyn RuntimeService> {
        Arc::new(self.node.runtime.clone())
    }

    async fn restart(&self) -> Arc<dyn RuntimeService> {
        Arc::new(self.node.restart().await)
    }

    fn fixtures(&self) -> Fixtures {
        self.fixtures.clone()
    }

    fn scratch(&self) -> &Path {
        self.node.path()
    }
}

pub(crate) async fn the_runtime_conforms() {
    let node = Node::new().await;
    let runs = |name: &str, script: &str| node.registry.script(name, script);
    let fixtures = Fixtures {
        runs: runs(
            "runs",
            "trap 'exit 0' TERM; echo ready; while true; do sleep 0.1; done",
        ),
        hears: Some("ready"),
        ignores_stop: runs("ignores", "trap '' TERM; while true; do sleep 1; done"),
        prints_hello: runs("hello", "echo hello"),
        exits_3: runs("exits", "exit 3"),
        echoes: Some(vec!["cat".into()]),
        invalid: node.registry.image("invalid", b"no archive", json!({})),
    };
    let containers = Containers { node, fixtures };
    conformance::run(&containers).await;
    containers.node.end().await;
}
