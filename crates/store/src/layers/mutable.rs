//! Layers being made.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kiln_layer::Usage;
use kiln_layer::tree::CopyHow;
use kiln_layer::union::{Node, Union};
use kiln_oci::Digest;
use rusqlite::params;

use super::handle::STATE_READY;
use super::{LayerHandle, LayerMeta};
use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::mount::MountSource;
use crate::reference::Ref;
use crate::store::{Store, now_ms};

/// A new layer's directory, to be filled and committed. Dropping it removes it.
#[derive(Debug)]
pub struct MutableLayer {
    store: Store,
    id: LayerId,
    parent: Ref,
    meta: LayerMeta,
    fs: PathBuf,
    done: bool,
}

/// What the maker of a layer already knows about it.
#[derive(Clone, Debug, Default)]
pub struct CommitInfo {
    /// What it takes on disk; measured when asked for otherwise.
    pub usage: Option<Usage>,
    /// The digest of its plain archive.
    pub diff_id: Option<Digest>,
}

impl Store {
    /// Begins a layer on top of `parent`. Nothing is recorded until it is committed.
    pub fn new_layer(&self, parent: &Ref, meta: LayerMeta) -> Result<MutableLayer> {
        let id = LayerId::random();
        let fs = self.inner.make_layer_dirs(&id)?;
        Ok(MutableLayer { store: self.clone(), id, parent: parent.clone(), meta, fs, done: false })
    }
}

impl MutableLayer {
    /// Its name.
    pub fn id(&self) -> &LayerId {
        &self.id
    }

    /// What it is made on top of.
    pub fn parent(&self) -> &Ref {
        &self.parent
    }

    /// Its directory on the host. With overlayfs: in overlayfs format; whoever writes here makes whiteouts himself.
    pub fn dir(&self) -> &Path {
        &self.fs
    }

    /// The union of its parent's layers, all of which must be unpacked.
    pub fn lower(&self) -> Result<Union> {
        self.store.union(&self.parent)
    }

    /// The root of that union, by the parent's topmost layer alone: that is the one which shows. `None` where there is no layer below.
    pub fn lower_root(&self) -> Result<Option<Node>> {
        let Some(top) = self.parent.top() else { return Ok(None) };
        let dir = top.dir()?;
        let failed = Error::layer(dir.display());
        Union::open(&[&dir], self.store.format()).and_then(|union| union.root()).map_err(failed)
    }

    /// What to mount to write into it through the parent's view. Parents must be unpacked.
    pub fn mount_source(&self) -> Result<MountSource> {
        self.store.writable_source(&self.parent, &self.id, false)
    }

    /// Makes it a layer that never changes again, on top of its parent's list.
    pub fn commit(self, info: CommitInfo) -> Result<Ref> {
        let parent = self.parent.clone();
        let store = self.store.clone();
        let layer = self.commit_layer(info)?;
        store.append(&parent, &layer)
    }

    /// Makes it a layer that never changes again.
    pub fn commit_layer(mut self, info: CommitInfo) -> Result<LayerHandle> {
        let inner = &self.store.inner;
        let dir = inner.layer_dir(&self.id);
        self.take_native()?;
        // What overlayfs needs only while it is mounted.
        inner.trash(&dir.join("work"))?;
        let now = now_ms();
        let row = inner.db.write("commit a layer", |db| {
            db.prepare_cached(
                "INSERT INTO layers (name, state, base, diff_id, bytes, inodes, created_ms, used_ms, uses,
                     description, record_type)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?)",
            )?
            .execute(params![
                self.id.as_str(),
                STATE_READY,
                self.parent.row(),
                info.diff_id.as_ref().map(Digest::as_str),
                info.usage.map(|usage| usage.bytes as i64),
                info.usage.map(|usage| usage.inodes as i64),
                self.meta.created_ms.unwrap_or(now),
                now,
                self.meta.description,
                self.meta.record_type.as_str(),
            ])?;
            Ok(db.last_insert_rowid())
        })?;
        self.done = true;
        inner.sync.layer_made();
        Ok(self.store.new_handle(row, self.id.clone(), self.parent.row(), STATE_READY, info.diff_id))
    }

    /// Without overlayfs the step wrote into a full copy: what it changed becomes the layer.
    fn take_native(&self) -> Result<()> {
        let merged = self.store.inner.layer_dir(&self.id).join("merged");
        if !merged.exists() {
            return Ok(());
        }
        let failed = Error::layer(&self.id);
        let format = self.store.format();
        let upper = Union::open(&[&merged], format).map_err(Error::layer(&self.id))?;
        kiln_layer::changes::write_diff(&self.lower()?, &upper, &self.fs, CopyHow::Link).map_err(failed)?;
        self.store.inner.trash(&merged)
    }

    /// Its last name under the store, for messages.
    pub fn name(&self) -> &OsStr {
        OsStr::new(self.id.as_str())
    }
}

impl Drop for MutableLayer {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = self.store.inner.trash(&self.store.inner.layer_dir(&self.id))
        {
            tracing::warn!(layer = %self.id, %error, "unfinished layer is left for the next start to remove");
        }
    }
}
