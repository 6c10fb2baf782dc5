//! One request of HTTP/1.1 on a connection of its own.

use std::error::Error;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::dial::Stream;

/// Sends a request, which may ask for an upgrade of the connection, and waits until its answer begins.
///
/// # Errors
/// Those of the connection, and where it carries something else than HTTP.
pub(crate) async fn exchange<B>(
    stream: Box<dyn Stream>,
    request: Request<B>,
) -> hyper::Result<Response<Incoming>>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut builder = http1::Builder::new();
    // Not everybody knows that case makes no difference.
    builder.title_case_headers(true);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    // The task owns the connection and ends with the response's body: the other half is
    // dropped then, or when the other side hangs up.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection ended");
        }
    });
    sender.send_request(request).await
}
