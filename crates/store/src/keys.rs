//! The solver's cache keys: links between them and the records that hang on them.

use std::sync::Arc;

use rusqlite::{Connection, Row, Transaction, params};

use crate::db::{Db, DigestText};
use crate::error::Result;
use crate::id::RecordId;

/// How a key was used as the input of another. The texts are digests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyLink {
    /// Which input of the op.
    pub input: usize,
    /// Which output of the op.
    pub output: usize,
    /// The op's cache-map digest.
    pub digest: String,
    /// Which part of the input the op looks at.
    pub selector: Option<String>,
}

/// A record hanging on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// The record.
    pub record: RecordId,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
}

/// The cache keys of a store. All calls are quick: one lookup or one small transaction.
#[derive(Debug)]
pub struct Keys {
    pub(crate) db: Arc<Db>,
}

impl Keys {
    /// Whether the key has a record, or a link away from it.
    pub fn exists(&self, key: &str) -> Result<bool> {
        self.db.read("look up a cache key", |db| {
            db.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM key_records WHERE key = ?1)
                     OR EXISTS (SELECT 1 FROM key_links WHERE source = ?1)",
            )?
            .query_row([DigestText(key)], |row| row.get(0))
        })
    }

    /// The keys that `link` leads to, sorted.
    pub fn links(&self, key: &str, link: &KeyLink) -> Result<Vec<String>> {
        self.db.read("follow a cache key", |db| {
            db.prepare_cached(
                "SELECT target FROM key_links
                 WHERE source = ? AND digest = ? AND output = ? AND input = ? AND selector = ?",
            )?
            .query_map(
                params![
                    DigestText(key),
                    DigestText(&link.digest),
                    link.output as i64,
                    link.input as i64,
                    selector(link)
                ],
                text(0),
            )?
            .collect()
        })
    }

    /// Adds links `(from, how, target)`; those that exist stay as they are.
    pub fn add_links(&self, links: &[(String, KeyLink, String)]) -> Result<()> {
        if links.is_empty() {
            return Ok(());
        }
        self.db.write("add cache keys", |db| add_links(db, links))
    }

    /// The records that hang on `key`.
    pub fn records(&self, key: &str) -> Result<Vec<KeyRecord>> {
        self.db.read("look up a cache key", |db| {
            db.prepare_cached("SELECT record, created_ms FROM key_records WHERE key = ?")?
                .query_map([DigestText(key)], |row| {
                    Ok(KeyRecord { record: RecordId::new(row.get::<_, String>(0)?), created_ms: row.get(1)? })
                })?
                .collect()
        })
    }

    /// Hangs a record on a key; again only renews its time. A record that the store does not have (any more) is
    /// quietly left out.
    pub fn add_record(&self, key: &str, record: &RecordId, created_ms: i64) -> Result<()> {
        self.save(&[], key, record, created_ms)
    }

    /// As [`Keys::add_links`] and then [`Keys::add_record`], in one transaction.
    pub fn save(
        &self,
        links: &[(String, KeyLink, String)],
        key: &str,
        record: &RecordId,
        created_ms: i64,
    ) -> Result<()> {
        self.db.write("add a cache key", |db| {
            add_links(db, links)?;
            db.prepare_cached(
                "INSERT INTO key_records (key, record, created_ms)
                 SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM records WHERE id = ?2)
                 ON CONFLICT (key, record) DO UPDATE SET created_ms = excluded.created_ms",
            )?
            .execute(params![DigestText(key), record.as_str(), created_ms])?;
            Ok(())
        })
    }

    /// All keys on which the record hangs.
    pub fn keys_of_record(&self, record: &RecordId) -> Result<Vec<String>> {
        self.db.read("look up a cache key", |db| {
            db.prepare_cached("SELECT key FROM key_records WHERE record = ? ORDER BY key")?
                .query_map([record.as_str()], text(0))?
                .collect()
        })
    }

    /// Takes the record off all its keys and removes keys that lead nowhere any more, upwards as far as that goes.
    pub fn release(&self, record: &RecordId) -> Result<()> {
        self.db.write("release a cache key", |db| release(db, record.as_str()))
    }

    /// The links that lead to `key`: from where, and how.
    pub fn backlinks(&self, key: &str) -> Result<Vec<(String, KeyLink)>> {
        self.db.read("look up a cache key", |db| {
            db.prepare_cached(
                "SELECT source, digest, output, input, selector FROM key_links WHERE target = ?",
            )?
            .query_map([DigestText(key)], |row| {
                let selector: String = text(4)(row)?;
                let link = KeyLink {
                    digest: text(1)(row)?,
                    output: row.get::<_, i64>(2)? as usize,
                    input: row.get::<_, i64>(3)? as usize,
                    selector: (!selector.is_empty()).then_some(selector),
                };
                Ok((text(0)(row)?, link))
            })?
            .collect()
        })
    }

    /// Every record that hangs on a key, each once.
    pub fn all_records(&self) -> Result<Vec<RecordId>> {
        self.db.read("list cache records", |db| {
            db.prepare_cached("SELECT DISTINCT record FROM key_records")?
                .query_map([], |row| Ok(RecordId::new(row.get::<_, String>(0)?)))?
                .collect()
        })
    }
}

/// See [`Keys::release`]; also used when a layer goes and takes its records along.
pub(crate) fn release(db: &Connection, record: &str) -> rusqlite::Result<()> {
    let mut keys: Vec<String> = db
        .prepare_cached("SELECT key FROM key_records WHERE record = ?")?
        .query_map([record], text(0))?
        .collect::<Result<_, _>>()?;
    db.prepare_cached("DELETE FROM key_records WHERE record = ?")?.execute([record])?;
    while let Some(key) = keys.pop() {
        let used: bool = db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM key_records WHERE key = ?1)
                     OR EXISTS (SELECT 1 FROM key_links WHERE source = ?1)",
            )?
            .query_row([DigestText(&key)], |row| row.get(0))?;
        if used {
            continue;
        }
        let sources: Vec<String> = db
            .prepare_cached("SELECT DISTINCT source FROM key_links WHERE target = ?")?
            .query_map([DigestText(&key)], text(0))?
            .collect::<Result<_, _>>()?;
        db.prepare_cached("DELETE FROM key_links WHERE target = ?")?.execute([DigestText(&key)])?;
        keys.extend(sources);
    }
    Ok(())
}

fn add_links(db: &Transaction<'_>, links: &[(String, KeyLink, String)]) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT OR IGNORE INTO key_links (source, digest, output, input, selector, target)
         VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    for (source, link, target) in links {
        insert.execute(params![
            DigestText(source),
            DigestText(&link.digest),
            link.output as i64,
            link.input as i64,
            selector(link),
            DigestText(target)
        ])?;
    }
    Ok(())
}

fn selector(link: &KeyLink) -> DigestText<&str> {
    DigestText(link.selector.as_deref().unwrap_or(""))
}

/// Reads a digest from a column.
fn text(column: usize) -> impl Fn(&Row<'_>) -> rusqlite::Result<String> {
    move |row| row.get::<_, DigestText<String>>(column).map(|text| text.0)
}
