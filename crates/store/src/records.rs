//! Kept results: a name, the list of layers, and what else the keeper wants to know.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use rusqlite::{OptionalExtension, params};

use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::{RecordId, RefId};
use crate::keys;
use crate::reference::Ref;
use crate::store::{Store, now_ms};

/// A kept result. Holding it keeps its layers.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its name.
    pub id: RecordId,
    /// Its layers; scratch if it has none.
    pub reference: Ref,
    /// What was kept with it.
    pub payload: Bytes,
    /// When it was first put, milliseconds since 1970.
    pub created_ms: i64,
}

/// The kept results of a store. A record goes when a layer of it goes.
#[derive(Debug)]
pub struct Records {
    pub(crate) db: Arc<Db>,
    pub(crate) store: Weak<crate::store::Inner>,
}

impl Records {
    /// Keeps a result; putting a name again replaces what it held.
    pub fn put(&self, id: &RecordId, reference: &Ref, payload: &[u8]) -> Result<()> {
        let created_ms = now_ms();
        self.db.write("keep a record", |db| {
            db.prepare_cached(
                "INSERT INTO records (id, ref, payload, created_ms) VALUES (?, ?, ?, ?)
                 ON CONFLICT (id) DO UPDATE SET ref = excluded.ref, payload = excluded.payload",
            )?
            .execute(params![id.as_str(), reference.row(), payload, created_ms])?;
            Ok(())
        })
    }

    /// The name of a result without a payload: the one that these layers have already, or a new one.
    pub fn keep(&self, reference: &Ref) -> Result<RecordId> {
        let created_ms = now_ms();
        self.db.write("keep a record", |db| {
            let known: Option<String> = db
                .prepare_cached("SELECT id FROM records WHERE ref IS ? ORDER BY created_ms LIMIT 1")?
                .query_row([reference.row()], |row| row.get(0))
                .optional()?;
            if let Some(known) = known {
                return Ok(RecordId::new(known));
            }
            let id = RecordId::random();
            db.prepare_cached("INSERT INTO records (id, ref, payload, created_ms) VALUES (?, ?, x'', ?)")?
                .execute(params![id.as_str(), reference.row(), created_ms])?;
            Ok(id)
        })
    }

    /// A kept result.
    pub fn get(&self, id: &RecordId) -> Result<Option<Record>> {
        let row: Option<(Option<i64>, Vec<u8>, i64)> = self.db.read("look up a record", |db| {
            db.prepare_cached("SELECT ref, payload, created_ms FROM records WHERE id = ?")?
                .query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()
        })?;
        let Some((reference, payload, created_ms)) = row else { return Ok(None) };
        let store = Store::from_inner(self.store.upgrade().ok_or(Error::Died)?);
        let reference = match reference {
            None => Ref::scratch(),
            Some(row) => match store.get_ref(RefId(row))? {
                Some(reference) => reference,
                // Removed in between.
                None => return Ok(None),
            },
        };
        Ok(Some(Record { id: id.clone(), reference, payload: payload.into(), created_ms }))
    }

    /// Whether there is such a record.
    pub fn exists(&self, id: &RecordId) -> Result<bool> {
        self.db.read("look up a record", |db| {
            db.prepare_cached("SELECT EXISTS (SELECT 1 FROM records WHERE id = ?)")?
                .query_row([id.as_str()], |row| row.get(0))
        })
    }

    /// Whether the topmost layer of a result has an archive. Quicker than to look at the result.
    pub fn has_blob(&self, id: &RecordId) -> Result<bool> {
        self.db.read("look up a record", |db| {
            db.prepare_cached(
                "SELECT EXISTS (
                     SELECT 1 FROM records JOIN refs ON refs.id = records.ref
                     JOIN layer_blobs ON layer_blobs.layer = refs.layer WHERE records.id = ?
                 )",
            )?
            .query_row([id.as_str()], |row| row.get(0))
        })
    }

    /// Forgets a result, and what cache keys know of it. Its layers stay until they are pruned.
    pub fn remove(&self, id: &RecordId) -> Result<()> {
        self.db.write("remove a record", |db| {
            keys::release(db, id.as_str())?;
            db.prepare_cached("DELETE FROM records WHERE id = ?")?.execute([id.as_str()])?;
            Ok(())
        })
    }
}
