//! Removing layers nobody needs, and blobs that then belong to nothing.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kiln_oci::Digest;
use rusqlite::ErrorCode;

use super::{Inventory, Row, UsageFilter, UsageRecord};
use crate::error::{Error, Result};
use crate::layers::RecordType;
use crate::recover::release_records;
use crate::store::{Store, now_ms};

/// What may be removed. All sizes are bytes, 0 means "no such bound".
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// Only records that one of these matches; none: all.
    pub filters: Vec<String>,
    /// Also internal and frontend records, and what named images share.
    pub all: bool,
    /// Only records not used for so long.
    pub keep_duration: Duration,
    /// This much is always allowed to stay.
    pub reserved_space: i64,
    /// Remove what is above this.
    pub max_used_space: i64,
    /// Remove until this much of the disk is free.
    pub min_free_space: i64,
}

impl Store {
    /// Removes what `options` allow, and gives each removed record to `removed` as it goes. What something else is
    /// made of goes after that; what is in use stays. Blocking.
    pub fn prune(&self, options: &PruneOptions, removed: &mut dyn FnMut(UsageRecord)) -> Result<()> {
        let filter = UsageFilter::parse(&options.filters)?;
        let inventory = self.inventory()?;
        let total: i64 =
            inventory.rows.iter().filter(|row| !row.record.shared).map(|row| row.record.size).sum();
        let keep = self.bytes_to_keep(total, options)?;
        let mut pruning = Pruning::new(self, inventory, options, filter);
        let mut any = false;
        let mut removed = |record| {
            any = true;
            removed(record);
        };
        match keep {
            None => pruning.remove_all(&mut removed)?,
            Some(keep) => pruning.remove_until(total, keep, &mut removed)?,
        }
        if any {
            // They may hold files that nothing else has any more.
            self.inner.copies.clear();
            self.inner.joins.clear();
        }
        self.collect_blobs()?;
        Ok(())
    }

    /// How much may stay; `None`: there is no bound, everything that matches goes.
    fn bytes_to_keep(&self, total: i64, options: &PruneOptions) -> Result<Option<i64>> {
        if options.max_used_space == 0 && options.reserved_space == 0 && options.min_free_space == 0 {
            return Ok(None);
        }
        let mut keep = options.max_used_space;
        if options.min_free_space != 0 {
            let missing = options.min_free_space - self.free_space()?;
            if missing > 0 {
                let target = total - missing;
                keep = if keep == 0 { target } else { keep.min(target) };
            } else if keep == 0 {
                // Enough is free, nothing has to go.
                keep = total;
            }
        }
        Ok(Some(keep.max(options.reserved_space)).filter(|&keep| keep != 0))
    }

    fn free_space(&self) -> Result<i64> {
        let stat = rustix::fs::statvfs(self.root()).map_err(Error::io("measure", self.root()))?;
        Ok((stat.f_bavail * stat.f_frsize) as i64)
    }

