//! The layers that somebody holds, so that all who ask for one hold the same.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// How many entries there are at least before they are looked through for those that nobody holds.
const SWEEP_MIN: usize = 1024;

/// What is held, by the row of the database. An entry that nobody holds is of no use but takes memory, as a layer does; they are taken out
/// whenever there may be more of them than of others.
#[derive(Debug)]
pub(crate) struct Live<T> {
    by_row: HashMap<i64, Weak<T>>,
    sweep_at: usize,
}

impl<T> Default for Live<T> {
    fn default() -> Self {
        Live { by_row: HashMap::new(), sweep_at: SWEEP_MIN }
    }
}

impl<T> Live<T> {
    pub fn get(&self, row: i64) -> Option<Arc<T>> {
        self.by_row.get(&row).and_then(Weak::upgrade)
    }

    pub fn holds(&self, row: i64) -> bool {
        self.by_row.get(&row).is_some_and(|held| held.strong_count() > 0)
    }

    pub fn insert(&mut self, row: i64, held: &Arc<T>) {
        if self.by_row.len() >= self.sweep_at {
            self.sweep();
        }
        self.by_row.insert(row, Arc::downgrade(held));
    }

    pub fn remove(&mut self, row: i64) {
        self.by_row.remove(&row);
    }

    /// Takes out what nobody holds.
    pub fn sweep(&mut self) {
        self.by_row.retain(|_, held| held.strong_count() > 0);
        self.by_row.shrink_to(SWEEP_MIN);
        self.sweep_at = SWEEP_MIN.max(self.by_row.len() * 2);
    }

    /// The rows of all that is held.
    pub fn rows(&self) -> impl Iterator<Item = i64> {
        self.by_row.iter().filter(|(_, held)| held.strong_count() > 0).map(|(row, _)| *row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_does_not_pile_up() {
        let mut live = Live::default();
        let kept: Vec<Arc<i64>> = (0..10).map(Arc::new).collect();
        kept.iter().for_each(|held| live.insert(**held, held));
        (10..100_000).for_each(|row| live.insert(row, &Arc::new(row)));
        assert!(live.by_row.len() <= SWEEP_MIN);
        assert!(kept.iter().all(|held| live.get(**held).is_some_and(|found| Arc::ptr_eq(&found, held))));
        assert!(live.holds(9) && !live.holds(10) && live.get(10).is_none());
        live.sweep();
        let mut rows: Vec<i64> = live.rows().collect();
        rows.sort();
        assert_eq!((rows, live.by_row.len()), ((0..10).collect(), 10));
    }
}
