//! Between the pipes or the terminal of a process and the async streams of whoever started it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::stdio::{InputStream, OutputStream};
use crate::{Stdio, WinSize};

/// One read of a process's output.
const CHUNK_BYTES: usize = 32 << 10;

/// The process's ends of its streams.
#[derive(Default)]
pub struct ChildEnds {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// Copies between a process and its streams until the process's ends are closed.
pub struct Pump {
    inputs: Vec<JoinHandle<()>>,
    outputs: Vec<JoinHandle<Option<OutputStream>>>,
    /// Streams that wait for the terminal to be there.
    for_terminal: Option<(Option<InputStream>, Option<OutputStream>)>,
    stderr: Option<OutputStream>,
    terminal: Option<Arc<AsyncFd<OwnedFd>>>,
}

impl Pump {
    /// Makes pipes, unless the process is to have a terminal.
    pub fn connect(stdio: &mut Stdio, tty: bool) -> io::Result<(Self, ChildEnds)> {
        let mut pump = Self {
            inputs: Vec::new(),
            outputs: Vec::new(),
            for_terminal: None,
            stderr: None,
            terminal: None,
        };
        let mut ends = ChildEnds::default();
        if tty {
            pump.for_terminal = Some((stdio.stdin.take(), stdio.stdout.take()));
            pump.stderr = stdio.stderr.take();
            return Ok((pump, ends));
        }
        if let Some(input) = stdio.stdin.take() {
            let (theirs, ours) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            let ours = pipe::Sender::from_owned_fd_unchecked(ours)?;
            pump.inputs.push(tokio::spawn(feed(input, ours)));
            ends.stdin = Some(theirs);
        }
        let mut output = |stream: Option<OutputStream>| -> io::Result<Option<OwnedFd>> {
            let Some(stream) = stream else { return Ok(None) };
            let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            let ours = pipe::Receiver::from_owned_fd_unchecked(ours)?;
            pump.outputs.push(tokio::spawn(drain(ours, stream)));
            Ok(Some(theirs))
        };
        ends.stdout = output(stdio.stdout.take())?;
        ends.stderr = output(stdio.stderr.take())?;
        Ok((pump, ends))
    }

    /// Takes the other side of the process's terminal.
    pub fn connect_terminal(&mut self, terminal: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&terminal, true)?;
        let terminal = Arc::new(crate::sys::async_fd(terminal)?);
        self.terminal = Some(terminal.clone());
        if let Some((input, output)) = self.for_terminal.take() {
            if let Some(input) = input {
                self.inputs.push(tokio::spawn(feed_terminal(input, terminal.clone())));
            }
            // Read in any case: a process blocks on a terminal that nobody reads.
            let output = output.unwrap_or_else(|| Box::new(tokio::io::sink()));
            self.outputs.push(tokio::spawn(drain_terminal(terminal, output)));
        }
        Ok(())
    }

    pub fn resize(&self, size: WinSize) {
        let Some(terminal) = &self.terminal else { return };
        let size =
            rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        if let Err(error) = rustix::termios::tcsetwinsize(terminal.as_fd(), size) {
            tracing::debug!(%error, "cannot resize a terminal");
        }
    }

    /// Waits for all output, adds `last_words` to stderr (stdout where there is a terminal) and lets the streams go. No
    /// process that could write is left.
    pub async fn finish(mut self, last_words: Option<&str>) {
        for input in self.inputs.drain(..) {
            input.abort();
        }
        let mut last = self.stderr.take();
        if let Some((_, output)) = self.for_terminal.take() {
            last = last.or(output);
        }
        for output in self.outputs.drain(..) {
            // The second one is stderr.
            last = output.await.unwrap_or_default().or(last);
        }
        if let (Some(words), Some(mut stream)) = (last_words, last)
            && let Err(error) = stream.write_all(words.as_bytes()).await
        {
            tracing::debug!(%error, "nobody reads a step's output");
        }
    }
}

async fn feed(mut input: InputStream, mut pipe: pipe::Sender) {
    // The process may close its end, and the stream may break: both end the input.
    if let Err(error) = tokio::io::copy(&mut input, &mut pipe).await {
        tracing::trace!(%error, "input of a process ended early");
    }
}

async fn drain(mut pipe: pipe::Receiver, mut stream: OutputStream) -> Option<OutputStream> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut broken = false;
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        broken = broken || forward(&mut stream, &chunk[..count]).await.is_err();
    }
    (!broken).then_some(stream)
}

/// A reader that has gone away does not stop the process.
async fn forward(stream: &mut OutputStream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn feed_terminal(mut input: InputStream, terminal: Arc<AsyncFd<OwnedFd>>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = input.read(&mut chunk).await {
        let mut rest = &chunk[..count];
        while !rest.is_empty() {
            let write =
                terminal.async_io(tokio::io::Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, rest)?));
            match write.await {
                Ok(written) => rest = &rest[written..],
                Err(_) => return,
            }
        }
    }
}

async fn drain_terminal(terminal: Arc<AsyncFd<OwnedFd>>, mut stream: OutputStream) -> Option<OutputStream> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut broken = false;
    loop {
        let read =
            terminal.async_io(tokio::io::Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut chunk)?));
        match read.await {
            // EIO: the last process has closed the terminal.
            Ok(0) | Err(_) => return (!broken).then_some(stream),
            Ok(count) => broken = broken || forward(&mut stream, &chunk[..count]).await.is_err(),
        }
    }
}
