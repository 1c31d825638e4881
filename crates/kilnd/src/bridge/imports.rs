//! Caches that a build looks into besides the daemon's own: each is read once, as a step of its own, while the build goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kiln_frontend::{CacheImport, Error};
use kiln_remotecache::options::ImportPlace;
use kiln_remotecache::report::Reporter;
use kiln_remotecache::{CacheError, ImportContext, ImportedCache, import};
use kiln_session::daemon::{APPEAR_TIMEOUT, SessionCredentials, SessionGroup, SessionId};
use kiln_solver::{BuildOptions, CacheSource, Digest, Event, Job, ProgressSink, RecordId, Solver, Warning};
use kiln_store::Ref;
use kiln_worker::{VertexOp, Worker};
use tokio_util::task::AbortOnDropHandle;

use crate::step;

/// The caches of one build, by their names.
pub struct Imports {
    job: Job<VertexOp>,
    solver: Solver<VertexOp>,
    worker: Worker,
    sessions: SessionGroup,
    sink: Arc<dyn ProgressSink>,
    known: Mutex<BTreeMap<String, Import>>,
    /// Grows with every time that caches are given up.
    generation: AtomicU64,
}

struct Import {
    source: CacheSource<VertexOp>,
    read: Arc<OnceLock<Read>>,
}

/// A cache that was read, with the step that did it.
#[derive(Clone)]
struct Read {
    cache: ImportedCache,
    step: Digest,
}

impl Imports {
    pub fn new(
        job: Job<VertexOp>,
        solver: Solver<VertexOp>,
        worker: Worker,
        sessions: SessionGroup,
        sink: Arc<dyn ProgressSink>,
    ) -> Imports {
        let (known, generation) = (Mutex::default(), AtomicU64::default());
        Imports { job, solver, worker, sessions, sink, known, generation }
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

    /// Those that have been read and not given up.
    pub fn caches(&self) -> Vec<ImportedCache> {
        let all = self.all_read().into_iter().map(|read| read.cache);
        all.filter(|cache| !cache.is_given_up()).collect()
    }

    /// How often caches have been given up.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Whether a result was to come from a cache that has been given up since.
    pub fn is_lost(&self, output: &Ref) -> bool {
        self.all_read().iter().any(|read| read.cache.is_given_up() && read.cache.is_owed(output))
    }

    /// After something failed that began in `generation`: gives up the caches that could not give what they had promised, and
    /// forgets all that was built on it. True if it is worth trying again.
    ///
    /// What a cache names is only fetched when something reads it, which may be long after its steps were taken for done. Its bytes
    /// are checked then; a cache that is damaged or has gone must not break a build which could do without it.
    pub fn recover(&self, generation: u64) -> bool {
        // One at a time: who comes second finds the work done.
        let known = self.lock();
        if self.generation() != generation {
            return true;
        }
        let read = known.values().filter_map(|import| import.read.get());
        let mut lost: Vec<&ImportedCache> = Vec::new();
        for Read { cache, step } in read.filter(|read| !read.cache.is_given_up()) {
            let Some((blob, reason)) = cache.damage() else { continue };
            cache.give_up();
            let short =
                format!("the cache {} is damaged and not used any more: {blob}: {reason}", cache.name());
            let warning = Warning {
                level: 1,
                short: short.into(),
                detail: Vec::new(),
                url: String::new(),
                location: None,
            };
            self.job.event(Event::Warning { vertex: step.clone(), warning });
            lost.push(cache);
        }
        if lost.is_empty() {
            return false;
        }
        let records = self.worker.store().records();
        let owed = |output: &Ref| lost.iter().any(|cache| cache.is_owed(output));
        let output_of = |record: &RecordId| {
            let found = records.get(&kiln_store::RecordId::new(record.as_str())).ok().flatten();
            found.map(|record| record.reference)
        };
        if let Err(error) = self.solver.forget(&owed, &output_of) {
            tracing::warn!(%error, "records of a damaged cache are still there");
        }
        self.generation.fetch_add(1, Ordering::SeqCst);
        true
    }

    fn all_read(&self) -> Vec<Read> {
        self.lock().values().filter_map(|import| import.read.get().cloned()).collect()
    }

    fn begin(&self, name: String, shown: &str, place: Result<ImportPlace, CacheError>) -> Import {
        let read: Arc<OnceLock<Read>> = Arc::default();
        let (job, worker, sessions, sink) =
            (self.job.clone(), self.worker.clone(), self.sessions.clone(), self.sink.clone());
        let (title, filled, called) =
            (format!("importing cache manifest from {shown}"), read.clone(), name.clone());
        let reading = tokio::spawn(async move {
            let done = step::run(&job, &title, |step| async move {
                let place = place.map_err(|error| Error::of(&error))?;
                let reporter = Reporter::new(sink, step.digest().clone());
                let cache = read_cache(&called, &place, &worker, &sessions, reporter).await?;
                Ok(Read { cache, step: step.digest().clone() })
            });
            match done.await {
                Ok(imported) => drop(filled.set(imported)),
                Err(error) => tracing::debug!(%error, "a cache cannot be imported"),
            }
        });
        // Nobody waits for it any more once the build has gone.
        let reading = AbortOnDropHandle::new(reading);
        let there = read.clone();
        let source = CacheSource::lazy(name, async move {
            drop(reading.await);
            there.get().map(|read| read.cache.cache())
        });
        Import { source, read }
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
