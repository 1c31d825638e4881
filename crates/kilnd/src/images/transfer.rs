//! Pulling into the image store and pushing out of it.

use std::io::Write;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use kiln_oci::{Descriptor, ManifestKind, Platform, PlatformMatcher, Reference};
use kiln_proto::images::{PullImageRequest, PushImageRequest, TransferProgress};
use kiln_registry::{FileSource, Observer, Repository, RepositoryOptions};
use kiln_session::daemon::{SessionCredentials, SessionGroup, SessionId};
use kiln_store::{Blob, Store};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, describe, failed, find, full_name, walk};
use crate::daemon::Daemon;

/// Reports that wait to be read; further ones about bytes are left out.
const REPORTS: usize = 256;
/// Blobs of one image that are transferred at once.
const BLOBS_AT_ONCE: usize = 4;

type Reports = mpsc::Sender<Result<TransferProgress, Status>>;

fn repository(
    daemon: &Daemon,
    name: &Reference,
    session: &str,
    options: RepositoryOptions,
) -> Result<Repository, Status> {
    let group = SessionGroup::new([SessionId::new(session)]);
    let credentials = Arc::new(SessionCredentials::new(daemon.sessions.clone(), group));
    daemon.registry.client(credentials).repository(name, options).map_err(failed)
}

fn platforms(texts: &[String]) -> Result<Vec<Platform>, Status> {
    texts
        .iter()
        .map(|text| {
            Platform::parse(text).map_err(|_| Status::invalid_argument(format!("`{text}` is no platform")))
        })
        .collect()
}

/// Runs a transfer beside the answers that report on it. It ends when nobody reads them any more.
fn reported<F>(daemon: &Arc<Daemon>, work: impl FnOnce(Reports) -> F) -> Answers<TransferProgress>
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (send, receive) = mpsc::channel(REPORTS);
    let busy = daemon.activity.begin();
    let work = work(send.clone());
    tokio::spawn(async move {
        let _busy = busy;
        tokio::select! {
            () = send.closed() => {}
            done = work => {
                if let Err(status) = done {
                    let _ = send.send(Err(status)).await;
                }
            }
        }
    });
    ReceiverStream::new(receive).boxed()
}

/// Reports bytes of one blob; a full queue loses nothing but a report.
struct BlobReport {
    reports: Reports,
    id: String,
    action: &'static str,
}

impl Observer for BlobReport {
    fn progress(&self, done: u64, total: u64) {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let _ = self.reports.try_send(Ok(TransferProgress {
            id: self.id.clone(),
            action: self.action.to_owned(),
            current: signed(done),
            total: signed(total),
            done: done == total,
            result: Vec::new(),
        }));
    }

    fn message(&self, line: &str) {
        let action = format!("{}: {line}", self.action);
        let _ = self.reports.try_send(Ok(TransferProgress {
            id: self.id.clone(),
            action,
            ..TransferProgress::default()
        }));
    }
}

pub(super) fn pull(
    daemon: Arc<Daemon>,
    request: PullImageRequest,
) -> Result<Answers<TransferProgress>, Status> {
    let name = full_name(&request.reference)?;
    let wanted = platforms(&request.platforms)?;
    let repository = repository(&daemon, &name, &request.session, RepositoryOptions::default())?;
    let shared = daemon.clone();
    Ok(reported(&daemon, |reports| async move {
        let store = &shared.store;
        let object = name.object().unwrap_or("latest").to_owned();
        let resolved = repository.resolve(&object).await.map_err(failed)?;
        let mut pulled = Pulled { store, repository: &repository, reports: &reports, held: Vec::new() };
        let target = pulled.image(&resolved.descriptor, &wanted).await?;
        store.images().put(&name.to_string(), &target).map_err(failed)?;
        let image = find(store, &name.to_string())?;
        let result = vec![describe::image(store, &image).map_err(failed)?];
        let _ =
            reports.send(Ok(TransferProgress { done: true, result, ..TransferProgress::default() })).await;
        Ok(())
    }))
}

/// A pull under way; what came is held until the image has its name.
struct Pulled<'a> {
    store: &'a Store,
    repository: &'a Repository,
    reports: &'a Reports,
    held: Vec<Blob>,
}

impl Pulled<'_> {
    /// Fetches an image: of an index the manifests for the wanted platforms, this machine's when none are. Gives what the name
    /// stands for here: one manifest when only one was taken, so that what is named is whole.
    async fn image(&mut self, target: &Descriptor, wanted: &[Platform]) -> Result<Descriptor, Status> {
        let bytes = self.document(target).await?;
        let manifests = match ManifestKind::parse(&target.media_type, &bytes).map_err(failed)? {
            ManifestKind::Manifest(_) => vec![target.clone()],
            ManifestKind::Index(index) => pick(&index.manifests, wanted)?,
        };
        let named = if let [only] = &manifests[..] { only.clone() } else { target.clone() };
        for manifest in manifests {
            let bytes = self.document(&manifest).await?;
            let ManifestKind::Manifest(parts) =
                ManifestKind::parse(&manifest.media_type, &bytes).map_err(failed)?
            else {
                return Err(Status::data_loss(format!("{} is an index in an index", manifest.digest)));
            };
            let blobs = parts.layers.iter().chain([&parts.config]).cloned().collect::<Vec<_>>();
            let (store, repository, reports) = (self.store, self.repository, self.reports);
            let fetched: Vec<Blob> = futures::stream::iter(blobs)
                .map(|blob| async move { fetch(store, repository, reports, &blob).await })
                .buffer_unordered(BLOBS_AT_ONCE)
                .try_collect()
                .await?;
            self.held.extend(fetched);
        }
        Ok(named)
    }

    async fn document(&mut self, descriptor: &Descriptor) -> Result<bytes::Bytes, Status> {
        let bytes = self.repository.manifest(descriptor).await.map_err(failed)?;
        self.held.push(self.store.content().put(&bytes).map_err(failed)?);
        Ok(bytes)
    }
}

