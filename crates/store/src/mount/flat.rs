//! Directories that are made of several layers: blocks of long lists, and whole lists where there is no overlayfs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::store::{Inner, Store};

/// Which layers: those of the ref with this row, but for its lowest ones, so many of them.
pub(super) type Key = (i64, usize);

/// A joined directory; removed when nobody uses it. Its files are links or
/// copies, so it needs none of its layers. It says nothing that its layers do not, so it is in no database,
/// and what a crash leaves is removed at the next start.
#[derive(Debug)]
pub(crate) struct Flat {
    path: PathBuf,
    store: Weak<Inner>,
}

/// The joined directories in use, and some that nobody uses at the moment.
#[derive(Debug)]
pub(crate) struct Flats {
    known: Mutex<HashMap<Key, Weak<Flat>>>,
    kept: Mutex<Vec<Arc<Flat>>>,
    kept_max: usize,
}

impl Flat {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Flats {
    /// Keeps up to `kept_max` of them for the next who needs them.
    pub(crate) fn new(kept_max: usize) -> Self {
        Self { known: Mutex::default(), kept: Mutex::default(), kept_max }
    }

    /// The directory of these layers, if there is one.
    pub(super) fn find(&self, key: Key) -> Option<Arc<Flat>> {
        let known = self.known.lock().unwrap_or_else(|poison| poison.into_inner());
        known.get(&key).and_then(Weak::upgrade)
    }

    /// The directory of these layers, made by `make` once for all who need it at the same time.
    pub(super) fn get(
        &self,
        store: &Store,
        key: Key,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Arc<Flat>> {
        // Held while it is made: whoever needs the same waits, and others are rare. `make` asks for no other one.
        let mut known = self.known.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(flat) = known.get(&key).and_then(Weak::upgrade) {
            return Ok(flat);
        }
        let path = store.inner.root.join("flat").join(LayerId::random().as_str());
        std::fs::create_dir(&path).map_err(Error::io("create", &path))?;
        let flat = Arc::new(Flat { path: path.clone(), store: Arc::downgrade(&store.inner) });
        make(&path)?;
        known.retain(|_, flat| flat.strong_count() > 0);
        known.insert(key, Arc::downgrade(&flat));
        let mut kept = self.kept.lock().unwrap_or_else(|poison| poison.into_inner());
        kept.insert(0, Arc::clone(&flat));
        kept.truncate(self.kept_max);
        Ok(flat)
    }

    /// Lets go of what nobody uses.
    pub(crate) fn clear(&self) {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(|poison| poison.into_inner()));
        drop(kept);
    }
}

impl Drop for Flat {
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade()
            && let Err(error) = store.trash(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "joined layers are left for the next start to remove");
        }
    }
}
