//! One daemon builds and exports its cache; another, which knows nothing, imports it and builds the same.

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use kiln_oci::{Compression, Descriptor, Digest as Blob};
use kiln_registry::{AnonymousCredentials, Registry, RegistrySettings};
use kiln_remotecache::inline::ImageLayer;
use kiln_remotecache::options::{CacheMode, ExportTarget, ImportPlace};
use kiln_remotecache::report::Reporter;
use kiln_remotecache::{Collected, Collector, ImportContext, ImportedCache, SendContext, import, send};
use kiln_session::client::{LayoutStore, Session};
use kiln_session::daemon::{Caller, SessionId, SessionManager};
use kiln_solver::{
    BuildOptions, Cache, CacheMap, CacheSource, CachedResult, Digest, Edge, Graph, JobId, MemoryKeyStore,
    NoProgress, Op, OpContext, RecordId, ResultStore, Solver, SolverOptions, StoreError, Vertex,
};
use kiln_store::{BlobOptions, CommitInfo, LayerMeta, NoObserver, Ref, Store, StoreOptions};
use tempfile::TempDir;

const OWN: &str = "local";

/// Adds a layer with one file to its first input.
struct Step {
    name: &'static str,
    store: Store,
    runs: Arc<AtomicUsize>,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(String);

impl Op for Step {
    type Output = Ref;
    type Error = Failure;
    type JobContext = ();

    async fn cache_map(&self, _page: usize, _cx: &OpContext<Self>) -> Result<CacheMap<Self>, Failure> {
        Ok(CacheMap::new(Digest::of(self.name.as_bytes())))
    }

    async fn execute(&self, inputs: Vec<Ref>, _cx: &OpContext<Self>) -> Result<Vec<Ref>, Failure> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        let base = inputs.into_iter().next().unwrap_or_default();
        let layer = self.store.new_layer(&base, LayerMeta::regular(self.name)).unwrap();
        std::fs::write(layer.dir().join(self.name), self.name).unwrap();
        Ok(vec![layer.commit(CommitInfo::default()).unwrap()])
    }
}

/// Keeps results as records of the store, as the worker does.
struct Results(Store, Mutex<HashMap<RecordId, Ref>>);

#[async_trait::async_trait]
impl ResultStore<Step> for Results {
    async fn save(&self, output: &Ref, _created: SystemTime) -> Result<RecordId, StoreError> {
        let id = kiln_store::RecordId::random();
        self.0.records().put(&id, output, &[]).unwrap();
        let id = RecordId::new(id.as_str());
        self.1.lock().unwrap().insert(id.clone(), output.clone());
        Ok(id)
    }

    async fn load(&self, record: &RecordId, _cx: &OpContext<Step>) -> Result<Ref, StoreError> {
        Ok(self.1.lock().unwrap()[record].clone())
    }

    fn exists(&self, record: &RecordId) -> bool {
        self.1.lock().unwrap().contains_key(record)
    }
}

struct Daemon {
    folder: TempDir,
    store: Store,
    solver: Solver<Step>,
    runs: Arc<AtomicUsize>,
}