/// The manifests of an index to take.
fn pick(manifests: &[Descriptor], wanted: &[Platform]) -> Result<Vec<Descriptor>, Status> {
    let host = [kiln_oci::platform::default_for_host()];
    let wanted = if wanted.is_empty() { &host } else { wanted };
    let mut picked: Vec<Descriptor> = Vec::new();
    for platform in wanted {
        let matcher = PlatformMatcher::only(platform);
        let best = manifests
            .iter()
            .filter_map(|manifest| Some((manifest, manifest.platform.as_ref()?)))
            .filter(|(_, offered)| matcher.matches(offered))
            .min_by(|(_, a), (_, b)| matcher.compare(a, b));
        let Some((manifest, _)) = best else {
            let offered: Vec<String> = manifests
                .iter()
                .filter_map(|manifest| Some(manifest.platform.as_ref()?.to_string()))
                .filter(|offered| !offered.starts_with("unknown"))
                .collect();
            return Err(Status::not_found(format!(
                "no match for platform {platform} in the image: it has {}",
                offered.join(", ")
            )));
        };
        if !picked.contains(manifest) {
            picked.push(manifest.clone());
        }
    }
    Ok(picked)
}

async fn fetch(
    store: &Store,
    repository: &Repository,
    reports: &Reports,
    blob: &Descriptor,
) -> Result<Blob, Status> {
    let report =
        Arc::new(BlobReport { reports: reports.clone(), id: blob.digest.to_string(), action: "pulling" });
    if let Some(held) = store.content().pin(&blob.digest).map_err(failed)? {
        report.progress(blob.size, blob.size);
        return Ok(held);
    }
    let repository = repository.clone().with_observer(report.clone());
    let mut reader = repository.blob(blob, 0).await.map_err(failed)?;
    let mut ingest = store.content().ingest(Some(&blob.digest)).map_err(failed)?;
    let mut done = 0;
    while let Some(chunk) = reader.chunk().await.map_err(failed)? {
        done += chunk.len() as u64;
        ingest.write_all(&chunk).map_err(failed)?;
        report.progress(done, blob.size);
    }
    tokio::task::spawn_blocking(move || ingest.commit()).await.map_err(failed)?.map_err(failed)
}

pub(super) fn push(
    daemon: Arc<Daemon>,
    request: PushImageRequest,
) -> Result<Answers<TransferProgress>, Status> {
    let image = find(&daemon.store, &request.reference)?;
    let target = if request.target.is_empty() { image.name.as_str() } else { request.target.as_str() };
    let name = full_name(target)?;
    let wanted = platforms(&request.platforms)?;
    if !wanted.is_empty() {
        return Err(Status::unimplemented(
            "pushing some platforms of an image is not supported yet: push all of them",
        ));
    }
    let options = RepositoryOptions { insecure: request.insecure, ..RepositoryOptions::push() };
    let repository = repository(&daemon, &name, &request.session, options)?;
    let shared = daemon.clone();
    Ok(reported(&daemon, |reports| async move {
        let store = &shared.store;
        let parts = walk::parts(store, &image.target).map_err(failed)?;
        for manifest in &parts.manifests {
            let blobs = manifest.layers.iter().chain([&manifest.config]).cloned().collect::<Vec<_>>();
            if let Some(missing) = blobs.iter().find(|blob| !store.content().has(&blob.digest)) {
                return Err(Status::failed_precondition(format!(
                    "{} of {} is not in the image store: pull that platform first",
                    missing.digest, image.name
                )));
            }
            let (repository, reports) = (&repository, &reports);
            futures::stream::iter(blobs)
                .map(|blob| async move { send(store, repository, reports, &blob).await })
                .buffer_unordered(BLOBS_AT_ONCE)
                .try_collect::<Vec<()>>()
                .await?;
        }
        let documents = parts.manifests.iter().map(|manifest| &manifest.descriptor).chain(&parts.indexes);
        for document in documents {
            let bytes = store.content().read(&document.digest, walk::DOCUMENT_BYTES_MAX).map_err(failed)?;
            let tag = (document.digest == image.target.digest).then(|| name.tag()).flatten();
            repository.push_manifest(&document.media_type, bytes, tag).await.map_err(failed)?;
        }
        let result = vec![describe::image(store, &image).map_err(failed)?];
        let _ =
            reports.send(Ok(TransferProgress { done: true, result, ..TransferProgress::default() })).await;
        Ok(())
    }))
}

async fn send(
    store: &Store,
    repository: &Repository,
    reports: &Reports,
    blob: &Descriptor,
) -> Result<(), Status> {
    let report = BlobReport { reports: reports.clone(), id: blob.digest.to_string(), action: "pushing" };
    let observer: Arc<dyn Observer> = Arc::new(report);
    let source = FileSource { path: store.content().path(&blob.digest) };
    repository.push_blob(blob, &source, &[], &observer).await.map_err(failed)?;
    observer.progress(blob.size, blob.size);
    Ok(())
}
