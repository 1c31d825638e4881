//! The streams of a process, and what can be sent to it while it runs.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub type InputStream = Box<dyn AsyncRead + Send + Unpin>;
pub type OutputStream = Box<dyn AsyncWrite + Send + Unpin>;

/// Streams of a process. `None` is `/dev/null`.
#[derive(Default)]
pub struct Stdio {
    pub stdin: Option<InputStream>,
    pub stdout: Option<OutputStream>,
    pub stderr: Option<OutputStream>,
    /// Signals and terminal sizes; its end is not the process's end.
    pub control: Option<mpsc::Receiver<Control>>,
}

/// Something to do to a running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// A signal number of this machine.
    Signal(i32),
    Resize(WinSize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WinSize {
    pub rows: u16,
    pub cols: u16,
}
