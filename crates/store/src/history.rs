//! Builds that were: an opaque record each, and the blobs that belong to it.

use std::sync::Arc;

use kiln_oci::Digest;
use rusqlite::{OptionalExtension, Row, params};

use crate::db::Db;
use crate::error::Result;

/// One build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Its name.
    pub id: String,
    /// When it began, milliseconds since 1970.
    pub created_ms: i64,
    /// When it ended; `None` while it runs (or if the daemon ended first).
    pub completed_ms: Option<i64>,
    /// Never removed by age.
    pub pinned: bool,
    /// What the daemon keeps about it.
    pub payload: Vec<u8>,
}

/// The builds of a store.
#[derive(Debug)]
pub struct History {
    pub(crate) db: Arc<Db>,
}

const COLUMNS: &str = "id, created_ms, completed_ms, pinned, payload";

impl History {
    /// Writes a build down, anew or again, with all blobs that it refers to.
    pub fn put(&self, entry: &HistoryEntry, blobs: &[Digest]) -> Result<()> {
        self.db.write("keep a build", |db| {
            db.prepare_cached(
                "INSERT INTO history (id, created_ms, completed_ms, pinned, payload) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET created_ms = excluded.created_ms,
                     completed_ms = excluded.completed_ms, pinned = excluded.pinned, payload = excluded.payload",
            )?
            .execute(params![entry.id, entry.created_ms, entry.completed_ms, entry.pinned, entry.payload])?;
            db.prepare_cached("DELETE FROM history_blobs WHERE history = ?")?.execute([&entry.id])?;
            let mut insert =
                db.prepare_cached("INSERT OR IGNORE INTO history_blobs (history, digest) VALUES (?, ?)")?;
            for digest in blobs {
                insert.execute(params![entry.id, digest.as_str()])?;
            }
            Ok(())
        })
    }

    /// One build.
    pub fn get(&self, id: &str) -> Result<Option<HistoryEntry>> {
        self.db.read("look up a build", |db| {
            db.prepare_cached(&format!("SELECT {COLUMNS} FROM history WHERE id = ?"))?
                .query_row([id], entry)
                .optional()
        })
    }

    /// All builds, the latest first.
    pub fn list(&self) -> Result<Vec<HistoryEntry>> {
        self.db.read("list builds", |db| {
            db.prepare_cached(&format!("SELECT {COLUMNS} FROM history ORDER BY created_ms DESC, id"))?
                .query_map([], entry)?
                .collect()
        })
    }

    /// Forgets a build; whether there was one.
    pub fn remove(&self, id: &str) -> Result<bool> {
        self.db.write("forget a build", |db| {
            Ok(db.prepare_cached("DELETE FROM history WHERE id = ?")?.execute([id])? > 0)
        })
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<HistoryEntry> {
    Ok(HistoryEntry {
        id: row.get(0)?,
        created_ms: row.get(1)?,
        completed_ms: row.get(2)?,
        pinned: row.get(3)?,
        payload: row.get(4)?,
    })
}
