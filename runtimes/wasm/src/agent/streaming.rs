//! Attaching to guests.

use std::os::fd::OwnedFd;

use coracle_runtime::streaming::{Pipes, Session, Wanted};
use coracle_runtime::{Error, Result};

use super::{Entry, Inner};
use crate::protocol::{ATTACHES, Request, Response};

impl Inner {
    pub(super) async fn attach(&self, entry: &Entry, wanted: Wanted) -> Result<Session> {
        let id = &entry.record.id;
        let process = entry.process().filter(|_| entry.is_running());
        let process =
            process.ok_or_else(|| Error::State(format!("container {} does not run", id.0)))?;
        if process.client().version() < ATTACHES {
            return Err(Error::State(
                "the guest was started by an earlier release, which lets nobody attach: it takes \
                 a restart"
                    .into(),
            ));
        }
        let wanted = Wanted {
            stdin: wanted.stdin && entry.record.config.stdio.stdin,
            ..wanted
        };
        let (streams, ends) = Pipes::new(wanted)
            .map_err(|error| Error::io("making the streams of a guest", error))?;
        let ends: Vec<OwnedFd> = ends.into_iter().flatten().collect();
        if !ends.is_empty() {
            let container = id.clone();
            let request = Request::Attach { container, wanted };
            match process.client().request_with(request, ends).await {
                Ok(Response::Done) => {}
                Ok(Response::Failed(cause)) => return Err(Error::State(cause)),
                Ok(other) => return Err(Error::State(format!("the process answered {other:?}"))),
                Err(error) => return Err(Error::io("asking the guest's process", error)),
            }
        }
        Ok(streams.session(None, Box::pin(entry.exit_code())))
    }
}