impl Daemon {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), StoreOptions::default()).unwrap();
        let results = Arc::new(Results(store.clone(), Mutex::default()));
        let cache = Cache::new(OWN, Arc::new(MemoryKeyStore::new()), results);
        let solver = Solver::new(SolverOptions::new(cache));
        Self { folder, store, solver, runs: Arc::default() }
    }

    /// `base` ← `middle` ← `top`.
    async fn build(&self, imported: &[ImportedCache]) -> CachedResult<Step> {
        let vertex = |name: &'static str, input: Option<&str>| Vertex {
            digest: Digest::of(format!("vertex {name}").as_bytes()),
            op: Arc::new(Step { name, store: self.store.clone(), runs: self.runs.clone() }),
            inputs: input
                .map(|input| Edge::new(Digest::of(format!("vertex {input}").as_bytes()), 0))
                .into_iter()
                .collect(),
            options: Arc::default(),
        };
        let vertices =
            vec![vertex("base", None), vertex("middle", Some("base")), vertex("top", Some("middle"))];
        let edge = Edge::new(vertices[2].digest.clone(), 0);
        let graph = Graph::new(vertices).unwrap();
        let job = self.solver.new_quiet_job(JobId::new("job"), Arc::new(()));
        let cache_sources = imported.iter().map(|cache| CacheSource::ready(cache.cache())).collect();
        job.build(&graph, &edge, &BuildOptions { cache_sources }).await.map_err(|_| "build failed").unwrap()
    }

    fn runs(&self) -> usize {
        self.runs.swap(0, Ordering::SeqCst)
    }

    async fn collect(
        &self,
        result: &CachedResult<Step>,
        mode: CacheMode,
        imported: &[ImportedCache],
    ) -> Collected {
        let own = self.solver.cache();
        let collector = Collector {
            store: &self.store,
            own_cache: OWN,
            own_keys: Some(&*own.keys),
            imported,
            registry: None,
            blobs: BlobOptions::default(),
            mode,
            describe_only: false,
        };
        collector.collect(&[result.keys()]).await.unwrap()
    }

    async fn import(&self, place: &ImportPlace, caller: Option<Caller>) -> ImportedCache {
        let context =
            ImportContext { store: self.store.clone(), registry: registry(), caller, reporter: quiet() };
        import("imported", place, &context).await.unwrap()
    }

    /// All files of a result, fetched if need be.
    async fn files(&self, reference: &Ref) -> Vec<String> {
        self.store.ensure_unpacked(reference, &NoObserver).await.unwrap();
        let union = self.store.union(reference).unwrap();
        let files = union.walk("").unwrap().skip(1).map(|node| node.unwrap().path.display().to_string());
        files.collect()
    }
}

fn registry() -> kiln_registry::Client {
    Registry::new(RegistrySettings::default()).unwrap().client(Arc::new(AnonymousCredentials))
}

fn quiet() -> Reporter {
    Reporter::new(Arc::new(NoProgress), Digest::of(b"vertex"))
}

