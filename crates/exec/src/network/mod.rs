//! Networks of steps: what [`crate::NetMode`] means on this machine.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use crate::{NetMode, Result};

/// The networks that steps can ask for.
#[derive(Clone, Debug, Default)]
pub struct Providers {
    /// What [`crate::NetMode::Sandbox`] means.
    pub sandbox: Mode,
}

/// `worker.oci.networkMode` of `buildkitd.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The host's network (BuildKit's own fallback where no CNI is set up).
    #[default]
    Auto,
    Host,
    /// Loopback only.
    None,
    /// A namespace a step, joined to a bridge of the daemon's, with NAT.
    Bridge,
}

/// Gives steps their network namespaces.
pub trait Provider: Send + Sync {
    /// A namespace for one step; it goes back when the value is dropped.
    fn namespace<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<Namespace>> + Send + 'a>>;
}

/// The network of one step.
pub enum Namespace {
    /// The daemon's own.
    Host,
    /// A new one with nothing but loopback.
    Empty,
    /// One that is ready.
    Ready(Box<dyn ReadyNamespace>),
}

/// A network namespace made by a provider; dropping it gives it back.
pub trait ReadyNamespace: Send + Sync {
    fn fd(&self) -> BorrowedFd<'_>;
    fn path(&self) -> &Path;
}

impl Namespace {
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Host)
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Ready(ready) => Some(ready.fd()),
            _ => None,
        }
    }

    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Ready(ready) => Some(ready.path()),
            _ => None,
        }
    }
}

/// The daemon's own network.
struct Host;

impl Provider for Host {
    fn namespace<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<Namespace>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(Namespace::Host)))
    }
}

/// Loopback only.
struct Empty;

impl Provider for Empty {
    fn namespace<'a>(&'a self) -> Pin<Box<dyn Future<Output = Result<Namespace>> + Send + 'a>> {
        Box::pin(std::future::ready(Ok(Namespace::Empty)))
    }
}

/// The providers of an executor.
pub struct Networks {
    sandbox: Arc<dyn Provider>,
}

impl Networks {
    pub fn open(config: &Providers) -> Result<Self> {
        let sandbox: Arc<dyn Provider> = match config.sandbox {
            Mode::Auto | Mode::Host => Arc::new(Host),
            Mode::None => Arc::new(Empty),
            Mode::Bridge => return Err(crate::Error::NoBridge),
        };
        Ok(Self { sandbox })
    }

    pub async fn namespace(&self, mode: NetMode) -> Result<Namespace> {
        match mode {
            NetMode::Sandbox => self.sandbox.namespace().await,
            NetMode::Host => Host.namespace().await,
            NetMode::None => Empty.namespace().await,
        }
    }
}

/// A namespace behind a path, such as one made by another program.
pub struct NamespaceFile {
    fd: OwnedFd,
    path: PathBuf,
}

impl NamespaceFile {
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self { fd: std::fs::File::open(path)?.into(), path: path.to_owned() })
    }
}

impl ReadyNamespace for NamespaceFile {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
