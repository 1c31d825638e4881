//! Where a lazy layer's bytes come from, and who watches them come.

use std::fmt::Debug;

use kiln_oci::Descriptor;
use tokio::io::AsyncRead;

/// Any error of a provider.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Gives the bytes of blobs that are not in the store. They are checked here; a provider need not.
#[async_trait::async_trait]
pub trait Provider: Send + Sync + Debug {
    /// Opens a blob, beginning at byte `offset`.
    async fn open(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Box<dyn AsyncRead + Send + Unpin>, BoxError>;

    /// Whether it has a blob, as far as that can be told without opening it.
    async fn has(&self, _descriptor: &Descriptor) -> bool {
        true
    }

    /// Whether it will never give anything again, because the client it belongs to has gone.
    fn is_gone(&self) -> bool {
        false
    }
}

/// What happens while layers are fetched and unpacked.
#[derive(Clone, Copy, Debug)]
pub enum FetchEvent<'a> {
    /// So many bytes have come, of `descriptor.size`. The first has 0.
    Progress(u64),
    /// The connection broke and is made again, for this reason.
    Retry(&'a str),
    /// All bytes are here and checked.
    Fetched,
    /// Unpacking begins (while bytes still come).
    Unpacking,
    /// The layer is unpacked.
    Unpacked,
}

/// Watches layers being fetched. Called often, from any thread: be quick.
pub trait FetchObserver: Send + Sync {
    /// Something happened to a blob.
    fn event(&self, descriptor: &Descriptor, event: FetchEvent<'_>);
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl FetchObserver for NoObserver {
    fn event(&self, _descriptor: &Descriptor, _event: FetchEvent<'_>) {}
}
