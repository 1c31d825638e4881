//! Handles of layers: what holds one keeps the layer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use kiln_oci::Digest;
use rusqlite::{OptionalExtension, Row, params};

use super::{LayerMeta, Provider, RecordType};
use crate::error::{Error, Result};
use crate::id::{LayerId, RefId};
use crate::reference::Ref;
use crate::store::{Inner, Store, now_ms};

pub(crate) const STATE_RETAINED: i64 = 0;
pub(crate) const STATE_LAZY: i64 = 1;
pub(crate) const STATE_READY: i64 = 2;

/// Whether a layer's directory is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// A retained mutable layer, quiet as long as the handle lives.
    Retained,
    /// Only its descriptor is known.
    Lazy,
    /// Unpacked or made here; never changes again.
    Ready,
}

/// A layer. Cheap to clone; while one handle lives the layer is not removed.
#[derive(Clone)]
pub struct LayerHandle {
    pub(crate) inner: Arc<LayerInner>,
}

pub(crate) struct LayerInner {
    pub row: i64,
    pub id: LayerId,
    pub base: Option<i64>,
    pub state: AtomicI64,
    pub diff_id: Mutex<Option<Digest>>,
    pub providers: Mutex<Vec<Arc<dyn Provider>>>,
    /// Blobs that could not be had when they were wanted last, with the reason.
    pub lost: Mutex<BTreeMap<Digest, String>>,
    pub store: Arc<Inner>,
}

impl LayerHandle {
    pub(crate) fn row(&self) -> i64 {
        self.inner.row
    }

    pub(crate) fn store(&self) -> Store {
        Store::from_inner(Arc::clone(&self.inner.store))
    }

    /// Its name.
    pub fn id(&self) -> &LayerId {
        &self.inner.id
    }

    /// Whether its directory is there.
    pub fn state(&self) -> LayerState {
        match self.inner.state.load(Ordering::Acquire) {
            STATE_RETAINED => LayerState::Retained,
            STATE_LAZY => LayerState::Lazy,
            _ => LayerState::Ready,
        }
    }

    /// Whether its directory is still to come.
    pub fn is_lazy(&self) -> bool {
        self.state() == LayerState::Lazy
    }

    /// Its directory on the host, in overlayfs format.
    pub fn dir(&self) -> Result<PathBuf> {
        if self.is_lazy() {
            return Err(Error::NotUnpacked(self.id().clone()));
        }
        Ok(self.inner.store.layer_fs(self.id()))
    }

    /// What it was made on top of.
    pub fn base(&self) -> Result<Ref> {
        match self.inner.base {
            None => Ok(Ref::scratch()),
            Some(row) => self.store().get_ref(RefId(row))?.ok_or(Error::RefNotFound(RefId(row))),
        }
    }

    /// The digest of its plain archive, where that is known (it was fetched, or archived once).
    pub fn diff_id(&self) -> Option<Digest> {
        self.inner.diff_id.lock().unwrap_or_else(|poison| poison.into_inner()).clone()
    }

    pub(crate) fn set_diff_id(&self, diff_id: &Digest) {
        *self.inner.diff_id.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(diff_id.clone());
    }

    /// What people see of it.
    pub fn meta(&self) -> Result<LayerMeta> {
        self.inner.store.db.read("look up a layer", |db| {
            db.prepare_cached("SELECT description, record_type, created_ms FROM layers WHERE id = ?")?
                .query_row([self.row()], |row| {
                    Ok(LayerMeta {
                        description: row.get(0)?,
                        record_type: RecordType::parse(&row.get::<_, String>(1)?),
                        created_ms: Some(row.get(2)?),
                    })
                })
        })
    }

    /// Changes what people see of it.
    pub fn set_meta(&self, description: &str, record_type: RecordType) -> Result<()> {
        self.inner.store.db.write("describe a layer", |db| {
            db.prepare_cached("UPDATE layers SET description = ?, record_type = ? WHERE id = ?")?
                .execute(params![description, record_type.as_str(), self.row()])?;
            Ok(())
        })
    }

    /// Notes that it was used now; written with the next change or within seconds.
    pub fn touch(&self) {
        self.inner.store.touch(self.row(), now_ms());
    }

