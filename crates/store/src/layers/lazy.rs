//! Layers of which only the descriptor is known.

use std::sync::Arc;

use kiln_oci::{Compression, Descriptor, Digest};
use rusqlite::{OptionalExtension, params};

use super::handle::STATE_LAZY;
use super::{LayerHandle, LayerMeta, Provider};
use crate::error::Result;
use crate::id::LayerId;
use crate::reference::Ref;
use crate::store::{Store, now_ms};

/// A layer that somebody else has.
#[derive(Clone, Debug)]
pub struct LazyLayer {
    /// Its archive.
    pub descriptor: Descriptor,
    /// The digest of the plain archive.
    pub diff_id: Digest,
    /// Who has it.
    pub provider: Arc<dyn Provider>,
    /// What people see of it.
    pub meta: LayerMeta,
}

impl Store {
    /// Takes note of a layer on top of `parent` without fetching it, or finds the one that is known already.
    pub fn lazy_layer(&self, parent: &Ref, layer: LazyLayer) -> Result<LayerHandle> {
        let identity = chain_id(parent, &layer.diff_id);
        let known = match &identity {
            Some(identity) => self.layer_of_identity(&[layer.diff_id.as_str(), identity])?,
            None => self.layer_of_identity(&[layer.diff_id.as_str()])?,
        };
        let handle = match known {
            Some(handle) => handle,
            None => self.insert_lazy(parent, &layer, identity)?,
        };
        if handle.is_lazy() {
            handle.attach_provider(layer.provider);
        }
        self.record_remote_blob(&handle, &layer.descriptor, &layer.diff_id)?;
        Ok(handle)
    }

    fn insert_lazy(&self, parent: &Ref, layer: &LazyLayer, identity: Option<String>) -> Result<LayerHandle> {
        let id = LayerId::random();
        let now = now_ms();
        let row: Option<i64> = self.inner.db.write("record a lazy layer", |db| {
            db.prepare_cached(
                "INSERT INTO layers (name, state, base, identity, diff_id, synced, created_ms, used_ms, uses,
                     description, record_type)
                 VALUES (?, ?, ?, ?, ?, 1, ?, ?, 1, ?, ?)
                 ON CONFLICT (identity) DO NOTHING
                 RETURNING id",
            )?
            .query_row(
                params![
                    id.as_str(),
                    STATE_LAZY,
                    parent.row(),
                    identity,
                    layer.diff_id.as_str(),
                    layer.meta.created_ms.unwrap_or(now),
                    now,
                    layer.meta.description,
                    layer.meta.record_type.as_str(),
                ],
                |row| row.get(0),
            )
            .optional()
        })?;
        match (row, identity) {
            (Some(row), _) => {
                Ok(self.new_handle(row, id, parent.row(), STATE_LAZY, Some(layer.diff_id.clone())))
            }
            // Somebody was faster.
            (None, Some(identity)) => match self.layer_of_identity(&[&identity])? {
                Some(handle) => Ok(handle),
                None => self.insert_lazy(parent, layer, None),
            },
            (None, None) => unreachable!("without an identity there is no conflict"),
        }
    }

    fn layer_of_identity(&self, identities: &[&str]) -> Result<Option<LayerHandle>> {
        for identity in identities {
            let row: Option<i64> = self.inner.db.read("look up a layer", |db| {
                db.prepare_cached("SELECT id FROM layers WHERE identity = ?")?
                    .query_row([identity], |row| row.get(0))
                    .optional()
            })?;
            if let Some(row) = row
                && let Some(handle) = self.layer_of_row(row)?
            {
                return Ok(Some(handle));
            }
        }
        Ok(None)
    }

    /// Takes note of an archive of this layer that a provider has.
    pub fn record_remote_blob(
        &self,
        layer: &LayerHandle,
        descriptor: &Descriptor,
        diff_id: &Digest,
    ) -> Result<()> {
        let compression = Compression::of_media_type(&descriptor.media_type).unwrap_or_default();
        let annotations = serde_json::to_string(&descriptor.annotations).unwrap_or_else(|_| "{}".to_owned());
        let local = self.content().has(&descriptor.digest);
        self.inner.db.write("record a layer's blob", |db| {
            db.prepare_cached(
                "INSERT OR IGNORE INTO layer_blobs
                     (layer, digest, size, media_type, compression, diff_id, annotations, local)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                layer.row(),
                descriptor.digest.as_str(),
                descriptor.size as i64,
                descriptor.media_type,
                compression.as_str(),
                diff_id.as_str(),
                annotations,
                local,
            ])?;
            Ok(())
        })
    }
}

/// The OCI chain id of a layer with this diff id on top of `parent`; `None` where a diff id below is not known.
fn chain_id(parent: &Ref, diff_id: &Digest) -> Option<String> {
    let mut chain: Option<Digest> = None;
    for layer in parent.layers() {
        chain = Some(link(chain, &layer.diff_id()?));
    }
    Some(format!("chain:{}", link(chain, diff_id)))
}

fn link(chain: Option<Digest>, diff_id: &Digest) -> Digest {
    match chain {
        None => diff_id.clone(),
        Some(chain) => Digest::sha256_of(format!("{chain} {diff_id}")),
    }
}
