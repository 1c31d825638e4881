//! Small things that others keep about a layer or a ref, as long as that is there, found again by topic.

use std::io::{self, Read, Write};
use std::sync::{Arc, Weak};

use kiln_spool::{Spool, Spools};
use rusqlite::blob::{Blob, ZeroBlob};
use rusqlite::{MAIN_DB, OptionalExtension, Transaction, params};

use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::RefId;
use crate::layers::LayerHandle;
use crate::reference::Ref;
use crate::store::Store;

/// From so many bytes on a value is written and read in place. An ordinary write makes two copies of it, which the list of files of a
/// large context is too large for.
const IN_PLACE_BYTES_MIN: u64 = 256 << 10;

/// Keeps a value, or another one instead.
const INSERT: &str = "INSERT INTO layer_values (layer, key, value, topic) VALUES (?, ?, ?, ?)
     ON CONFLICT (layer, key) DO UPDATE SET value = excluded.value, topic = excluded.topic
     RETURNING rowid";

/// Pieces in which one is read.
const PIECE_BYTES: usize = 64 << 10;

/// The kept values of a store.
#[derive(Debug)]
pub struct Values {
    pub(crate) db: Arc<Db>,
    pub(crate) store: Weak<crate::store::Inner>,
}

impl Values {
    /// Keeps a value with a layer; `topic` makes the layer findable by [`Values::layers`].
    pub fn set(&self, layer: &LayerHandle, key: &str, value: &[u8], topic: Option<&str>) -> Result<()> {
        if value.len() as u64 >= IN_PLACE_BYTES_MIN {
            return self.set_in_place(layer, key, value.len() as u64, topic, |blob| blob.write_all(value));
        }
        self.db.write("keep a value", |db| {
            db.prepare_cached(INSERT)?.query_row(params![layer.row(), key, value, topic], |_| Ok(()))
        })
    }

    /// As [`Values::set`], for a value that may be too long for memory.
    pub fn set_spool(
        &self,
        layer: &LayerHandle,
        key: &str,
        value: &Spool,
        topic: Option<&str>,
    ) -> Result<()> {
        match value.as_slice() {
            Some(value) => self.set(layer, key, value, topic),
            None => self.set_in_place(layer, key, value.len(), topic, |blob| value.write_to(blob)),
        }
    }

