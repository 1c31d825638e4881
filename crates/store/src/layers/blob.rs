//! A layer's archives.

use std::io::BufReader;

use kiln_layer::compress::{CompressOptions, Compressor, decompressor};
use kiln_layer::diff::{DiffOptions, write_layer};
use kiln_oci::{Compression, Descriptor, Digest};
use rusqlite::{Row, params};

use super::sink::{BlobSink, Packed};
use super::{FetchObserver, LayerHandle};
use crate::content::Blob;
use crate::error::{Error, Result};
use crate::reference::Ref;
use crate::store::Store;

/// Which archive of a layer is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BlobOptions {
    /// The compression for an archive that has to be made.
    pub compression: CompressOptions,
    /// Only that compression will do; else any archive that is known does.
    pub force: bool,
    /// Times later than this (seconds since 1970) become this.
    pub epoch: Option<i64>,
}

/// One archive of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Its descriptor. The media type is that under which it came, or the OCI one.
    pub descriptor: Descriptor,
    /// The digest of the plain archive.
    pub diff_id: Digest,
    /// Its compression.
    pub compression: Compression,
    /// The level it was made with here; `None`: made elsewhere.
    pub level: Option<i32>,
    /// The epoch its times were cut to.
    pub epoch: Option<i64>,
    /// Whether the bytes are in the store, or only with a provider.
    pub local: bool,
}

impl Store {
    /// All archives known of a layer.
    pub fn layer_blobs(&self, layer: &LayerHandle) -> Result<Vec<LayerBlob>> {
        self.inner.db.read("look up a layer's blobs", |db| {
            db.prepare_cached(
                "SELECT digest, size, media_type, compression, level, epoch, diff_id, annotations, local
                 FROM layer_blobs WHERE layer = ?",
            )?
            .query_map([layer.row()], blob)?
            .collect()
        })
    }

    /// The archive that [`Store::layer_blob`] would give without making one; it may be with a provider only.
    pub fn known_blob(&self, layer: &LayerHandle, options: &BlobOptions) -> Result<Option<LayerBlob>> {
        let mut blobs = self.layer_blobs(layer)?;
        blobs.retain(|blob| blob.epoch == options.epoch && options.allows(blob));
        // The wanted compression first, then what is here already, then the smallest.
        blobs.sort_by_key(|blob| {
            (
                blob.compression != options.compression.kind,
                !blob.local,
                blob.descriptor.size,
                blob.descriptor.digest.clone(),
            )
        });
        Ok(blobs.into_iter().next())
    }

    /// The archive of a layer, made and recorded if need be; its bytes are in [`Store::content`] then. Asked for
    /// twice at once, it is made once. The returned pin keeps the bytes even if the layer is pruned.
    pub async fn layer_blob(
        &self,
        layer: &LayerHandle,
        options: &BlobOptions,
        observer: &dyn FetchObserver,
    ) -> Result<(LayerBlob, Blob)> {
        self.layer_blob_beside(layer, options, observer, None).await
    }

    /// The same; an archive that has to be made goes into `sink` too, while it is made.
    pub async fn layer_blob_beside(
        &self,
        layer: &LayerHandle,
        options: &BlobOptions,
        observer: &dyn FetchObserver,
        sink: Option<Box<dyn BlobSink>>,
    ) -> Result<(LayerBlob, Blob)> {
        let _turn = self.inner.archiving.turn((layer.row(), *options)).await;
        for _ in 0..2 {
            if let Some(mut found) = self.known_blob(layer, options)? {
                if let Some(pin) = self.content().pin(&found.descriptor.digest)? {
                    found.local = true;
                    return Ok((found, pin));
                }
                if layer.has_provider() {
                    self.ensure_blob(layer, &found.descriptor, observer).await?;
                    continue;
                }
                // Known, but nobody has it: it can still be made from the directory.
                if layer.is_lazy() {
                    return Err(Error::NoProvider { digest: found.descriptor.digest });
                }
            }
            break;
        }
        if let Some(source) = self.plain_source(layer, options, observer).await? {
            let (store, layer, options) = (self.clone(), layer.clone(), *options);
            return self.pool().run(move || store.convert(&layer, &source, &options, sink)).await?;
        }
        self.ensure_unpacked(&layer.base()?, observer).await?;
        if layer.is_lazy() {
            let alone = self.append(&layer.base()?, layer)?;
            self.ensure_unpacked(&alone, observer).await?;
        }
        let (store, layer, options) = (self.clone(), layer.clone(), *options);
        self.pool().run(move || store.archive(&layer, &options, sink)).await?
    }

    /// An archive whose plain bytes are the wanted ones, in another compression: converting it keeps the diff id.
    async fn plain_source(
        &self,
        layer: &LayerHandle,
        options: &BlobOptions,
        observer: &dyn FetchObserver,
    ) -> Result<Option<LayerBlob>> {
        let blobs = self.layer_blobs(layer)?;
        let same = |blob: &&LayerBlob| blob.epoch == options.epoch;
        if let Some(here) = blobs.iter().filter(same).find(|blob| self.content().has(&blob.descriptor.digest))
        {
            return Ok(Some(here.clone()));
        }
        let Some(remote) = blobs.iter().find(same) else { return Ok(None) };
        if !layer.has_provider() {
            return Ok(None);
        }
        self.ensure_blob(layer, &remote.descriptor, observer).await?;
        Ok(Some(remote.clone()))
    }

