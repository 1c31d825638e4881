//! Caches that a build looks into besides the daemon's own: each is read once, as a step of its own, while the build goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kiln_frontend::{CacheImport, Error};
use kiln_remotecache::options::ImportPlace;
use kiln_remotecache::report::Reporter;
use kiln_remotecache::{CacheError, ImportContext, ImportedCache, import};
use kiln_session::daemon::{APPEAR_TIMEOUT, SessionCredentials, SessionGroup, SessionId};
use kiln_solver::{BuildOptions, CacheSource, Job, ProgressSink};
use kiln_worker::{VertexOp, Worker};
use tokio_util::task::AbortOnDropHandle;

use crate::step;

/// The caches of one build, by their names.
pub struct Imports {
    job: Job<VertexOp>,
    worker: Worker,
    sessions: SessionGroup,
    sink: Arc<dyn ProgressSink>,
    known: Mutex<BTreeMap<String, Import>>,
}

struct Import {
    source: CacheSource<VertexOp>,
    cache: Arc<OnceLock<ImportedCache>>,
}

impl Imports {
    pub fn new(
        job: Job<VertexOp>,
        worker: Worker,
        sessions: SessionGroup,
        sink: Arc<dyn ProgressSink>,
    ) -> Imports {
        Imports { job, worker, sessions, sink, known: Mutex::default() }
    }

    /// The caches for the solver. Reading those that were not asked for yet begins now; one that cannot be read is shown as a
    /// failed step, and the build goes on without it.
    ///
    /// # Errors
    /// A kind of cache that is not supported.
    pub fn options(&self, asked: &[CacheImport]) -> Result<BuildOptions<VertexOp>, Error> {
        let mut options = BuildOptions::default();
        for import in asked {
            let place = ImportPlace::parse(&import.kind, &import.attrs);
            if let Err(error @ CacheError::Unsupported { .. }) = &place {
                return Err(Error::new(tonic::Code::Unimplemented, error.to_string()));
            }
            let shown = shown_name(import);
            let name = match &place {
                Ok(ImportPlace::Registry { reference, .. }) => reference.to_string(),
                _ => shown.clone(),
            };
            let mut known = self.lock();
            let found = known.entry(name.clone()).or_insert_with(|| self.begin(name, &shown, place));
            options.cache_sources.push(found.source.clone());
        }
        Ok(options)
    }

    /// Those that have been read.
    pub fn read(&self) -> Vec<ImportedCache> {
        self.lock().values().filter_map(|import| import.cache.get().cloned()).collect()
    }

    fn begin(&self, name: String, shown: &str, place: Result<ImportPlace, CacheError>) -> Import {
        let cache: Arc<OnceLock<ImportedCache>> = Arc::default();
        let (job, worker, sessions, sink) =
            (self.job.clone(), self.worker.clone(), self.sessions.clone(), self.sink.clone());
        let (title, read, called) =
            (format!("importing cache manifest from {shown}"), cache.clone(), name.clone());
        let reading = tokio::spawn(async move {
            let done = step::run(&job, &title, |step| async move {
                let place = place.map_err(|error| Error::of(&error))?;
                let reporter = Reporter::new(sink, step.digest().clone());
                read_cache(&called, &place, &worker, &sessions, reporter).await
            });
            match done.await {
                Ok(imported) => drop(read.set(imported)),
                Err(error) => tracing::debug!(%error, "a cache cannot be imported"),
            }
        });
        // Nobody waits for it any more once the build has gone.
        let reading = AbortOnDropHandle::new(reading);
        let there = cache.clone();
        let source = CacheSource::lazy(name, async move {
            drop(reading.await);
            there.get().map(ImportedCache::cache)
        });
        Import { source, cache }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Import>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read_cache(
    name: &str,
    place: &ImportPlace,
    worker: &Worker,
    sessions: &SessionGroup,
    reporter: Reporter,
) -> Result<ImportedCache, Error> {
    let credentials = SessionCredentials::new(worker.sessions().clone(), sessions.clone());
    let caller = match (place, sessions.ids().first()) {
        (ImportPlace::Local { .. }, Some(session)) => Some(caller(worker, session).await?),
        _ => None,
    };
    let context = ImportContext {
        store: worker.store().clone(),
        registry: worker.registry().client(Arc::new(credentials)),
        caller,
        reporter,
    };
    import(name, place, &context).await.map_err(|error| Error::of(&error))
}

async fn caller(worker: &Worker, session: &SessionId) -> Result<kiln_session::daemon::Caller, Error> {
    worker.sessions().get(session, APPEAR_TIMEOUT).await.map_err(|error| Error::of(&error))
}

/// A registry's reference as the client wrote it; for others the kind and a number made of the options.
fn shown_name(import: &CacheImport) -> String {
    if let Some(reference) = import.attrs.get("ref").filter(|_| import.kind == "registry") {
        return reference.clone();
    }
    let options: Vec<String> = import.attrs.iter().map(|(key, value)| format!("{key:?}={value:?}")).collect();
    let digest = kiln_oci::Digest::sha256_of(options.join(",").as_bytes());
    let number = digest.as_str().rsplit(':').next().unwrap_or_default();
    format!("{}:{}", import.kind, &number[..number.len().min(16)])
}
