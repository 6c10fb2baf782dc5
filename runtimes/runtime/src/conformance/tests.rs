//! The fake, which conforms.

use super::*;
use crate::fake::{Behaviour, FakeRuntime};

struct Fake {
    runtime: FakeRuntime,
    scratch: tempfile::TempDir,
}

fn image(reference: &str) -> Image {
    Image {
        reference: reference.to_owned(),
        digest: format!("sha256:{reference}"),
    }
}

#[async_trait]
impl Factory for Fake {
    async fn start(&self) -> Arc<dyn RuntimeService> {
        Arc::new(self.runtime.clone())
    }

    async fn restart(&self) -> Arc<dyn RuntimeService> {
        Arc::new(self.runtime.clone())
    }

    fn fixtures(&self) -> Fixtures {
        Fixtures {
            runs: image("runs"),
            hears: None,
            ignores_stop: image("ignores"),
            prints_hello: image("hello"),
            exits_3: image("exits"),
            echoes: Some(vec!["echo".to_owned()]),
            invalid: image("invalid"),
        }
    }

    fn scratch(&self) -> &Path {
        self.scratch.path()
    }
}

#[tokio::test]
async fn the_fake_conforms() {
    let runtime = FakeRuntime::new("fake");
    let hello = Behaviour {
        output: vec!["hello".to_owned()],
        exits: Some(0),
        ..Behaviour::default()
    };
    let exits = Behaviour {
        exits: Some(3),
        ..Behaviour::default()
    };
    let ignores = Behaviour {
        ignores_stop: true,
        ..Behaviour::default()
    };
    runtime.behave("hello", hello);
    runtime.behave("exits", exits);
    runtime.behave("ignores", ignores);
    runtime.refuse_image("sha256:invalid", "not for this runtime");
    let scratch = tempfile::tempdir().expect("temporary folder");
    run(&Fake { runtime, scratch }).await;
}