    /// Says where its bytes are to be had. The latest is asked first.
    pub fn attach_provider(&self, provider: Arc<dyn Provider>) {
        let mut providers = self.inner.providers.lock().unwrap_or_else(|poison| poison.into_inner());
        providers.retain(|known| !Arc::ptr_eq(known, &provider));
        providers.insert(0, provider);
    }

    /// Whether somebody is known who has its bytes.
    pub fn has_provider(&self) -> bool {
        !self.providers().is_empty()
    }

    pub(crate) fn providers(&self) -> Vec<Arc<dyn Provider>> {
        let mut providers = self.inner.providers.lock().unwrap_or_else(|poison| poison.into_inner());
        providers.retain(|provider| !provider.is_gone());
        providers.clone()
    }

    /// Why a blob of this layer could not be had when it was wanted last; `None` if it could, or was never wanted.
    pub fn lost_blob(&self, digest: &Digest) -> Option<String> {
        self.inner.lost.lock().unwrap_or_else(|poison| poison.into_inner()).get(digest).cloned()
    }

    /// Remembers how fetching a blob went.
    pub(crate) fn note_fetch<T>(&self, digest: &Digest, done: &Result<T>) {
        let mut lost = self.inner.lost.lock().unwrap_or_else(|poison| poison.into_inner());
        match done {
            Ok(_) => drop(lost.remove(digest)),
            Err(error) if error.is_lost_blob() => {
                let reason = match std::error::Error::source(error) {
                    Some(cause) => format!("{error}: {cause}"),
                    None => error.to_string(),
                };
                lost.insert(digest.clone(), reason);
            }
            Err(_) => {}
        }
    }
}

impl PartialEq for LayerHandle {
    fn eq(&self, other: &Self) -> bool {
        self.row() == other.row()
    }
}

impl Eq for LayerHandle {}

impl fmt::Debug for LayerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerHandle").field("id", self.id()).field("state", &self.state()).finish()
    }
}

impl Store {
    /// A layer by its name.
    pub fn layer(&self, id: &LayerId) -> Result<Option<LayerHandle>> {
        let row: Option<i64> = self.inner.db.read("look up a layer", |db| {
            db.prepare_cached("SELECT id FROM layers WHERE name = ?")?
                .query_row([id.as_str()], |row| row.get(0))
                .optional()
        })?;
        match row {
            Some(row) => self.layer_of_row(row),
            None => Ok(None),
        }
    }

    /// A layer by its row, once for all who hold it.
    pub(crate) fn layer_of_row(&self, row: i64) -> Result<Option<LayerHandle>> {
        // Looked up under the lock, which whoever removes a layer holds too.
        let mut live = self.inner.live();
        if let Some(inner) = live.get(row) {
            return Ok(Some(LayerHandle { inner }));
        }
        let found = self.inner.db.read("look up a layer", |db| {
            db.prepare_cached("SELECT name, base, state, diff_id FROM layers WHERE id = ?")?
                .query_row([row], |found| self.layer_from(row, found))
                .optional()
        })?;
        if let Some(handle) = &found {
            live.insert(row, &handle.inner);
        }
        Ok(found)
    }

    fn layer_from(&self, row: i64, found: &Row<'_>) -> rusqlite::Result<LayerHandle> {
        let diff_id: Option<String> = found.get(3)?;
        Ok(LayerHandle {
            inner: Arc::new(LayerInner {
                row,
                id: LayerId::new(found.get::<_, String>(0)?),
                base: found.get(1)?,
                state: AtomicI64::new(found.get(2)?),
                diff_id: Mutex::new(diff_id.and_then(|text| Digest::parse(&text).ok())),
                providers: Mutex::default(),
                lost: Mutex::default(),
                store: Arc::clone(&self.inner),
            }),
        })
    }

    /// A handle for a layer that this call's caller has just made.
    pub(crate) fn new_handle(
        &self,
        row: i64,
        id: LayerId,
        base: Option<i64>,
        state: i64,
        diff_id: Option<Digest>,
    ) -> LayerHandle {
        let inner = Arc::new(LayerInner {
            row,
            id,
            base,
            state: AtomicI64::new(state),
            diff_id: Mutex::new(diff_id),
            providers: Mutex::default(),
            lost: Mutex::default(),
            store: Arc::clone(&self.inner),
        });
        self.inner.live().insert(row, &inner);
        LayerHandle { inner }
    }
}