    fn convert(
        &self,
        layer: &LayerHandle,
        source: &LayerBlob,
        options: &BlobOptions,
        sink: Option<Box<dyn BlobSink>>,
    ) -> Result<(LayerBlob, Blob)> {
        let digest = &source.descriptor.digest;
        let failed = |error: std::io::Error| Error::layer(digest)(kiln_layer::Error::Read(error));
        let file = BufReader::new(self.content().reader(digest)?);
        let mut plain = decompressor(file).map_err(failed)?;
        let mut out = self.compressor(digest, options, sink)?;
        std::io::copy(&mut plain, &mut out).map_err(failed)?;
        let (pin, diff_id) = packed(out, options, failed)?;
        if diff_id != source.diff_id {
            return Err(Error::DigestMismatch { expected: source.diff_id.clone(), actual: diff_id });
        }
        self.record_blob(layer, options, pin, diff_id)
    }

    fn archive(
        &self,
        layer: &LayerHandle,
        options: &BlobOptions,
        sink: Option<Box<dyn BlobSink>>,
    ) -> Result<(LayerBlob, Blob)> {
        let lower = self.union(&layer.base()?)?;
        let lower = match lower.layer_count() {
            // An empty union has no format of its own.
            0 => kiln_layer::union::Union::open::<&std::path::Path>(&[], self.format())
                .map_err(Error::layer(layer.id()))?,
            _ => lower,
        };
        let mut out = self.compressor(layer.id(), options, sink)?;
        let diff = DiffOptions { epoch: options.epoch, user_xattrs: false };
        write_layer(&layer.dir()?, &lower, &mut out, &diff).map_err(Error::layer(layer.id()))?;
        let failed = |error: std::io::Error| Error::layer(layer.id())(kiln_layer::Error::Write(error));
        let (pin, diff_id) = packed(out, options, failed)?;
        self.record_blob(layer, options, pin, diff_id)
    }

    fn compressor(
        &self,
        layer: impl ToString,
        options: &BlobOptions,
        sink: Option<Box<dyn BlobSink>>,
    ) -> Result<Compressor<Packed>> {
        let ingest = match options.compression.kind {
            // The digest of the plain bytes is that of the blob.
            Compression::Uncompressed => self.content().ingest_unhashed()?,
            _ => self.content().ingest(None)?,
        };
        let packed = Packed { ingest, sink };
        Compressor::new(packed, &options.compression, &self.inner.options.budget).map_err(Error::layer(layer))
    }

    fn record_blob(
        &self,
        layer: &LayerHandle,
        options: &BlobOptions,
        pin: Blob,
        diff_id: Digest,
    ) -> Result<(LayerBlob, Blob)> {
        let compression = options.compression.kind;
        let blob = LayerBlob {
            descriptor: pin.descriptor(compression.oci_media_type()),
            diff_id,
            compression,
            level: Some(options.compression.effective_level()),
            epoch: options.epoch,
            local: true,
        };
        self.inner.db.write("record a layer's blob", |db| {
            db.prepare_cached(
                "INSERT OR REPLACE INTO layer_blobs
                     (layer, digest, size, media_type, compression, level, epoch, diff_id, annotations, local)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, '{}', 1)",
            )?
            .execute(params![
                layer.row(),
                blob.descriptor.digest.as_str(),
                blob.descriptor.size as i64,
                blob.descriptor.media_type,
                compression.as_str(),
                blob.level,
                blob.epoch,
                blob.diff_id.as_str(),
            ])?;
            if blob.epoch.is_none() {
                db.prepare_cached("UPDATE layers SET diff_id = ? WHERE id = ? AND diff_id IS NULL")?
                    .execute(params![blob.diff_id.as_str(), layer.row()])?;
            }
            Ok(())
        })?;
        if blob.epoch.is_none() {
            layer.set_diff_id(&blob.diff_id);
        }
        Ok((blob, pin))
    }

    /// The archives of all layers of a list, made at the same time, the lowest first.
    pub async fn ref_blobs(
        &self,
        reference: &Ref,
        options: &BlobOptions,
        observer: &dyn FetchObserver,
    ) -> Result<Vec<(LayerBlob, Blob)>> {
        let layers = reference.layers();
        futures::future::try_join_all(layers.iter().map(|layer| self.layer_blob(layer, options, observer)))
            .await
    }
}

/// Ends a blob: its pin, and the digest of its plain bytes.
fn packed(
    out: Compressor<Packed>,
    options: &BlobOptions,
    failed: impl Fn(std::io::Error) -> Error,
) -> Result<(Blob, Digest)> {
    let (packed, diff_id) = out.finish().map_err(failed)?;
    let hashed = (options.compression.kind == Compression::Uncompressed).then(|| diff_id.clone());
    Ok((packed.commit(hashed)?, diff_id))
}

impl BlobOptions {
    fn allows(&self, blob: &LayerBlob) -> bool {
        if !self.force {
            return true;
        }
        // The level of what was made elsewhere is not known, and not asked for.
        let level = blob.level.is_none_or(|level| level == self.compression.effective_level());
        blob.compression == self.compression.kind && (level || self.compression.level.is_none())
    }
}

fn blob(row: &Row<'_>) -> rusqlite::Result<LayerBlob> {
    let digest = |index| {
        let text: String = row.get(index)?;
        Digest::parse(&text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, error.into())
        })
    };
    let mut descriptor = Descriptor::new(row.get::<_, String>(2)?, digest(0)?, row.get::<_, i64>(1)? as u64);
    descriptor.annotations = serde_json::from_str(&row.get::<_, String>(7)?).unwrap_or_default();
    Ok(LayerBlob {
        descriptor,
        diff_id: digest(6)?,
        compression: row.get::<_, String>(3)?.parse().unwrap_or_default(),
        level: row.get(4)?,
        epoch: row.get(5)?,
        local: row.get(8)?,
    })
}
