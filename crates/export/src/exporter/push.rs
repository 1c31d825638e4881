//! Sending an image to registries.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use futures::stream::{self, StreamExt, TryStreamExt};
use kiln_oci::{Descriptor, Digest, Reference, media_type};
use kiln_registry::{Observer, RegistryError, Repository, RepositoryOptions};
use kiln_remotecache::BlobOrigin;
use kiln_store::Store;

use super::commit::{Committed, ManifestNode};
use super::layers::{ExportLayer, known_sources, note_source};
use super::{ExportBuild, Exporters, Reporter};
use crate::error::ExportError;
use kiln_remotecache::report::Step;

/// Blobs that are looked up or sent at once; the registry client has its own limit on what is sent.
const BLOBS_AT_ONCE: usize = 8;

/// Where to send an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushTarget {
    /// The name.
    pub name: String,
    /// Don't check certificates; plain http where TLS is not spoken.
    pub insecure: bool,
    /// Without a tag.
    pub by_digest: bool,
}

/// An image on its way to registries.
pub(super) struct PendingPush {
    image: Committed,
    targets: Vec<PushTarget>,
}

impl PendingPush {
    pub(super) fn new(image: Committed, targets: Vec<PushTarget>) -> Self {
        Self { image, targets }
    }

    pub(super) async fn run(&self, exporters: &Exporters, build: &ExportBuild) -> Result<(), ExportError> {
        for target in &self.targets {
            push(exporters, build, &self.image, target)
                .await
                .map_err(|error| ExportError::failed(format!("failed to push {}", target.name), error))?;
        }
        Ok(())
    }
}

async fn push(
    exporters: &Exporters,
    build: &ExportBuild,
    image: &Committed,
    target: &PushTarget,
) -> Result<(), ExportError> {
    let reference = Reference::parse(&target.name)
        .map_err(|source| ExportError::Name { name: target.name.clone(), source })?;
    if target.by_digest && !reference.is_name_only() {
        return Err(ExportError::Conflict(format!("can't push tagged ref {reference} by digest")));
    }
    let root = &image.root.descriptor;
    let shown = if target.by_digest {
        reference.name()
    } else {
        reference.clone().with_default_tag().with_digest(root.digest.clone()).to_string()
    };
    let retries: Arc<dyn Observer> = Arc::new(Retries(build.reporter.clone()));
    let options =
        RepositoryOptions { insecure: target.insecure, observer: retries, ..RepositoryOptions::push() };
    let repository = build.registry.repository(&reference, options).map_err(registry_failed)?;

    let step = build.reporter.step("pushing layers");
    push_blobs(exporters, &repository, &reference, &image.manifests, step).await?;

    let _step = build.reporter.step(format!("pushing manifest for {shown}"));
    if image.has_index() {
        let mut each = Vec::new();
        for node in &image.manifests {
            let descriptor = &node.manifest.descriptor;
            each.push(repository.push_manifest(&descriptor.media_type, node.manifest.bytes.clone(), None));
        }
        stream::iter(each)
            .buffer_unordered(BLOBS_AT_ONCE)
            .try_collect::<Vec<_>>()
            .await
            .map_err(registry_failed)?;
    }
    let tagged = reference.with_default_tag();
    let tag = if target.by_digest { None } else { tagged.tag() };
    repository
        .push_manifest(&root.media_type, image.root.bytes.clone(), tag)
        .await
        .map_err(registry_failed)?;
    Ok(())
}

async fn push_blobs(
    exporters: &Exporters,
    repository: &Repository,
    reference: &Reference,
    manifests: &[ManifestNode],
    step: Step,
) -> Result<(), ExportError> {
    let mut seen = HashSet::new();
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for node in manifests {
        for document in &node.documents {
            if seen.insert(&document.descriptor.digest) {
                jobs.push(Job { descriptor: &document.descriptor, what: What::Bytes(&document.bytes) });
            }
        }
        for layer in &node.layers {
            let descriptor = &layer.layer.descriptor;
            if !media_type::is_nondistributable(&descriptor.media_type) && seen.insert(&descriptor.digest) {
                jobs.push(Job { descriptor, what: What::Layer(layer) });
            }
        }
    }
    // The largest first: the last one to finish should not have been the last one to start.
    jobs.sort_by_key(|job| std::cmp::Reverse(job.descriptor.size));
    let total = jobs.iter().map(|job| job.descriptor.size).sum();
    let sum = Arc::new(Sum { step, total, done: Mutex::default() });
    // A list and not a mapped stream: the compiler cannot see that the latter may move between threads.
    let mut each = Vec::new();
    for job in &jobs {
        each.push(job.push(&exporters.store, repository, reference, sum.clone()));
    }
    stream::iter(each).buffer_unordered(BLOBS_AT_ONCE).try_collect::<Vec<()>>().await?;
    Ok(())
}

struct Job<'a> {
    descriptor: &'a Descriptor,
    what: What<'a>,
}

enum What<'a> {
    Bytes(&'a bytes::Bytes),
    Layer(&'a ExportLayer),
}

impl Job<'_> {
    async fn push(
        &self,
        store: &Store,
        repository: &Repository,
        reference: &Reference,
        sum: Arc<Sum>,
    ) -> Result<(), ExportError> {
        let observer: Arc<dyn Observer> = Arc::new(Part { sum, digest: self.descriptor.digest.clone() });
        match self.what {
            What::Bytes(bytes) => {
                let pushed = repository.push_blob(self.descriptor, bytes, &[], &observer).await;
                pushed.map_err(registry_failed)?;
            }
            What::Layer(layer) => {
                let source = BlobOrigin::Layer {
                    store: store.clone(),
                    layer: layer.handle.clone(),
                    descriptor: layer.layer.descriptor.clone(),
                };
                let sisters = known_sources(store, layer, reference);
                let pushed = repository.push_blob(self.descriptor, &source, &sisters, &observer).await;
                pushed.map_err(registry_failed)?;
                note_source(store, layer, reference);
            }
        }
        Ok(())
    }
}

/// All blobs of an image as one line of progress.
struct Sum {
    step: Step,
    total: u64,
    done: Mutex<BTreeMap<Digest, u64>>,
}

struct Part {
    sum: Arc<Sum>,
    digest: Digest,
}

impl Observer for Part {
    fn progress(&self, done: u64, _total: u64) {
        let all = {
            let mut parts = self.sum.done.lock().expect("no panic while held");
            parts.insert(self.digest.clone(), done);
            parts.values().sum()
        };
        self.sum.step.progress(all, self.sum.total);
    }

    fn message(&self, line: &str) {
        self.sum.step.reporter().log(line);
    }
}

/// Only what went wrong.
struct Retries(Reporter);

impl Observer for Retries {
    fn message(&self, line: &str) {
        self.0.log(line);
    }
}

fn registry_failed(error: RegistryError) -> ExportError {
    ExportError::Registry(Box::new(error))
}