    /// Removes blobs that neither a layer, a named image nor a build's history refers to and that nobody holds.
    /// Gives the number of bytes freed. Blocking.
    pub fn collect_blobs(&self) -> Result<u64> {
        let mut keep: HashSet<Digest> = self.images().blobs()?;
        let digests: Vec<String> = self.inner.db.read("list blobs", |db| {
            db.prepare_cached("SELECT digest FROM layer_blobs UNION SELECT digest FROM history_blobs")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        keep.extend(digests.iter().filter_map(|text| Digest::parse(text).ok()));
        self.content().sweep(&keep)
    }

    /// Removes a layer if nobody uses it and nothing is made of it; whether it is gone.
    fn remove_layer(&self, row: &Row) -> Result<bool> {
        // Under this lock nobody gets a new handle.
        let mut live = self.inner.live();
        if live.holds(row.row) {
            return Ok(false);
        }
        let removed = self.inner.db.write("remove a layer", |db| {
            release_records(db, row.row)?;
            db.prepare_cached("DELETE FROM layers WHERE id = ?")?.execute([row.row])
        });
        match removed {
            Ok(_) => {}
            // Something was made on top of it in between.
            Err(Error::Database { source, .. })
                if source.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        live.remove(row.row);
        drop(live);
        self.inner.trash(&self.inner.layer_dir(&row.record.id))?;
        Ok(true)
    }
}

struct Pruning<'a> {
    store: &'a Store,
    options: &'a PruneOptions,
    filter: UsageFilter,
    /// Lists: parent and layer.
    refs: HashMap<i64, (Option<i64>, i64)>,
    /// What is left, what was made later first.
    rows: Vec<Row>,
    /// How many layers were made on each list itself, and how many needed lists continue it.
    uses: HashMap<i64, usize>,
    /// How many needed lists end with each layer.
    needed: HashMap<i64, usize>,
    cutoff_ms: i64,
}

impl<'a> Pruning<'a> {
    fn new(store: &'a Store, inventory: Inventory, options: &'a PruneOptions, filter: UsageFilter) -> Self {
        let Inventory { mut rows, refs } = inventory;
        rows.reverse();
        let cutoff_ms = now_ms() - options.keep_duration.as_millis() as i64;
        let (uses, needed) = (HashMap::new(), HashMap::new());
        let mut this = Self { store, options, filter, refs, rows, uses, needed, cutoff_ms };
        for index in 0..this.rows.len() {
            this.need(this.rows[index].base);
        }
        this
    }

    /// A layer is made of this list, and so of all that it continues.
    fn need(&mut self, mut list: Option<i64>) {
        while let Some((id, (parent, layer))) = list.and_then(|id| Some((id, *self.refs.get(&id)?))) {
            let uses = self.uses.entry(id).or_default();
            *uses += 1;
            if *uses > 1 {
                return;
            }
            *self.needed.entry(layer).or_default() += 1;
            list = parent;
        }
    }

    /// A layer that was made of this list is gone.
    fn release(&mut self, mut list: Option<i64>) {
        while let Some((id, (parent, layer))) = list.and_then(|id| Some((id, *self.refs.get(&id)?))) {
            let left = self.uses.get_mut(&id).map_or(0, |uses| {
                *uses -= 1;
                *uses
            });
            if left > 0 {
                return;
            }
            if let Some(count) = self.needed.get_mut(&layer) {
                *count -= 1;
            }
            list = parent;
        }
    }

    fn may_go(&self, row: &Row) -> bool {
        let record = &row.record;
        let hidden =
            matches!(record.record_type, RecordType::Internal | RecordType::Frontend) || record.shared;
        let recent = !self.options.keep_duration.is_zero()
            && record.last_used_ms.is_some_and(|used| used > self.cutoff_ms);
        self.needed.get(&row.row).is_none_or(|&count| count == 0)
            && !record.in_use
            && (self.options.all || !hidden)
            && !recent
            && self.filter.matches(record)
    }

    fn remove(&mut self, row: &Row, removed: &mut dyn FnMut(UsageRecord)) -> Result<bool> {
        if !self.store.remove_layer(row)? {
            return Ok(false);
        }
        self.release(row.base);
        removed(row.record.clone());
        Ok(true)
    }

    /// Everything that may go. What is made of something has the higher number, so one pass is enough.
    fn remove_all(&mut self, removed: &mut dyn FnMut(UsageRecord)) -> Result<()> {
        for row in std::mem::take(&mut self.rows) {
            if self.may_go(&row) {
                self.remove(&row, removed)?;
            }
        }
        Ok(())
    }

    /// The least valuable first, until no more than `keep` bytes are left.
    fn remove_until(
        &mut self,
        mut total: i64,
        keep: i64,
        removed: &mut dyn FnMut(UsageRecord),
    ) -> Result<()> {
        loop {
            let (mut going, staying): (Vec<Row>, Vec<Row>) =
                std::mem::take(&mut self.rows).into_iter().partition(|row| self.may_go(row));
            self.rows = staying;
            sort_by_value(&mut going);
            let mut any = false;
            for row in going {
                if total <= keep {
                    return Ok(());
                }
                if self.remove(&row, removed)? {
                    total -= row.record.size;
                    any = true;
                }
            }
            // What those were made of may go now.
            if !any {
                return Ok(());
            }
        }
    }
}

/// Sorts by last use and number of uses, both as their rank among all, added up.
fn sort_by_value(rows: &mut [Row]) {
    fn ranks<K: Ord + Copy + std::hash::Hash>(keys: &[K]) -> (HashMap<K, f64>, f64) {
        let mut sorted = keys.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let count = sorted.len() as f64;
        (sorted.into_iter().enumerate().map(|(rank, key)| (key, rank as f64 + 1.0)).collect(), count.max(1.0))
    }
    let used: Vec<Option<i64>> = rows.iter().map(|row| row.record.last_used_ms).collect();
    let counts: Vec<i64> = rows.iter().map(|row| row.record.usage_count).collect();
    let ((used, used_max), (counts, counts_max)) = (ranks(&used), ranks(&counts));
    let value =
        |row: &Row| used[&row.record.last_used_ms] / used_max + counts[&row.record.usage_count] / counts_max;
    rows.sort_by(|a, b| value(a).total_cmp(&value(b)));
}