fn attrs(entries: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

#[tokio::test]
async fn through_a_registry() {
    let server = kiln_testkit::Registry::start();
    let name = server.reference("cache:main");
    for (mode, form) in [("max", "true"), ("max", "false"), ("min", "true")] {
        let first = Daemon::new();
        let result = first.build(&[]).await;
        assert_eq!(first.runs(), 3);
        let options = attrs(&[("ref", &name), ("mode", mode), ("image-manifest", form)]);
        let target = ExportTarget::parse("registry", &options).unwrap();
        let collected = first.collect(&result, target.mode, &[]).await;
        let context = SendContext { registry: registry(), caller: None, reporter: quiet() };
        let told = send(&target, &collected, &context).await.unwrap();
        let manifest: Descriptor = serde_json::from_str(&told["cache.manifest"]).unwrap();
        assert!(manifest.size > 0);

        let second = Daemon::new();
        let place = ImportPlace::parse("registry", &attrs(&[("ref", &name)])).unwrap();
        let imported = second.import(&place, None).await;
        let again = second.build(std::slice::from_ref(&imported)).await;
        assert_eq!(second.runs(), 0, "{mode} {form}");
        assert!(again.output().layers().iter().all(|layer| layer.is_lazy()));
        assert_eq!(second.files(again.output()).await, ["base", "middle", "top"]);
        // It is known here now, without the import.
        second.build(&[]).await;
        assert_eq!(second.runs(), 0);

        // What came from one cache goes into the next, though nothing was ever fetched.
        let third = Daemon::new();
        let imported = third.import(&place, None).await;
        let result = third.build(std::slice::from_ref(&imported)).await;
        let copied = third.collect(&result, CacheMode::Max, std::slice::from_ref(&imported)).await;
        let (before, _) = kiln_remotecache::graph::marshal(&collected.graph);
        let (after, _) = kiln_remotecache::graph::marshal(&copied.graph);
        assert_eq!(before.layers, after.layers);
        assert_eq!(third.runs(), 0);
    }
}

#[tokio::test]
async fn through_a_folder_of_the_client() {
    let client = tempfile::tempdir().unwrap();
    let first = Daemon::new();
    let result = first.build(&[]).await;
    let collected = first.collect(&result, CacheMode::Max, &[]).await;
    let caller = caller(client.path(), true).await;
    let target = ExportTarget::parse("local", &attrs(&[("dest", "here")])).unwrap();
    let context = SendContext { registry: registry(), caller: Some(caller), reporter: quiet() };
    let told = send(&target, &collected, &context).await.unwrap();
    let manifest: Descriptor = serde_json::from_str(&told["cache.manifest"]).unwrap();
    assert!(client.path().join("blobs/sha256").join(manifest.digest.hex()).exists());

    let second = Daemon::new();
    let caller = self::caller(client.path(), false).await;
    let options = attrs(&[("src", "here"), ("digest", manifest.digest.as_str())]);
    let imported = second.import(&ImportPlace::parse("local", &options).unwrap(), Some(caller)).await;
    let again = second.build(&[imported]).await;
    assert_eq!(second.runs(), 0);
    assert_eq!(second.files(again.output()).await, ["base", "middle", "top"]);
}

/// A client with a store `local:here` in this folder.
async fn caller(folder: &Path, writable: bool) -> Caller {
    let sessions = SessionManager::new();
    let mut session = Session::new("").await.unwrap();
    let store = if writable {
        LayoutStore::writable(folder.to_owned())
    } else {
        LayoutStore::read_only(folder.to_owned())
    };
    session.stores(vec![("local:here".to_owned(), store)]);
    let id = SessionId::new(session.id());
    tokio::spawn(session.serve(support::daemon(sessions.clone())));
    sessions.get(&id, Duration::from_secs(10)).await.unwrap()
}

#[tokio::test]
async fn minimal_caches_make_no_blobs() {
    let daemon = Daemon::new();
    let result = daemon.build(&[]).await;
    let collected = daemon.collect(&result, CacheMode::Min, &[]).await;
    let (config, _) = kiln_remotecache::graph::marshal(&collected.graph);
    // The layers below the result are blobs by then, as parts of it.
    let with_results = config.records.iter().filter(|record| !record.results.is_empty()).count();
    assert_eq!((config.records.len(), config.layers.len(), with_results), (3, 3, 2));
    // The layers of each step, for statements about the build.
    let collector = Collector {
        store: &daemon.store,
        own_cache: OWN,
        imported: &[],
        own_keys: None,
        registry: None,
        blobs: BlobOptions::default(),
        mode: CacheMode::Max,
        describe_only: true,
    };
    let described = collector.collect(&[result.keys()]).await.unwrap();
    let counts: Vec<usize> = described.layers.iter().map(|result| result.layers.len()).collect();
    assert_eq!(counts, [3, 2, 1]);
}

#[tokio::test]
async fn inside_an_image() {
    let daemon = Daemon::new();
    let result = daemon.build(&[]).await;
    let blobs = daemon.store.ref_blobs(result.output(), &BlobOptions::default(), &NoObserver).await.unwrap();
    let layers: Vec<ImageLayer> = blobs
        .iter()
        .map(|(blob, _)| ImageLayer { blob: blob.descriptor.digest.clone(), diff_id: blob.diff_id.clone() })
        .collect();
    let collected = daemon.collect(&result, CacheMode::Min, &[]).await;
    let records = kiln_remotecache::inline::write(&collected.graph, &layers).unwrap().unwrap();
    let records: Vec<serde_json::Value> = serde_json::from_slice(&records).unwrap();
    let tops: Vec<_> = records.iter().filter_map(|record| record["layers"][0]["layer"].as_i64()).collect();
    assert!(tops.contains(&2) && tops.contains(&1), "{records:?}");
    assert_eq!(blobs[0].0.compression, Compression::Gzip);
    let _: Blob = blobs[0].0.diff_id.clone();
    drop(daemon.folder);
}
