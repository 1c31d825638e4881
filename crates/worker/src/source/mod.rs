//! Sources: how files of the outside world come in, and by what they are known in the cache.

mod blob;
mod git;
mod http;
pub(crate) mod http_fetch;
mod identifier;
mod image;
mod local;
mod origin;

use std::sync::{Arc, Mutex, PoisonError};

use kiln_oci::Platform;

pub use git::{GitError, GitMetadata, GitSettings, RepositoryError};
pub use http::HttpMetadata;
pub use http_fetch::HttpError;
pub use identifier::{
    BlobId, GitId, HttpId, Identifier, IdentifierError, ImageId, LocalId, OciLayoutId, ResolveMode,
};
pub use image::{ImageError, ResolvedImage};
pub(crate) use origin::can_fetch;
pub use origin::{note_repository, repository_of};

/// What a source turned out to be, for provenance.
#[derive(Clone, Debug)]
pub struct SourcePin {
    pub identifier: Identifier,
    /// Digest of an image's root, of a file, of what a local directory was asked for; a commit.
    pub pin: String,
    pub platform: Platform,
}

/// What a source vertex found out about itself while its key was computed, for when it runs.
#[derive(Default)]
pub(crate) struct Source {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// On the heap: most vertices are no sources.
    pin: Option<Box<SourcePin>>,
    found: Option<Found>,
}

/// What was found.
#[derive(Clone)]
pub(crate) enum Found {
    Image(Arc<ResolvedImage>),
    Git(Arc<git::Resolved>),
    Http(Arc<http::FetchedFile>),
}

impl Source {
    pub fn pin(&self) -> Option<SourcePin> {
        self.lock().pin.as_deref().cloned()
    }

    pub fn found(&self) -> Option<Found> {
        self.lock().found.clone()
    }

    pub fn set(&self, pin: SourcePin, found: Option<Found>) {
        let mut state = self.lock();
        state.pin = Some(Box::new(pin));
        state.found = found;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
