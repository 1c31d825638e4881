//! Fetching, checking and unpacking lazy layers: all missing ones at once, each once.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::try_join_all;
use kiln_layer::apply::{Applied, ApplyOptions, Lean, apply, settle};
use kiln_oci::{Descriptor, Digest};
use rusqlite::params;
use tokio::sync::OwnedMutexGuard;

use super::handle::STATE_READY;
use super::{FetchEvent, FetchObserver, LayerBlob, LayerHandle, fetch};
use crate::content::{Content, Ingest};
use crate::error::{Error, Result};
use crate::reference::Ref;
use crate::store::Store;

impl Store {
    /// Makes sure that every layer's directory is there: fetches what is missing, checks it and unpacks it while it
    /// comes, all layers at the same time. Asked for twice at once, the work is done once. A caller that goes away
    /// cancels what it began.
    pub async fn ensure_unpacked(&self, reference: &Ref, observer: &dyn FetchObserver) -> Result<()> {
        let missing: Vec<LayerHandle> = reference.layers().into_iter().filter(LayerHandle::is_lazy).collect();
        try_join_all(missing.iter().map(|layer| self.unpack(layer, observer))).await?;
        Ok(())
    }

    async fn unpack(&self, layer: &LayerHandle, observer: &dyn FetchObserver) -> Result<()> {
        // Held by whatever works on the layer's directory, also by a job that nobody waits for any more.
        let turn = Arc::new(self.inner.unpacking.turn(layer.row()).await);
        if !layer.is_lazy() {
            return Ok(());
        }
        let blob = self.source_blob(layer)?;
        observer.event(&blob.descriptor, FetchEvent::Unpacking);
        let (dir, applied) = if blob.local {
            self.unpack_local(layer, &blob, &turn).await?
        } else {
            let unpacked = self.unpack_remote(layer, &blob, &turn, observer).await;
            layer.note_fetch(&blob.descriptor.digest, &unpacked);
            unpacked?
        };
        self.blob_is_local(layer, &blob.descriptor.digest)?;
        let base = layer.base()?;
        if needs_settling(&applied.leans, &base) {
            // While this layer's turn is held; a base never waits for what lies on it, so this ends.
            Box::pin(self.ensure_unpacked(&base, observer)).await?;
        }
        let (store, layer) = (self.clone(), layer.clone());
        let finish = move || {
            let _turn = turn;
            store.finish(&layer, applied, dir, &base)
        };
        self.pool().run(finish).await??;
        observer.event(&blob.descriptor, FetchEvent::Unpacked);
        Ok(())
    }

    async fn unpack_local(
        &self,
        layer: &LayerHandle,
        blob: &LayerBlob,
        turn: &Turn,
    ) -> Result<(PathBuf, Applied)> {
        let (store, id, expected, turn) =
            (self.clone(), layer.id().clone(), Expected::of(blob), Arc::clone(turn));
        let job = move || {
            let _turn = turn;
            let file = store.content().open_blob(&expected.descriptor.digest)?;
            store.unpack_from(&id, file, &expected)
        };
        self.unpack_pool().run(job).await?
    }

    async fn unpack_remote(
        &self,
        layer: &LayerHandle,
        blob: &LayerBlob,
        turn: &Turn,
        observer: &dyn FetchObserver,
    ) -> Result<(PathBuf, Applied)> {
        let providers = layer.providers();
        if providers.is_empty() {
            return Err(Error::NoProvider { digest: blob.descriptor.digest.clone() });
        }
        let (sender, pieces) = fetch::channel(blob.descriptor.size);
        let (store, id, expected, turn) =
            (self.clone(), layer.id().clone(), Expected::of(blob), Arc::clone(turn));
        let job = move || {
            let _turn = turn;
            let mut tee = Tee { from: pieces, to: store.content().ingest_unhashed()? };
            let (dir, applied) = store.unpack_from(&id, &mut tee, &expected)?;
            tee.to.commit_hashed(applied.digest.clone())?;
            Ok::<_, Error>((dir, applied))
        };
        let feed = async {
            let fed = fetch::feed(&providers, &blob.descriptor, sender, observer).await;
            if fed.is_ok() {
                observer.event(&blob.descriptor, FetchEvent::Fetched);
            }
            fed.map_err(|source| Error::Fetch { digest: blob.descriptor.digest.clone(), source })
        };
        let (fed, unpacked) = tokio::join!(feed, self.unpack_pool().run(job));
        // A broken transfer is the reason for the broken archive.
        fed?;
        unpacked?
    }

    fn unpack_from(
        &self,
        id: &crate::id::LayerId,
        source: impl Read + Send,
        expected: &Expected,
    ) -> Result<(PathBuf, Applied)> {
        // What an earlier try left.
        self.inner.trash(&self.inner.layer_dir(id))?;
        let fs = self.inner.make_layer_dirs(id)?;
        let options = ApplyOptions {
            format: *self.format(),
            bytes_max: self.inner.options.layer_bytes_max,
            budget: self.inner.options.budget.clone(),
            ..ApplyOptions::default()
        };
        let digest = &expected.descriptor.digest;
        let unpacked = apply(source, &fs, &options).map_err(Error::layer(digest)).and_then(|applied| {
            expected.check(&applied)?;
            Ok(applied)
        });
        match unpacked {
            Ok(applied) => Ok((fs, applied)),
            Err(error) => {
                self.inner.trash(&self.inner.layer_dir(id))?;
                Err(error)
            }
        }
    }

