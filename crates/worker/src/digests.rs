//! Content digests of refs: the tables of their layers, made when first needed, kept in memory for a while and with the
//! layers for ever.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_store::{LayerHandle, LayerId, LayerState, Ref, Store};

use crate::contenthash::{LayerTable, Selector, Tree, checksum, empty_tree, scan};
use crate::encode::Hash;
use crate::error::{Error, Result};

/// Key of a table among the values of its layer.
const TABLE_KEY: &str = "content-digests";
/// Paths of all tables in memory. One takes two hundred bytes or so.
const RECORDS_MAX: usize = 100_000;
/// Trees in memory: builds look at few refs, again and again.
const TREES_MAX: usize = 8;

pub struct Digests {
    store: Store,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Latest last.
    tables: VecDeque<(LayerId, Arc<LayerTable>)>,
    /// With the layers that each shows.
    trees: VecDeque<(Vec<LayerId>, Arc<Tree>)>,
}

impl Kept {
    /// The table of a layer. One that is not kept by itself any more may still be part of a tree, which counts for layers that never
    /// change alone.
    fn table(&self, layer: &LayerHandle) -> Option<Arc<LayerTable>> {
        if let Some((_, table)) = self.tables.iter().find(|(id, _)| id == layer.id()) {
            return Some(table.clone());
        }
        if layer.state() != LayerState::Ready {
            return None;
        }
        self.trees.iter().rev().find_map(|(layers, tree)| {
            let index = layers.iter().position(|id| id == layer.id())?;
            tree.tables().get(index).cloned()
        })
    }
}

impl Digests {
    pub fn new(store: Store) -> Digests {
        Digests { store, kept: Mutex::default() }
    }

    /// The digest of what `selectors` pick of an unpacked ref. Blocks.
    ///
    /// # Errors
    /// A path that is not there, and what the file system says.
    pub fn checksum(&self, reference: &Ref, selectors: &[Selector]) -> Result<Hash> {
        let layers = reference.layers();
        let tree = self.tree(&layers)?;
        let dirs = layers.iter().map(LayerHandle::dir).collect::<std::result::Result<Vec<_>, _>>()?;
        let result = checksum(&tree, &dirs, selectors, &self.store.options().budget);
        for (layer, table) in layers.iter().zip(tree.tables()) {
            // What changes is described by whoever changes it, each time.
            if layer.state() == LayerState::Ready && table.take_unsaved() {
                self.store.values().set(layer, TABLE_KEY, &table.encode(), None)?;
            }
        }
        let name = || reference.id().map_or_else(|| "scratch".to_owned(), |id| id.to_string());
        result.map_err(|source| Error::Checksum { reference: name(), source })
    }

    /// Says what a layer holds, instead of having it looked at.
    pub fn put(&self, layer: &LayerId, table: Arc<LayerTable>) {
        let mut kept = self.kept();
        kept.tables.retain(|(id, _)| id != layer);
        // What showed its table before would never be asked for again.
        kept.trees.retain(|(layers, _)| !layers.contains(layer));
        kept.tables.push_back((layer.clone(), table));
        let mut records: usize = kept.tables.iter().map(|(_, table)| table.records().len()).sum();
        while records > RECORDS_MAX && kept.tables.len() > 1 {
            let dropped = kept.tables.pop_front().expect("there are at least two");
            records -= dropped.1.records().len();
        }
    }

    fn tree(&self, layers: &[LayerHandle]) -> Result<Arc<Tree>> {
        if layers.is_empty() {
            return Ok(Arc::new(empty_tree()));
        }
        let tables = layers.iter().map(|layer| self.table(layer)).collect::<Result<Vec<_>>>()?;
        let same = |tree: &Arc<Tree>| {
            tree.tables().len() == tables.len()
                && tree.tables().iter().zip(&tables).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if let Some((_, tree)) = self.kept().trees.iter().find(|(_, tree)| same(tree)) {
            return Ok(tree.clone());
        }
        let tree = Arc::new(Tree::new(tables));
        let mut kept = self.kept();
        kept.trees.push_back((layers.iter().map(|layer| layer.id().clone()).collect(), tree.clone()));
        if kept.trees.len() > TREES_MAX {
            kept.trees.pop_front();
        }
        Ok(tree)
    }

    fn table(&self, layer: &LayerHandle) -> Result<Arc<LayerTable>> {
        if let Some(table) = self.kept().table(layer) {
            return Ok(table);
        }
        let stored = self.store.values().get(layer, TABLE_KEY)?;
        let table = match stored.map(|bytes| LayerTable::decode(&bytes)) {
            Some(Ok(table)) => table,
            Some(Err(_)) | None => scan(&layer.dir()?, self.store.format(), &self.store.options().budget)?,
        };
        let table = Arc::new(table);
        self.put(layer.id(), table.clone());
        Ok(table)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
