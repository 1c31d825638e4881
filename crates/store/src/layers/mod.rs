//! Layers: making, fetching and archiving them.

mod blob;
mod fetch;
mod handle;
mod lazy;
mod live;
mod mutable;
mod provider;
mod sink;
mod unpack;

pub use blob::{BlobOptions, LayerBlob};
pub use handle::{LayerHandle, LayerState};
pub use lazy::LazyLayer;
pub use mutable::{CommitInfo, MutableLayer};
pub use provider::{BoxError, FetchEvent, FetchObserver, NoObserver, Provider};
pub use sink::BlobSink;

pub(crate) use handle::{LayerInner, STATE_LAZY, STATE_READY, STATE_RETAINED};
pub(crate) use live::Live;

/// What kind of record a layer is, for people and for pruning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// The result of a step, or an image's layer.
    #[default]
    Regular,
    /// Of no interest to people.
    Internal,
    /// A frontend's image.
    Frontend,
    /// A local build context.
    SourceLocal,
    /// A git repository.
    SourceGitCheckout,
    /// A cache mount.
    ExecCacheMount,
}

impl RecordType {
    /// Its name in BuildKit's API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::Internal => "internal",
            Self::Frontend => "frontend",
            Self::SourceLocal => "source.local",
            Self::SourceGitCheckout => "source.git.checkout",
            Self::ExecCacheMount => "exec.cachemount",
        }
    }

    pub(crate) fn parse(text: &str) -> Self {
        let all = [
            Self::Internal,
            Self::Frontend,
            Self::SourceLocal,
            Self::SourceGitCheckout,
            Self::ExecCacheMount,
        ];
        all.into_iter().find(|kind| kind.as_str() == text).unwrap_or_default()
    }
}

/// What people see of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerMeta {
    /// What made it.
    pub description: String,
    /// What kind of record it is.
    pub record_type: RecordType,
    /// When it was made, milliseconds since 1970; `None`: now.
    pub created_ms: Option<i64>,
}

impl LayerMeta {
    /// A regular layer.
    pub fn regular(description: impl Into<String>) -> Self {
        Self { description: description.into(), ..Self::default() }
    }
}
