//! Further processes in a container, and what becomes of them when nobody listens any more.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{DEADLINE, Suite};
use crate::streaming::{ExecConfig, Output, Wanted};

impl Suite {
    pub(super) async fn sessions_end_their_processes_or_not(&self) {
        let Some(command) = &self.fixtures.echoes else {
            return;
        };
        let (sandbox, _) = self.sandbox().await;
        let id = self.start(&sandbox, &self.fixtures.runs).await;
        for kill_on_drop in [true, false] {
            let config = ExecConfig {
                command: command.clone(),
                terminal: false,
                wanted: Wanted {
                    stdin: true,
                    stdout: true,
                    stderr: false,
                },
                kill_on_drop,
            };
            let session = self.runtime.exec(&id, config).await.expect("exec");
            let mut stdin = session.stdin.expect("its input");
            let mut stdout = session.stdout.expect("its output");
            // It runs once it answers.
            stdin.write_all(b"<").await.expect("it reads");
            until(&mut stdout, "<").await.expect("it answers");
            drop(session.exit);
            if kill_on_drop {
                let ended = until(&mut stdout, ">").await;
                assert!(ended.is_none(), "it is killed though its input is open");
            } else {
                stdin.write_all(b">").await.expect("it reads on");
                until(&mut stdout, ">").await.expect("it goes on");
            }
        }
        self.remove(&sandbox).await;
    }
}

/// Reads until a text has come; none if the output ends before.
async fn until(output: &mut Output, text: &str) -> Option<()> {
    let mut read = Vec::new();
    let come = async {
        while !String::from_utf8_lossy(&read).contains(text) {
            match output.read_buf(&mut read).await {
                Ok(1..) => {}
                _ => return None,
            }
        }
        Some(())
    };
    let come = tokio::time::timeout(DEADLINE, come).await;
    come.expect("it says something or ends")
}
