//! Standard input and output of a process as one connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tonic::transport::server::Connected;

/// How much may wait in each direction.
const PIPE_BYTES: usize = 256 * 1024;

/// Our end: reads what the process writes, and the other way around.
pub(super) struct Stdio {
    read: DuplexStream,
    write: DuplexStream,
}

/// The process' end.
pub(super) struct ProcessEnds {
    pub(super) stdin: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) stdout: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Stdio {
    pub(super) fn pair() -> (Stdio, ProcessEnds) {
        let (read, stdout) = duplex(PIPE_BYTES);
        let (write, stdin) = duplex(PIPE_BYTES);
        (Stdio { read, write }, ProcessEnds { stdin: Box::new(stdin), stdout: Box::new(stdout) })
    }
}

impl AsyncRead for Stdio {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.write).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.write).poll_shutdown(cx)
    }
}

impl Connected for Stdio {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}
