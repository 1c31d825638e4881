//! Layers whose files are in other layers too, as links.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use kiln_store::{LayerHandle, LayerId, Ref, RefId, Store};

use crate::error::Result;

/// Among the values of a layer: the layers whose files it has links to.
const LINKS_KEY: &str = "linked-layers";

/// Lists whose origins are kept for the next step.
const LISTS_MAX: usize = 16;

/// The layers whose files a layer has: itself, and those that it links to.
pub fn origins(store: &Store, layer: &LayerHandle) -> Result<Vec<LayerId>> {
    let value = store.values().get(layer, LINKS_KEY)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&value);
    let linked = text.split('\n').filter(|id| !id.is_empty()).map(LayerId::new);
    Ok(linked.chain([layer.id().clone()]).collect())
}

/// What is kept with a new layer that links to these, if it does to any.
pub fn value(mut linked: Vec<LayerId>) -> Option<(&'static str, Vec<u8>)> {
    linked.sort();
    linked.dedup();
    let text: Vec<&str> = linked.iter().map(LayerId::as_str).collect();
    (!text.is_empty()).then(|| (LINKS_KEY, text.join("\n").into_bytes()))
}

/// The origins of whole lists. Those of the last lists are kept: a chain of copies asks for a list that is one layer longer each time.
#[derive(Default)]
pub struct Lists(Mutex<VecDeque<(RefId, HashSet<LayerId>)>>);

impl Lists {
    /// Gives `look` the layers whose files `list` has.
    pub fn of<T>(&self, store: &Store, list: &Ref, look: impl FnOnce(&HashSet<LayerId>) -> T) -> Result<T> {
        let Some(id) = list.id() else { return Ok(look(&HashSet::new())) };
        let all = match self.take(id) {
            Some(all) => all,
            None => {
                let (mut all, layers) = match list.parent().id().and_then(|parent| self.take(parent)) {
                    Some(below) => (below, list.top().cloned().into_iter().collect()),
                    None => (HashSet::new(), list.layers()),
                };
                for layer in layers {
                    all.extend(origins(store, &layer)?);
                }
                all
            }
        };
        let result = look(&all);
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists.truncate(LISTS_MAX - 1);
        lists.push_front((id, all));
        Ok(result)
    }

    fn take(&self, id: RefId) -> Option<HashSet<LayerId>> {
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = lists.iter().position(|(known, _)| *known == id)?;
        lists.remove(at).map(|(_, all)| all)
    }
}