    fn finish(&self, layer: &LayerHandle, applied: Applied, dir: PathBuf, base: &Ref) -> Result<()> {
        if needs_settling(&applied.leans, base) {
            let lower = self.union(base)?;
            settle(&dir, &applied.leans, &lower, self.format()).map_err(Error::layer(layer.id()))?;
        }
        for skipped in &applied.skipped {
            tracing::warn!(layer = %layer.id(), "left out while unpacking: {skipped}");
        }
        let stands_alone = applied.leans.is_empty();
        self.inner.trash(&self.inner.layer_dir(layer.id()).join("work"))?;
        self.inner.db.write("commit a layer", |db| {
            db.prepare_cached("UPDATE layers SET state = ?, synced = 0, bytes = ?, inodes = ? WHERE id = ?")?
                .execute(params![
                    STATE_READY,
                    applied.usage.bytes as i64,
                    applied.usage.inodes as i64,
                    layer.row()
                ])?;
            if stands_alone {
                // Usable on top of anything from now on, unless another one is already.
                db.prepare_cached("UPDATE OR IGNORE layers SET identity = ? WHERE id = ?")?
                    .execute(params![applied.diff_id.as_str(), layer.row()])?;
            }
            Ok(())
        })?;
        layer.inner.state.store(STATE_READY, Ordering::Release);
        self.inner.sync.layer_made();
        Ok(())
    }

    /// Fetches a lazy layer's archive without unpacking it. Afterwards the blob is in [`Store::content`].
    pub async fn ensure_blob(
        &self,
        layer: &LayerHandle,
        descriptor: &Descriptor,
        observer: &dyn FetchObserver,
    ) -> Result<()> {
        let _turn = self.inner.unpacking.turn(layer.row()).await;
        if !self.content().has(&descriptor.digest) {
            let providers = layer.providers();
            let fetched = self.fetch_blob(&providers, descriptor, observer).await;
            layer.note_fetch(&descriptor.digest, &fetched);
            fetched?;
        }
        self.blob_is_local(layer, &descriptor.digest)
    }

    /// Fetches a blob from the first of these that gives it.
    pub async fn fetch_blob(
        &self,
        providers: &[Arc<dyn super::Provider>],
        descriptor: &Descriptor,
        observer: &dyn FetchObserver,
    ) -> Result<crate::content::Blob> {
        if let Some(blob) = self.content().pin(&descriptor.digest)? {
            return Ok(blob);
        }
        if providers.is_empty() {
            return Err(Error::NoProvider { digest: descriptor.digest.clone() });
        }
        let (sender, mut pieces) = fetch::channel(descriptor.size);
        let content: Content = self.content().clone();
        let digest = descriptor.digest.clone();
        let job = move || {
            let mut ingest = content.ingest(Some(&digest))?;
            let path = ingest.path().to_owned();
            std::io::copy(&mut pieces, &mut ingest).map_err(Error::io("write", path))?;
            ingest.commit()
        };
        let feed = async {
            fetch::feed(providers, descriptor, sender, observer)
                .await
                .map_err(|source| Error::Fetch { digest: descriptor.digest.clone(), source })
        };
        let (fed, stored) = tokio::join!(feed, self.unpack_pool().run(job));
        fed?;
        let blob = stored??;
        observer.event(descriptor, FetchEvent::Fetched);
        Ok(blob)
    }

    /// The archive to unpack a layer from: one that is here, else one that was not found wanting before, else any.
    fn source_blob(&self, layer: &LayerHandle) -> Result<LayerBlob> {
        let blobs = self.layer_blobs(layer)?;
        let here = blobs.iter().position(|blob| blob.local && self.content().has(&blob.descriptor.digest));
        let whole = || blobs.iter().position(|blob| layer.lost_blob(&blob.descriptor.digest).is_none());
        match here.or_else(whole).or((!blobs.is_empty()).then_some(0)) {
            Some(index) => {
                let mut blob = blobs.into_iter().nth(index).expect("the index was found in it");
                blob.local = here.is_some();
                Ok(blob)
            }
            None => Err(Error::NotUnpacked(layer.id().clone())),
        }
    }

    fn blob_is_local(&self, layer: &LayerHandle, digest: &Digest) -> Result<()> {
        self.inner.db.write("record a layer's blob", |db| {
            db.prepare_cached("UPDATE layer_blobs SET local = 1 WHERE layer = ? AND digest = ?")?
                .execute(params![layer.row(), digest.as_str()])?;
            Ok(())
        })
    }
}

fn needs_settling(leans: &[Lean], base: &Ref) -> bool {
    // With nothing below, implied parents are what they are.
    let settled = |lean: &Lean| base.is_scratch() && matches!(lean, Lean::Parent(_));
    !leans.iter().all(settled)
}

/// What an archive must turn out to be.
struct Expected {
    descriptor: Descriptor,
    diff_id: Digest,
}

/// Who holds it may work on the layer's directory.
type Turn = Arc<OwnedMutexGuard<()>>;

impl Expected {
    fn of(blob: &LayerBlob) -> Self {
        Self { descriptor: blob.descriptor.clone(), diff_id: blob.diff_id.clone() }
    }

    fn check(&self, applied: &Applied) -> Result<()> {
        let Descriptor { digest, size, .. } = &self.descriptor;
        if applied.digest != *digest {
            return Err(Error::DigestMismatch { expected: digest.clone(), actual: applied.digest.clone() });
        }
        if applied.size != *size {
            return Err(Error::SizeMismatch {
                digest: digest.clone(),
                expected: *size,
                actual: applied.size,
            });
        }
        if applied.diff_id != self.diff_id {
            return Err(Error::DigestMismatch {
                expected: self.diff_id.clone(),
                actual: applied.diff_id.clone(),
            });
        }
        Ok(())
    }
}

/// Keeps what is read through it.
struct Tee<R> {
    from: R,
    to: Ingest,
}

impl<R: Read> Read for &mut Tee<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.from.read(buf)?;
        self.to.write_all(&buf[..len])?;
        Ok(len)
    }
}
