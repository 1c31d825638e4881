//! Small things that others keep about a layer or a ref, as long as that is there, found again by topic.

use std::io::Write;
use std::sync::{Arc, Weak};

use rusqlite::blob::ZeroBlob;
use rusqlite::{MAIN_DB, OptionalExtension, params};

use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::RefId;
use crate::layers::LayerHandle;
use crate::reference::Ref;
use crate::store::Store;

/// From so many bytes on a value is written in place. An ordinary write makes two copies of it, which the list of files of a
/// large context is too large for.
const IN_PLACE_BYTES_MIN: usize = 256 << 10;

/// The kept values of a store.
#[derive(Debug)]
pub struct Values {
    pub(crate) db: Arc<Db>,
    pub(crate) store: Weak<crate::store::Inner>,
}

impl Values {
    /// Keeps a value with a layer; `topic` makes the layer findable by [`Values::layers`].
    pub fn set(&self, layer: &LayerHandle, key: &str, value: &[u8], topic: Option<&str>) -> Result<()> {
        self.db.write("keep a value", |db| {
            let mut insert = db.prepare_cached(
                "INSERT INTO layer_values (layer, key, value, topic) VALUES (?, ?, ?, ?)
                 ON CONFLICT (layer, key) DO UPDATE SET value = excluded.value, topic = excluded.topic
                 RETURNING rowid",
            )?;
            if value.len() < IN_PLACE_BYTES_MIN {
                return insert.query_row(params![layer.row(), key, value, topic], |_| Ok(()));
            }
            let room =
                i32::try_from(value.len()).map(ZeroBlob).map_err(|_| rusqlite::Error::BlobSizeError)?;
            let row: i64 = insert.query_row(params![layer.row(), key, room, topic], |row| row.get(0))?;
            let mut blob = db.blob_open(MAIN_DB, "layer_values", "value", row, false)?;
            blob.write_all(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
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
