//! Exporters at work: they move what a build made to where it is wanted.

mod ahead;
mod archive;
mod attestations;
mod commit;
mod files;
mod image;
mod layers;
mod local;
mod push;
mod send;
mod supplement;
mod tar;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_oci::Descriptor;
use kiln_remotecache::attach_registry;
use kiln_remotecache::inline::ImageLayer;
use kiln_remotecache::report::Downloads;
use kiln_session::daemon::{Caller, SessionId, SessionManager};
use kiln_store::{Blob, Ref, Store};

pub use kiln_remotecache::report::{Reporter, Step, exporter_vertex};
pub use push::PushTarget;

use crate::attrs::Attrs;
use crate::error::ExportError;
use crate::source::Source;

/// How long the client's session may take to appear.
const SESSION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// What all exporters of a daemon work with.
#[derive(Clone)]
pub struct Exporters {
    /// Where layers and blobs are.
    pub store: Store,
    /// Who receives results.
    pub sessions: SessionManager,
}

/// What one build gives to its exporters.
#[derive(Clone)]
pub struct ExportBuild {
    /// The client's session.
    pub session: SessionId,
    /// Registries, with the client's credentials.
    pub registry: kiln_registry::Client,
    /// Where progress is told.
    pub reporter: Reporter,
    /// Makes the cache that goes into images, if one is wanted.
    pub inline_cache: Option<Arc<dyn InlineCache>>,
    /// Which rules of old are kept: 10, 20 or 30.
    pub compatibility_version: i64,
}

/// From this version on OCI's media types are the default.
const COMPATIBILITY_OCI_DEFAULT: i64 = 30;
/// The version whose exporters don't know Zstandard.
const COMPATIBILITY_NO_ZSTD: i64 = 10;

/// Makes the cache that goes into an image.
#[async_trait]
pub trait InlineCache: Send + Sync {
    /// The records for the image of `platform` (by its id) with these layers; `None` if none of them is in
    /// the cache.
    async fn records(
        &self,
        platform: &str,
        layers: &[ImageLayer],
    ) -> Result<Option<Bytes>, Box<dyn std::error::Error + Send + Sync>>;
}

/// An exporter with its options.
pub struct Exporter {
    id: u32,
    attrs: Attrs,
    kind: Kind,
}

enum Kind {
    Image(Box<image::ImageExporter>),
    Archive(Box<archive::ArchiveExporter>),
    Local(local::LocalExporter),
    Tar(tar::TarExporter),
    CacheOnly,
}

/// What became of a result.
pub struct Exported {
    /// What the client is told.
    pub response: BTreeMap<String, String>,
    /// The image, for the history of builds.
    pub descriptor: Option<Descriptor>,
    /// What is left to do once all exporters are done: sending the image to registries.
    finalize: Option<push::PendingPush>,
    /// Keeps the image's blobs.
    _pins: Vec<Blob>,
}

impl Exported {
    fn told(response: BTreeMap<String, String>) -> Self {
        Self { response, descriptor: None, finalize: None, _pins: Vec::new() }
    }

    /// Whether [`Exported::finalize`] has anything to do.
    pub fn needs_finalize(&self) -> bool {
        self.finalize.is_some()
    }

    /// Does what may be done beside other exporters' last work.
    pub async fn finalize(&self, exporters: &Exporters, build: &ExportBuild) -> Result<(), ExportError> {
        match &self.finalize {
            Some(pending) => pending.run(exporters, build).await,
            None => Ok(()),
        }
    }
}

impl Exporters {
    /// The exporter of that name with these options; `id` is its number among the build's exporters.
    pub fn resolve(&self, name: &str, id: u32, attrs: Attrs) -> Result<Exporter, ExportError> {
        let options = attrs.clone();
        let kind = match name {
            "image" => Kind::Image(Box::new(image::ImageExporter::new(options)?)),
            "oci" => Kind::Archive(Box::new(archive::ArchiveExporter::new(options, false)?)),
            "docker" => Kind::Archive(Box::new(archive::ArchiveExporter::new(options, true)?)),
            "local" => Kind::Local(local::LocalExporter::new(options)?),
            "tar" => Kind::Tar(tar::TarExporter::new(options)?),
            "cacheonly" => Kind::CacheOnly,
            other => return Err(ExportError::UnknownExporter(other.to_owned())),
        };
        Ok(Exporter { id, attrs, kind })
    }

    /// Fetches and unpacks what is still missing of a result, also where the build that took note of it is long over.
    async fn unpack(&self, reference: &Ref, build: &ExportBuild) -> Result<(), kiln_store::Error> {
        for layer in reference.layers() {
            attach_registry(&self.store, &layer, &build.registry);
        }
        self.store.ensure_unpacked(reference, &Downloads(build.reporter.clone())).await
    }

    async fn caller(&self, build: &ExportBuild) -> Result<Caller, ExportError> {
        self.sessions
            .get(&build.session, SESSION_TIMEOUT)
            .await
            .map_err(|error| ExportError::failed("failed to reach the client", error))
    }
}

impl Exporter {
    /// What it is called in displays.
    pub fn name(&self) -> String {
        match &self.kind {
            Kind::Image(_) => "exporting to image".to_owned(),
            Kind::Archive(archive) => format!("exporting to {} image format", archive.variant()),
            Kind::Local(_) => "exporting to client directory".to_owned(),
            Kind::Tar(_) => "exporting to client tarball".to_owned(),
            Kind::CacheOnly => "exporting nothing".to_owned(),
        }
    }

    /// Its name in the API.
    pub fn kind(&self) -> &str {
        match &self.kind {
            Kind::Image(_) => "image",
            Kind::Archive(archive) => archive.variant(),
            Kind::Local(_) => "local",
            Kind::Tar(_) => "tar",
            Kind::CacheOnly => "cacheonly",
        }
    }

    /// Its number among the build's exporters.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its options as the client gave them.
    pub fn attrs(&self) -> &Attrs {
        &self.attrs
    }

    /// Exports a result.
    pub async fn export(
        &self,
        exporters: &Exporters,
        source: &Source<Ref>,
        build: &ExportBuild,
    ) -> Result<Exported, ExportError> {
        match &self.kind {
            Kind::Image(image) => image.export(exporters, source, build).await,
            Kind::Archive(archive) => archive.export(self.id, exporters, source, build).await,
            Kind::Local(local) => local.export(self.id, exporters, source, build).await,
            Kind::Tar(tar) => tar.export(self.id, exporters, source, build).await,
            Kind::CacheOnly => Ok(Exported::told(BTreeMap::new())),
        }
    }
}

fn store_failed(what: &str) -> impl Fn(kiln_store::Error) -> ExportError + '_ {
    move |error| ExportError::failed(what, error)
}
