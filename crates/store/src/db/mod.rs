//! The database: one SQLite file, one connection, one transaction a change.
//!
//! Write-ahead logging without a sync for each transaction: after a power loss the last transactions may be missing,
//! all of each or none. What that means for layers is in the crate's documentation.

mod digest_text;
mod schema;

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, Transaction, TransactionBehavior};

pub(crate) use self::digest_text::DigestText;
use crate::error::{Error, Result};

/// Statements kept compiled.
const STATEMENTS_CACHED: usize = 128;

#[derive(Debug)]
pub(crate) struct Db {
    connection: Mutex<Connection>,
}

impl Db {
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let path = root.join("kiln.db");
        let mut connection = Connection::open(&path).map_err(Error::db("open the file"))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        let pragmas = "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             PRAGMA foreign_keys = ON;
             PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA temp_store = MEMORY;
             PRAGMA wal_autocheckpoint = 4000;";
        connection.execute_batch(pragmas).map_err(Error::db("set up the file"))?;
        schema::prepare(&mut connection, root)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Reads.
    pub(crate) fn read<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        work(&self.lock()).map_err(Error::db(what))
    }

    /// One change: all of it happens or nothing.
    pub(crate) fn write<T>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = self.lock();
        let change = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        // `work` runs once; the closure is only there for `?`.
        change().map_err(Error::db(what))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}
