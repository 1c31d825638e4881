//! Lists of layers joined into one directory: where there are too many for overlayfs, or there is no overlayfs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use kiln_layer::changes::write_copy;
use kiln_layer::tree::CopyHow;

use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::reference::Ref;
use crate::store::{Inner, Store};

/// Layers that stay on their own above those joined; overlayfs takes 500.
const LAYERS_MAX: usize = 400;

/// How many directories that nobody uses at the moment are kept for the next.
const KEPT_MAX: usize = 4;

/// How many of `depth` layers are joined: always the same ones for lists that begin alike.
pub(super) fn joined_depth(depth: usize) -> usize {
    if depth <= LAYERS_MAX { 0 } else { (depth - 1) / LAYERS_MAX * LAYERS_MAX }
}

/// A joined directory; removed when nobody uses it. Its files are links or
/// copies, so it needs none of its layers. It says nothing that its layers do not, so it is in no database,
/// and what a crash leaves is removed at the next start.
#[derive(Debug)]
pub(crate) struct Flat {
    path: PathBuf,
    store: Weak<Inner>,
}

/// The joined directories in use, by ref.
#[derive(Debug, Default)]
pub(crate) struct Flats {
    known: Mutex<HashMap<i64, Weak<Flat>>>,
    kept: Mutex<Vec<Arc<Flat>>>,
}

impl Flat {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Flats {
    /// The joined directory of a ref, made once for all who need it at the same time.
    pub(super) fn get(&self, store: &Store, reference: &Ref, how: CopyHow) -> Result<Arc<Flat>> {
        // Held while it is made: whoever needs the same waits, and others are rare.
        let mut known = self.known.lock().unwrap_or_else(|poison| poison.into_inner());
        let row = reference.row().unwrap_or(0);
        if let Some(flat) = known.get(&row).and_then(Weak::upgrade) {
            return Ok(flat);
        }
        let path = store.inner.root.join("flat").join(LayerId::random().as_str());
        std::fs::create_dir(&path).map_err(Error::io("create", &path))?;
        let flat = Arc::new(Flat { path: path.clone(), store: Arc::downgrade(&store.inner) });
        write_copy(&store.union(reference)?, &path, how).map_err(Error::layer(path.display()))?;
        known.retain(|_, flat| flat.strong_count() > 0);
        known.insert(row, Arc::downgrade(&flat));
        let mut kept = self.kept.lock().unwrap_or_else(|poison| poison.into_inner());
        kept.insert(0, Arc::clone(&flat));
        kept.truncate(KEPT_MAX);
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
