//! The suite that every runtime passes.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_runtime::RuntimeService;
use coracle_runtime::conformance::{Factory, Fixtures, run};

use crate::node::Node;
use crate::programs::{ECHO, EXIT_3, HELLO, SLEEP, SPIN};

struct Wasm {
    node: tokio::sync::Mutex<Node>,
    fixtures: Fixtures,
    scratch: tempfile::TempDir,
}

#[async_trait]
impl Factory for Wasm {
    async fn start(&self) -> Arc<dyn RuntimeService> {
        Arc::new(self.node.lock().await.runtime.clone())
    }

    async fn restart(&self) -> Arc<dyn RuntimeService> {
        let mut node = self.node.lock().await;
        node.restart().await;
        Arc::new(node.runtime.clone())
    }

    fn fixtures(&self) -> Fixtures {
        self.fixtures.clone()
    }

    fn scratch(&self) -> &Path {
        self.scratch.path()
    }
}

pub(crate) async fn the_runtime_conforms() {
    let node = Node::new().await;
    let fixtures = Fixtures {
        runs: node.image_with(SLEEP.as_bytes(), &[("echo", ECHO.as_bytes())]),
        hears: None,
        ignores_stop: node.image(SPIN.as_bytes()),
        prints_hello: node.image(HELLO.as_bytes()),
        exits_3: node.image(EXIT_3.as_bytes()),
        echoes: Some(vec!["echo".into()]),
        invalid: node.image(b"(module)"),
    };
    run(&Wasm {
        node: tokio::sync::Mutex::new(node),
        fixtures,
        scratch: tempfile::tempdir().unwrap(),
    })
    .await;
}
