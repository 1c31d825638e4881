//! Content digests of refs: the tables of their layers, made when first needed, kept in memory for a while and with the
//! layers for ever.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_store::{LayerHandle, LayerId, LayerState, Ref, Store};

use crate::contenthash::{LayerTable, Scratch, Selector, StoredError, Tree, checksum, empty_tree, scan};
use crate::encode::Hash;
use crate::error::{Error, Result};

/// Key of a table among the values of its layer.
const TABLE_KEY: &str = "content-digests";
/// Memory of all tables that are kept: those of ten contexts of 20,000 files, or of a hundred layers that are too large for it.
const BYTES_MAX: usize = 16 << 20;
/// What a table takes besides its own memory: its places here. A step that makes one file has a table of two paths.
const BYTES_PER_TABLE: usize = 256;

pub struct Digests {
    store: Store,
    scratch: Scratch,
    kept: Mutex<Tables>,
}

/// Tables by layer. Builds of many steps have many of them, so nothing here walks them all.
#[derive(Default)]
struct Tables {
    by_layer: HashMap<LayerId, (u64, Arc<LayerTable>)>,
    /// The layers in the order in which their tables were last asked for.
    order: BTreeMap<u64, LayerId>,
    next: u64,
    bytes: usize,
}

impl Tables {
    fn get(&mut self, layer: &LayerId) -> Option<Arc<LayerTable>> {
        let (place, table) = self.by_layer.get_mut(layer)?;
        if let Some(id) = self.order.remove(place) {
            *place = self.next;
            self.order.insert(self.next, id);
            self.next += 1;
        }
        Some(Arc::clone(table))
    }

    /// Puts a table in place of the one before, and forgets those that nobody asked for lately if there are too many.
    fn put(&mut self, layer: &LayerId, table: Arc<LayerTable>) {
        self.remove(layer);
        self.bytes += cost(&table);
        self.by_layer.insert(layer.clone(), (self.next, table));
        self.order.insert(self.next, layer.clone());
        self.next += 1;
        while self.bytes > BYTES_MAX
            && self.order.len() > 1
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, layer: &LayerId) {
        if let Some((place, table)) = self.by_layer.remove(layer) {
            self.order.remove(&place);
            self.bytes -= cost(&table);
        }
    }
}

/// It does not change while the table lives.
fn cost(table: &LayerTable) -> usize {
    table.memory_bytes() + BYTES_PER_TABLE
}

impl Digests {
    pub fn new(store: Store) -> Digests {
        let scratch = Scratch::new(store.scratch_dir());
        Digests { store, scratch, kept: Mutex::default() }
    }

    /// Where long tables are made.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The digest of what `selectors` pick of an unpacked ref. Blocks.
    ///
    /// # Errors
    /// A path that is not there, and what the file system says.
    pub fn checksum(&self, reference: &Ref, selectors: &[Selector]) -> Result<Hash> {
        let layers = reference.layers();
        let tree = self.tree(&layers)?;
        let dirs = layers.iter().map(LayerHandle::dir).collect::<std::result::Result<Vec<_>, _>>()?;
        let result = checksum(&tree, &dirs, selectors, &self.store.options().budget, &self.scratch);
        for (layer, table) in layers.iter().zip(tree.tables()) {
            // What changes is described by whoever changes it, each time.
            if layer.state() == LayerState::Ready && table.take_unsaved() {
                let stored = table.encode(&self.scratch)?;
                self.store.values().set_spool(layer, TABLE_KEY, &stored, None)?;
            }
        }
        let name = || reference.id().map_or_else(|| "scratch".to_owned(), |id| id.to_string());
        result.map_err(|source| Error::Checksum { reference: name(), source })
    }

    /// Says what a layer holds, instead of having it looked at.
    pub fn put(&self, layer: &LayerId, table: Arc<LayerTable>) {
        self.kept().put(layer, table);
    }

    fn tree(&self, layers: &[LayerHandle]) -> Result<Tree> {
        if layers.is_empty() {
            return Ok(empty_tree(&self.scratch)?);
        }
        Ok(Tree::new(layers.iter().map(|layer| self.table(layer)).collect::<Result<_>>()?))
    }

    fn table(&self, layer: &LayerHandle) -> Result<Arc<LayerTable>> {
        if let Some(table) = self.kept().get(layer.id()) {
            return Ok(table);
        }
        let stored = self.store.values().get_spool(layer, TABLE_KEY, self.scratch.spools())?;
        let decode = |stored| LayerTable::decode(&stored, &self.scratch);
        let table = match stored.map(decode) {
            Some(Ok(table)) => table,
            Some(Err(StoredError::Table(error))) => return Err(error.into()),
            Some(Err(StoredError::Bad)) | None => {
                let (dir, budget) = (layer.dir()?, &self.store.options().budget);
                scan(&dir, self.store.format(), budget, &self.scratch)?
            }
        };
        let table = Arc::new(table);
        self.put(layer.id(), table.clone());
        Ok(table)
    }

    fn kept(&self) -> MutexGuard<'_, Tables> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenthash::{Record, RecordKind, TableBuilder};

    fn table(paths: usize) -> Arc<LayerTable> {
        let mut builder = TableBuilder::new(&Scratch::new(std::path::Path::new("/nowhere")));
        for number in 0..paths {
            let (path, header) = (format!("{number:08}"), &Hash::default());
            let record = Record { path: path.as_bytes(), kind: RecordKind::File, header, content: None };
            builder.push(&record).unwrap();
        }
        Arc::new(builder.finish().unwrap())
    }

    #[test]
    fn tables_that_nobody_asked_for_go_first_and_a_new_one_replaces_the_old() {
        let layer = |number: usize| LayerId::new(format!("l{number}"));
        let mut tables = Tables::default();
        let fit = BYTES_MAX / cost(&table(1));
        (0..fit).for_each(|number| tables.put(&layer(number), table(1)));
        assert!(tables.get(&layer(0)).is_some());
        // The second is now the one that was not asked for the longest, and comes again.
        let again = table(1);
        tables.put(&layer(1), again.clone());
        tables.put(&layer(fit), table(1));
        assert!(tables.get(&layer(2)).is_none());
        assert!(tables.get(&layer(0)).is_some());
        assert!(Arc::ptr_eq(&tables.get(&layer(1)).unwrap(), &again));
        assert_eq!((tables.by_layer.len(), tables.order.len()), (fit, fit));
        assert_eq!(tables.bytes, fit * cost(&again));
        // One that takes much lets many go.
        let large = table(20_000);
        tables.put(&layer(fit + 1), large.clone());
        assert!(tables.by_layer.len() <= fit - cost(&large) / cost(&again) + 1);
        assert!(tables.bytes <= BYTES_MAX);
        assert!(tables.get(&layer(fit + 1)).is_some());
        assert_eq!(tables.by_layer.len(), tables.order.len());
    }
}