    /// Keeps a value of `length` bytes that `write` gives piece by piece.
    fn set_in_place(
        &self,
        layer: &LayerHandle,
        key: &str,
        length: u64,
        topic: Option<&str>,
        write: impl FnOnce(&mut Blob<'_>) -> io::Result<()>,
    ) -> Result<()> {
        self.db.write("keep a value", |db| {
            let room = i32::try_from(length).map(ZeroBlob).map_err(|_| rusqlite::Error::BlobSizeError)?;
            let row: i64 = db
                .prepare_cached(INSERT)?
                .query_row(params![layer.row(), key, room, topic], |row| row.get(0))?;
            let mut blob = db.blob_open(MAIN_DB, "layer_values", "value", row, false)?;
            write(&mut blob).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            blob.close()
        })
    }

    /// A value kept with a layer.
    pub fn get(&self, layer: &LayerHandle, key: &str) -> Result<Option<Vec<u8>>> {
        self.db.read("look up a value", |db| {
            db.prepare_cached("SELECT value FROM layer_values WHERE layer = ? AND key = ?")?
                .query_row(params![layer.row(), key], |row| row.get(0))
                .optional()
        })
    }

    /// As [`Values::get`], for a value that may be too long for memory.
    pub fn get_spool(&self, layer: &LayerHandle, key: &str, spools: &Spools) -> Result<Option<Spool>> {
        let mut spool = spools.spool();
        // What is not the database's failure is a value of its own here.
        let read = self.db.read("look up a value", |db| {
            let mut select = db.prepare_cached(
                "SELECT rowid, length(value) FROM layer_values WHERE layer = ? AND key = ?",
            )?;
            let found = select.query_row(params![layer.row(), key], |row| Ok((row.get(0)?, row.get(1)?)));
            let Some((row, length)): Option<(i64, i64)> = found.optional()? else { return Ok(None) };
            let mut blob = db.blob_open(MAIN_DB, "layer_values", "value", row, true)?;
            // A length is never negative.
            let mut left = length as usize;
            let mut piece = vec![0; left.min(PIECE_BYTES)];
            while left > 0 {
                let piece = &mut piece[..left.min(PIECE_BYTES)];
                blob.read_exact(piece)
                    .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                if let Err(error) = spool.append(piece) {
                    return Ok(Some(Err(error)));
                }
                left -= piece.len();
            }
            Ok(Some(Ok(())))
        })?;
        match read {
            None => Ok(None),
            Some(Ok(())) => Ok(Some(spool)),
            Some(Err(error)) => Err(Error::io("write a file in", spools.dir())(error)),
        }
    }

    /// Forgets a value.
    pub fn remove(&self, layer: &LayerHandle, key: &str) -> Result<()> {
        self.db.write("remove a value", |db| {
            db.prepare_cached("DELETE FROM layer_values WHERE layer = ? AND key = ?")?
                .execute(params![layer.row(), key])?;
            Ok(())
        })
    }

    /// The layers that have a value of this topic, the latest first.
    pub fn layers(&self, topic: &str) -> Result<Vec<LayerHandle>> {
        let rows: Vec<i64> = self.db.read("look up a topic", |db| {
            db.prepare_cached("SELECT DISTINCT layer FROM layer_values WHERE topic = ? ORDER BY rowid DESC")?
                .query_map([topic], |row| row.get(0))?
                .collect()
        })?;
        let store = self.store()?;
        rows.into_iter().filter_map(|row| store.layer_of_row(row).transpose()).collect()
    }

    /// Keeps a value with a ref that is not scratch.
    pub fn set_for_ref(&self, reference: &Ref, key: &str, value: &[u8], topic: Option<&str>) -> Result<()> {
        self.db.write("keep a value", |db| {
            db.prepare_cached(
                "INSERT INTO ref_values (ref, key, value, topic) VALUES (?, ?, ?, ?)
                 ON CONFLICT (ref, key) DO UPDATE SET value = excluded.value, topic = excluded.topic",
            )?
            .execute(params![reference.row(), key, value, topic])?;
            Ok(())
        })
    }

    /// A value kept with a ref.
    pub fn get_for_ref(&self, reference: &Ref, key: &str) -> Result<Option<Vec<u8>>> {
        self.db.read("look up a value", |db| {
            db.prepare_cached("SELECT value FROM ref_values WHERE ref IS ? AND key = ?")?
                .query_row(params![reference.row(), key], |row| row.get(0))
                .optional()
        })
    }

    /// The refs that have a value of this topic, with that value's key and bytes, the latest first.
    pub fn refs(&self, topic: &str) -> Result<Vec<(Ref, String, Vec<u8>)>> {
        let rows: Vec<(i64, String, Vec<u8>)> = self.db.read("look up a topic", |db| {
            db.prepare_cached("SELECT ref, key, value FROM ref_values WHERE topic = ? ORDER BY rowid DESC")?
                .query_map([topic], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        let store = self.store()?;
        let mut found = Vec::with_capacity(rows.len());
        for (row, key, value) in rows {
            if let Some(reference) = store.get_ref(RefId(row))? {
                found.push((reference, key, value));
            }
        }
        Ok(found)
    }

    fn store(&self) -> Result<Store> {
        self.store.upgrade().map(Store::from_inner).ok_or(Error::Died)
    }
}

/// Keeps a value with a layer that is being recorded.
pub(crate) fn insert_value(
    db: &Transaction<'_>,
    layer: i64,
    key: &str,
    value: &[u8],
) -> rusqlite::Result<()> {
    db.prepare_cached(INSERT)?.query_row(params![layer, key, value, None::<&str>], |_| Ok(()))
}
