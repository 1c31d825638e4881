//! Cache exports of a build: beside the images, each a step of its own.

use std::collections::BTreeMap;

use kiln_export::Attrs;
use kiln_export::image::CompressionOptions;
use kiln_frontend::Error;
use kiln_proto::control::CacheOptionsEntry;
use kiln_remotecache::options::{ExportPlace, ExportTarget};
use kiln_remotecache::report::Reporter;
use kiln_remotecache::{CacheError, Collector, SendContext, cache_vertex_name, send};
use kiln_session::daemon::APPEAR_TIMEOUT;
use kiln_solver::{Digest, Event, Warning};
use kiln_store::BlobOptions;
use kiln_worker::OWN_CACHE;

use super::Run;
use crate::step;

/// Of the client's answer only these are the caches'.
const RESPONSE_PREFIX: &str = "cache.";

/// A cache export as it is asked for.
pub struct CacheTarget {
    target: ExportTarget,
    blobs: BlobOptions,
}

impl CacheTarget {
    /// Reads what the client asks for.
    ///
    /// # Errors
    /// What is not known, not supported or makes no sense.
    pub fn read(asked: &CacheOptionsEntry) -> Result<CacheTarget, Error> {
        let attrs: Attrs = asked.attrs.clone();
        let target = ExportTarget::parse(&asked.r#type, &attrs).map_err(|error| match error {
            CacheError::Unsupported { .. } => {
                Error::new(tonic::Code::Unimplemented, CacheError::to_string(&error))
            }
            CacheError::Unknown { kind, .. } => Error::unknown(format!("unknown cache exporter: {kind:?}")),
            error => {
                let what = format!("failed to configure {} cache exporter", asked.r#type);
                Error::of(&error).context(what)
            }
        })?;
        let blobs = match target.place {
            ExportPlace::Inline => BlobOptions::default(),
            _ => CompressionOptions::take(&mut attrs.clone())
                .map_err(|error| {
                    Error::of(&error).context(format!("failed to configure {} cache exporter", asked.r#type))
                })?
                .blob_options(),
        };
        Ok(CacheTarget { target, blobs })
    }

    /// Whether it goes into the image rather than to a place of its own.
    pub fn is_inline(&self) -> bool {
        self.target.place == ExportPlace::Inline
    }

    /// Gathers the build's cache and writes it, as step number `id`. What fails is only a warning if the client wants it so.
    pub(super) async fn export(&self, id: usize, run: &Run<'_>) -> Result<BTreeMap<String, String>, Error> {
        let vertex = Digest::of(format!("{}-cache-{id}", run.request.session).as_bytes());
        let name = cache_vertex_name(&self.target.place);
        let done = step::run_as(run.job, vertex.clone(), name, self.write(run, vertex.clone())).await;
        match done {
            Ok(mut response) => {
                response.retain(|key, _| key.starts_with(RESPONSE_PREFIX));
                Ok(response)
            }
            Err(error) if self.target.ignore_error => {
                let short = format!("{name} failed, which was to be ignored: {}", error.message());
                let warning = Warning {
                    level: 1,
                    short: short.into(),
                    detail: Vec::new(),
                    url: String::new(),
                    location: None,
                };
                run.job.event(Event::Warning { vertex, warning });
                Ok(BTreeMap::new())
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&self, run: &Run<'_>, vertex: Digest) -> Result<BTreeMap<String, String>, Error> {
        let reporter = Reporter::new(run.sink.clone(), vertex);
        let caller = match self.target.place {
            ExportPlace::Local { .. } => {
                let caller = run.daemon.sessions.get(&run.session(), APPEAR_TIMEOUT).await;
                Some(caller.map_err(|error| Error::of(&error))?)
            }
            _ => None,
        };
        let registry = run.registry();
        let keys = run.own_keys();
        let preparing = reporter.step("preparing build cache for export");
        let collector = Collector {
            store: &run.daemon.store,
            own_cache: OWN_CACHE,
            own_keys: Some(&*keys),
            imported: &run.imported,
            registry: Some(&registry),
            blobs: self.blobs,
            mode: self.target.mode,
            describe_only: false,
        };
        let keys: Vec<_> = run.results.all_refs().into_iter().map(|result| result.keys()).collect();
        let collected = collector.collect(&keys).await.map_err(|error| Error::of(&error))?;
        drop(preparing);
        let _sending = reporter.step("sending cache export");
        let context = SendContext { registry, caller, reporter: reporter.clone() };
        send(&self.target, &collected, &context).await.map_err(|error| Error::of(&error))
    }
}

/// Runs all exports at the same time.
///
/// # Errors
/// The first one's whose failure is not to be ignored.
pub(super) async fn export(
    targets: &[CacheTarget],
    run: &Run<'_>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut each: Vec<futures::future::BoxFuture<'_, _>> = Vec::new();
    for (id, target) in targets.iter().filter(|target| !target.is_inline()).enumerate() {
        each.push(Box::pin(target.export(id, run)));
    }
    let answers = futures::future::try_join_all(each).await?;
    Ok(answers.into_iter().flatten().collect())
}

/// Whether any of them is to go into the images.
pub(super) fn wants_inline(targets: &[CacheTarget]) -> bool {
    targets.iter().any(CacheTarget::is_inline)
}
