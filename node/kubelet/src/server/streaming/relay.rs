//! Bytes between a client and a Pod, as they are.

use std::pin::pin;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::socket::GOODBYE;

/// Carries bytes both ways until one side ends. What the other has still to say it says within the
/// grace: nothing is held by who has gone.
pub(super) async fn carry(client: impl AsyncRead + AsyncWrite, pod: impl AsyncRead + AsyncWrite) {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_pod, to_pod) = tokio::io::split(pod);
    let mut up = pin!(copy(from_client, to_pod));
    let mut down = pin!(copy(from_pod, to_client));
    let _ = tokio::select! {
        () = &mut up => timeout(GOODBYE, down).await,
        () = &mut down => timeout(GOODBYE, up).await,
    };
}

/// Carries bytes one way until that ends.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    // How it ended is in what was carried.
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}
