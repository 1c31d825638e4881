//! Connections of a unix socket carried over calls, both ways.

use tokio::io::{AsyncRead, AsyncWrite};

/// Copies between two byte streams until both directions have ended or one has failed.
pub(crate) async fn join<A, B>(mut a: A, mut b: B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    if let Err(error) = tokio::io::copy_bidirectional(&mut a, &mut b).await {
        tracing::debug!(%error, "a forwarded connection broke");
    }
}
