//! Layers being made.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use kiln_layer::Usage;
use kiln_layer::tree::CopyHow;
use kiln_layer::union::{Node, Union};
use kiln_oci::Digest;
use rusqlite::{Transaction, params};

use super::handle::STATE_READY;
use super::{LayerHandle, LayerMeta};
use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::mount::MountSource;
use crate::reference::Ref;
use crate::store::{Store, insert_ref, now_ms};
use crate::values::insert_value;

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
    /// What is kept with it from the start, by key (see [`crate::Values`]).
    pub values: Vec<(&'static str, Vec<u8>)>,
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
    pub fn commit(mut self, info: CommitInfo) -> Result<Ref> {
        self.settle()?;
        let inner = &self.store.inner;
        let (row, list) = inner.db.write("commit a layer", |db| {
            let row = self.insert(db, &info)?;
            Ok((row, insert_ref(db, self.parent.row(), row)?))
        })?;
        let layer = self.committed(row, info);
        Ok(self.store.inner.extend(&self.parent, layer, list))
    }

    /// Makes it a layer that never changes again.
    pub fn commit_layer(mut self, info: CommitInfo) -> Result<LayerHandle> {
        self.settle()?;
        let row = self.store.inner.db.write("commit a layer", |db| self.insert(db, &info))?;
        Ok(self.committed(row, info))
    }

    /// Leaves of its directory what the layer is.
    fn settle(&self) -> Result<()> {
        self.take_native()?;
        // What overlayfs needs only while it is mounted.
        let inner = &self.store.inner;
        inner.trash(&inner.layer_dir(&self.id).join("work"))
    }

    fn insert(&self, db: &Transaction<'_>, info: &CommitInfo) -> rusqlite::Result<i64> {
        let now = now_ms();
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
        let row = db.last_insert_rowid();
        for (key, value) in &info.values {
            insert_value(db, row, key, value)?;
        }
        Ok(row)
    }

    fn committed(&mut self, row: i64, info: CommitInfo) -> LayerHandle {
        self.done = true;
        self.store.inner.sync.layer_made();
        self.store.new_handle(row, self.id.clone(), self.parent.row(), STATE_READY, info.diff_id)
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
