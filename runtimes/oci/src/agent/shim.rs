//! Shims as the agent holds them.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::connection::Connection;
use coracle_runtime::process::{Ended, Process};
use coracle_runtime::{ContainerId, disk};

use crate::binary::Binary;
use crate::protocol::{Event, Launch, OLDEST, Request, Response, VERSION};
use crate::shim::LAUNCH;

/// How long a shim may take to end once it has been told to.
const CLOSE: Duration = Duration::from_secs(10);

/// The shim of a Pod.
pub(super) struct Shim {
    process: Process,
    connection: Connection<Request, Response>,
}

impl Shim {
    /// Starts a shim in a new folder.
    pub(super) async fn spawn(
        binary: &Binary,
        launch: &Launch,
        hear: impl FnMut(Event) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let folder = &launch.folder;
        disk::remove_dir(folder)?;
        disk::private_dir(folder)?;
        disk::write_json(&folder.join(LAUNCH), launch)?;
        let mut command = Command::new(binary.path());
        command.arg(crate::SHIM).arg(folder).env_clear();
        let connect = connect(folder, hear);
        let (process, connection) = Process::spawn_connected(command, folder, connect).await?;
        Ok(Arc::new(Self {
            process,
            connection,
        }))
    }

    /// Takes over the shim of a folder, if it lives.
    pub(super) async fn adopt(
        folder: &Path,
        hear: impl FnMut(Event) + Send + 'static,
    ) -> io::Result<Option<Arc<Self>>> {
        let Some(living) = Process::living(folder)? else {
            return Ok(None);
        };
        let adopted = Process::adopt_connected(folder, living, connect(folder, hear)).await?;
        Ok(adopted.map(|(process, connection)| {
            Arc::new(Self {
                process,
                connection,
            })
        }))
    }

    pub(super) fn pid(&self) -> i32 {
        self.process.pid()
    }

    pub(super) async fn request(&self, request: Request) -> io::Result<Response> {
        self.connection.request(request).await
    }

    pub(super) async fn request_with(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Response> {
        self.connection.request_with(request, descriptors).await
    }

    /// The containers that it keeps.
    pub(super) async fn running(&self) -> Vec<ContainerId> {
        match self.request(Request::Running).await {
            Ok(Response::Running(containers)) => containers,
            // It is gone again: whoever watches it hears of that.
            _ => Vec::new(),
        }
    }

    /// Waits for its end. One that lets go of its agent without ending keeps nothing any more, and
    /// is killed.
    pub(super) async fn ended(&self) -> Ended {
        tokio::select! {
            ended = self.process.wait() => return ended,
            () = self.connection.closed() => {}
        }
        self.end().await
    }

    /// Ends it with all that it keeps.
    pub(super) async fn close(&self) {
        let asked = self.request(Request::Close);
        // It ends without an answer.
        let _ = tokio::time::timeout(CLOSE, asked).await;
        self.end().await;
    }

    async fn end(&self) -> Ended {
        match tokio::time::timeout(CLOSE, self.process.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                self.process.kill();
                self.process.wait().await
            }
        }
    }

    /// What is said of its end, with the end of what it wrote to its standard error.
    pub(super) fn describe(&self, ended: Ended) -> String {
        let (how, errors) = (ended.describe(), self.process.errors());
        format!("the Pod's shim ended ({how}): {errors}")
    }
}

async fn connect(
    folder: &Path,
    hear: impl FnMut(Event) + Send + 'static,
) -> io::Result<Connection<Request, Response>> {
    let hello = Request::Hello {
        version: VERSION,
        oldest: OLDEST,
    };
    let (connection, answer) = Connection::open(folder, hello, hear).await?;
    match answer {
        Response::Hello { .. } => Ok(connection),
        Response::Failed(message) => Err(io::Error::new(io::ErrorKind::Unsupported, message)),
        other => Err(io::Error::other(format!("greeted with {other:?}"))),
    }
}
