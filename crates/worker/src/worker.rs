//! The worker: what all vertices share.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_exec::Executor;
use kiln_oci::Platform;
use kiln_registry::Registry;
use kiln_session::daemon::{SessionGroup, SessionManager};
use kiln_solver::{OpContext, Progress};
use kiln_store::{LayerHandle, Ref, Store};
use tokio::sync::Semaphore;

use crate::config::{Settings, WorkerConfig, WorkerInfo};
use crate::contenthash::Selector;
use crate::context::sessions_of;
use crate::digests::Digests;
use crate::encode::digest_of;
use crate::error::{Error, Result};
use crate::op::{VertexOp, solver_digest};
use crate::ops::links::Lists;
use crate::ops::private::PrivateDir;
use crate::source::http_fetch::HttpClient;

/// Runs vertices: brings in sources, runs steps, changes files. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    inner: Arc<Inner>,
}

/// File ops under way where nothing else is set. They work on the threads of the store's pool, which are fewer; a graph may have thousands
/// that could begin.
const FILE_OPS_MAX: usize = 64;

struct Inner {
    settings: Settings,
    store: Store,
    executor: Executor,
    sessions: SessionManager,
    registry: Registry,
    http: HttpClient,
    private: PrivateDir,
    parallelism: Option<Arc<Semaphore>>,
    file_ops: Arc<Semaphore>,
    digests: Digests,
    origins: Lists,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("id", &self.inner.settings.info.id).finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker with nothing to do.
    ///
    /// # Errors
    /// Its private directory can't be made.
    pub fn new(config: WorkerConfig) -> Result<Worker> {
        let WorkerConfig { id, labels, platforms, store, executor, sessions, registry, .. } = config;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&config.work_dir);
        made.map_err(Error::io("create", &config.work_dir))?;
        let digests = Digests::new(store.clone());
        Ok(Worker {
            inner: Arc::new(Inner {
                settings: Settings {
                    info: WorkerInfo { id, labels, platforms },
                    step_log: config.step_log,
                    git: config.git.map(Arc::new),
                },
                private: PrivateDir::new(config.work_dir.join("private"))?,
                http: HttpClient::new(config.user_agent, config.tls),
                file_ops: Arc::new(Semaphore::new(FILE_OPS_MAX)),
                parallelism: config.max_parallelism.map(|count| Arc::new(Semaphore::new(count.max(1)))),
                store,
                executor,
                sessions,
                registry,
                digests,
                origins: Lists::default(),
            }),
        })
    }

    /// What clients see of it.
    pub fn info(&self) -> &WorkerInfo {
        &self.inner.settings.info
    }

    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    pub fn executor(&self) -> &Executor {
        &self.inner.executor
    }

    pub fn sessions(&self) -> &SessionManager {
        &self.inner.sessions
    }

    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub(crate) fn http(&self) -> &HttpClient {
        &self.inner.http
    }

    pub(crate) fn private(&self) -> &PrivateDir {
        &self.inner.private
    }

    pub(crate) fn parallelism(&self) -> Option<Arc<Semaphore>> {
        self.inner.parallelism.clone()
    }

    /// How many file ops may be under way.
    pub(crate) fn file_ops(&self) -> Arc<Semaphore> {
        self.inner.file_ops.clone()
    }

    pub(crate) fn digests(&self) -> &Digests {
        &self.inner.digests
    }

    pub(crate) fn origins(&self) -> &Lists {
        &self.inner.origins
    }

    /// The platform that a vertex means: this machine's where it does not say.
    pub fn platform_of(&self, given: Option<&Platform>) -> Platform {
        match (given, self.inner.settings.info.platforms.first()) {
            (Some(given), _) => given.normalized(),
            (None, Some(first)) => first.normalized(),
            (None, None) => kiln_oci::platform::default_for_host(),
        }
    }

    /// Runs work that moves bytes or waits for a disk where that disturbs nobody.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        Ok(self.inner.store.pool().run(work).await?)
    }

    /// The directories of a ref's layers, lowest first. They must be unpacked.
    pub(crate) fn layer_dirs(&self, reference: &Ref) -> Result<Vec<PathBuf>> {
        Ok(reference.layers().iter().map(LayerHandle::dir).collect::<std::result::Result<_, _>>()?)
    }

    /// Fetches and unpacks what a ref still lacks.
    ///
    /// # Errors
    /// What a registry or a client says, and what the store does.
    pub async fn unpack(
        &self,
        reference: &Ref,
        sessions: &SessionGroup,
        progress: Option<&Progress>,
    ) -> Result<()> {
        if reference.layers().iter().any(LayerHandle::is_lazy) {
            self.attach_providers(reference, sessions)?;
            let observer = crate::transfer::Transfers::new(progress.cloned());
            self.inner.store.ensure_unpacked(reference, &observer).await?;
        }
        Ok(())
    }

    /// Digest of what `selectors` pick of an input.
    pub(crate) async fn content_key(
        &self,
        input: &Ref,
        selectors: &Arc<[Selector]>,
        cx: &OpContext<VertexOp>,
    ) -> Result<kiln_solver::Digest> {
        self.unpack(input, &sessions_of(cx), Some(&cx.progress())).await?;
        let (worker, input, selectors) = (self.clone(), input.clone(), selectors.clone());
        let hash = self.blocking(move || worker.inner.digests.checksum(&input, &selectors)).await?;
        Ok(solver_digest(hash?))
    }

    /// Digest of all that a ref holds, or of what `selectors` pick. It must be unpacked.
    ///
    /// # Errors
    /// A path that is not there, and what the file system says.
    pub async fn checksum(&self, reference: &Ref, selectors: Vec<Selector>) -> Result<kiln_oci::Digest> {
        let (worker, reference) = (self.clone(), reference.clone());
        let hash = self.blocking(move || worker.inner.digests.checksum(&reference, &selectors)).await?;
        Ok(digest_of(hash?))
    }
}
