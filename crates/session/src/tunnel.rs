//! A stream of byte messages in each direction as one byte stream.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use tonic::Status;

/// Messages that wait to be sent, at most.
pub(crate) const QUEUE_MESSAGES: usize = 16;

/// Bytes of one message at most: what HTTP/2 flushes at once comes in pieces of this size or less.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// A message that has nothing but bytes.
pub(crate) trait Chunk: Send + 'static {
    fn from_bytes(data: Bytes) -> Self;
    fn into_bytes(self) -> Bytes;
}

macro_rules! chunk {
    ($($message:path),+) => {$(
        impl Chunk for $message {
            fn from_bytes(data: Bytes) -> Self {
                Self { data }
            }

            fn into_bytes(self) -> Bytes {
                self.data
            }
        }
    )+};
}

chunk!(
    kiln_proto::control::BytesMessage,
    kiln_proto::filesync::BytesMessage,
    kiln_proto::moby::sshforward::v1::BytesMessage,
    kiln_proto::moby::upload::v1::BytesMessage
);

/// One end of the byte stream. The messages to the peer end when it is shut down or dropped.
pub(crate) struct Tunnel<M> {
    incoming: Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>,
    /// What was received and not read yet.
    rest: Bytes,
    outgoing: PollSender<M>,
}

impl<M: Chunk> Tunnel<M> {
    pub(crate) fn new(
        incoming: impl Stream<Item = Result<M, Status>> + Send + 'static,
        outgoing: mpsc::Sender<M>,
    ) -> Self {
        Self { incoming: incoming.boxed(), rest: Bytes::new(), outgoing: PollSender::new(outgoing) }
    }

    /// Over a call whose answer has not come yet: a peer may answer only after it was sent something.
    pub(crate) fn opening<S>(
        answer: impl Future<Output = Result<S, Status>> + Send + 'static,
        outgoing: mpsc::Sender<M>,
    ) -> Self
    where
        S: Stream<Item = Result<M, Status>> + Send + 'static,
    {
        Self::new(futures::stream::once(answer).try_flatten(), outgoing)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.outgoing.poll_reserve(cx)).map_err(|_| closed())?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut data = Vec::with_capacity(total.min(MESSAGE_BYTES_MAX));
        for slice in slices {
            let length = slice.len().min(MESSAGE_BYTES_MAX - data.len());
            data.extend_from_slice(&slice[..length]);
        }
        let length = data.len();
        self.outgoing.send_item(M::from_bytes(data.into())).map_err(|_| closed())?;
        Poll::Ready(Ok(length))
    }
}

impl<M: Chunk> AsyncRead for Tunnel<M> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.incoming.as_mut().poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(message)) => self.rest = message.into_bytes(),
                Some(Err(status)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, status)));
                }
            }
        }
        let length = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<M: Chunk> AsyncWrite for Tunnel<M> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[io::IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }
}
