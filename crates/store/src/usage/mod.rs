//! What takes how much disk, and removing what nobody needs.

mod filter;
mod prune;

use std::collections::{HashMap, HashSet};

use kiln_layer::tree::disk_usage;
use kiln_oci::Digest;
use rusqlite::params;

pub use filter::UsageFilter;
pub use prune::PruneOptions;

use crate::error::Result;
use crate::id::LayerId;
use crate::layers::{RecordType, STATE_LAZY, STATE_RETAINED};
use crate::store::Store;

/// One line of `du`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    /// The layer.
    pub id: LayerId,
    /// What it was made on top of.
    pub parents: Vec<LayerId>,
    /// A cache mount, a local context or the like.
    pub mutable: bool,
    /// Something running uses it.
    pub in_use: bool,
    /// A named image has it too.
    pub shared: bool,
    /// Bytes on disk: its directory and its archives.
    pub size: i64,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub last_used_ms: Option<i64>,
    /// How often it was used.
    pub usage_count: i64,
    /// What made it.
    pub description: String,
    /// What kind of record it is.
    pub record_type: RecordType,
}

/// What `du` is asked for.
#[derive(Clone, Debug, Default)]
pub struct DiskUsageOptions {
    /// Only records that one of these matches; none: all.
    pub filters: Vec<String>,
    /// Only records not used within this time.
    pub age_limit: Option<std::time::Duration>,
}

/// A record with what pruning needs to know.
struct Row {
    row: i64,
    /// The list it was made on top of.
    base: Option<i64>,
    record: UsageRecord,
}

/// All layers and how they lie on top of each other.
struct Inventory {
    rows: Vec<Row>,
    /// The lists: parent and layer.
    refs: HashMap<i64, (Option<i64>, i64)>,
}

impl Store {
    /// What takes how much disk. Measures layers that nobody has measured yet: blocking.
    pub fn disk_usage(&self, options: &DiskUsageOptions) -> Result<Vec<UsageRecord>> {
        let filter = UsageFilter::parse(&options.filters)?;
        let cutoff = options.age_limit.map(|age| crate::store::now_ms() - age.as_millis() as i64);
        let records = self.inventory()?.rows.into_iter().map(|row| row.record);
        Ok(records
            .filter(|record| filter.matches(record))
            .filter(|record| {
                cutoff.is_none_or(|cutoff| record.last_used_ms.is_none_or(|used| used <= cutoff))
            })
            .collect())
    }

    fn inventory(&self) -> Result<Inventory> {
        self.inner.sync.flush_uses()?;
        let refs: HashMap<i64, (Option<i64>, i64)> = self.inner.db.read("list refs", |db| {
            db.prepare_cached("SELECT id, parent, layer FROM refs")?
                .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?
                .collect()
        })?;
        let blobs: Vec<(i64, String, i64)> = self.inner.db.read("list blobs", |db| {
            db.prepare_cached("SELECT layer, digest, size FROM layer_blobs WHERE local = 1")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        let imaged = self.images().blobs()?;
        let (mut blob_bytes, mut shared) = (HashMap::<i64, i64>::new(), HashSet::new());
        for (layer, digest, size) in blobs {
            *blob_bytes.entry(layer).or_default() += size;
            if Digest::parse(&digest).is_ok_and(|digest| imaged.contains(&digest)) {
                shared.insert(layer);
            }
        }
        let used: HashSet<i64> = {
            let mut live = self.inner.live();
            live.sweep();
            live.rows().collect()
        };
        let mut unmeasured = Vec::new();
        let mut rows: Vec<Row> = self.inner.db.read("list layers", |db| {
            db.prepare_cached(
                "SELECT id, name, state, base, bytes, created_ms, used_ms, uses, description, record_type
                 FROM layers ORDER BY id",
            )?
            .query_map([], |found| {
                let row: i64 = found.get(0)?;
                let state: i64 = found.get(2)?;
                let bytes: Option<i64> = found.get(4)?;
                if bytes.is_none() && state != STATE_LAZY {
                    unmeasured.push(row);
                }
                Ok(Row {
                    row,
                    base: found.get(3)?,
                    record: UsageRecord {
                        id: LayerId::new(found.get::<_, String>(1)?),
                        parents: Vec::new(),
                        mutable: state == STATE_RETAINED,
                        in_use: used.contains(&row),
                        shared: shared.contains(&row),
                        size: bytes.unwrap_or(0) + blob_bytes.get(&row).copied().unwrap_or(0),
                        created_ms: found.get(5)?,
                        last_used_ms: found.get(6)?,
                        usage_count: found.get(7)?,
                        description: found.get(8)?,
                        record_type: RecordType::parse(&found.get::<_, String>(9)?),
                    },
                })
            })?
            .collect()
        })?;
        let unmeasured: HashSet<i64> = unmeasured.into_iter().collect();
        for row in rows.iter_mut().filter(|row| unmeasured.contains(&row.row)) {
            row.record.size += self.measure(row)?;
        }
        let names: HashMap<i64, LayerId> = rows.iter().map(|row| (row.row, row.record.id.clone())).collect();
        for row in &mut rows {
            let top = row.base.and_then(|base| refs.get(&base)).and_then(|(_, layer)| names.get(layer));
            row.record.parents.extend(top.cloned());
        }
        Ok(Inventory { rows, refs })
    }

    /// What a layer's directory takes; kept for next time unless it may change.
    fn measure(&self, row: &Row) -> Result<i64> {
        let dir = self.inner.layer_fs(&row.record.id);
        // Gone in between, or being changed: whatever is there now.
        let Ok(usage) = disk_usage(&dir) else { return Ok(0) };
        if !(row.record.mutable && row.record.in_use) {
            self.inner.db.write("keep a layer's size", |db| {
                db.prepare_cached("UPDATE layers SET bytes = ?, inodes = ? WHERE id = ?")?
                    .execute(params![usage.bytes as i64, usage.inodes as i64, row.row])?;
                Ok(())
            })?;
        }
        Ok(usage.bytes as i64)
    }
}
