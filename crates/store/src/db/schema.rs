//! The tables, and bringing older files up to date.

use std::path::Path;

use rusqlite::Connection;

use crate::error::{Error, Result};

/// Each entry brings the file from its index to the next version.
const STEPS: &[&str] = &["
    -- Facts about the file itself.
    CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

    -- Layers: directories in overlayfs format. Numbers of layers and refs are never used again: memory may know them.
    CREATE TABLE layers (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        -- 0: retained and mutable (a cache mount, a local context), 1: lazy, 2: ready
        state INTEGER NOT NULL,
        -- What it was made on top of.
        base INTEGER REFERENCES refs (id) ON DELETE RESTRICT,
        -- A fetched layer: its diff id, or the chain id if it leans on what is below.
        identity TEXT UNIQUE,
        diff_id TEXT,
        synced INTEGER NOT NULL DEFAULT 0,
        -- Measured when first asked for.
        bytes INTEGER,
        inodes INTEGER,
        created_ms INTEGER NOT NULL,
        used_ms INTEGER,
        uses INTEGER NOT NULL DEFAULT 0,
        description TEXT NOT NULL,
        record_type TEXT NOT NULL,
        -- The key of a retained layer.
        retained TEXT
    );
    CREATE INDEX layers_base ON layers (base);
    CREATE INDEX layers_retained ON layers (retained) WHERE retained IS NOT NULL;

    -- Ordered lists of layers, each as its last layer and the list before.
    CREATE TABLE refs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        parent INTEGER REFERENCES refs (id) ON DELETE CASCADE,
        layer INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE
    );
    CREATE UNIQUE INDEX refs_list ON refs (parent, layer) WHERE parent IS NOT NULL;
    CREATE UNIQUE INDEX refs_first ON refs (layer) WHERE parent IS NULL;
    CREATE INDEX refs_layer ON refs (layer);

    -- A layer's archives: its blobs in content/, or (local = 0) with a provider.
    CREATE TABLE layer_blobs (
        layer INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
        digest TEXT NOT NULL,
        size INTEGER NOT NULL,
        media_type TEXT NOT NULL,
        compression TEXT NOT NULL,
        -- NULL: made elsewhere.
        level INTEGER,
        -- NULL: times as they are.
        epoch INTEGER,
        diff_id TEXT NOT NULL,
        annotations TEXT NOT NULL,
        local INTEGER NOT NULL,
        PRIMARY KEY (layer, digest)
    ) WITHOUT ROWID;
    CREATE INDEX layer_blobs_digest ON layer_blobs (digest);

    -- What others keep about a layer or a ref, as long as that is there.
    CREATE TABLE layer_values (
        layer INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        topic TEXT,
        PRIMARY KEY (layer, key)
    );
    CREATE INDEX layer_values_topic ON layer_values (topic) WHERE topic IS NOT NULL;
    CREATE TABLE ref_values (
        ref INTEGER NOT NULL REFERENCES refs (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        topic TEXT,
        PRIMARY KEY (ref, key)
    );
    CREATE INDEX ref_values_topic ON ref_values (topic) WHERE topic IS NOT NULL;

    -- Kept results. A result without layers (scratch) has no ref.
    CREATE TABLE records (
        id TEXT PRIMARY KEY,
        ref INTEGER REFERENCES refs (id) ON DELETE CASCADE,
        payload BLOB NOT NULL,
        created_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX records_ref ON records (ref);

    -- The solver's cache keys.
    CREATE TABLE key_links (
        source TEXT NOT NULL,
        digest TEXT NOT NULL,
        output INTEGER NOT NULL,
        input INTEGER NOT NULL,
        selector TEXT NOT NULL,
        target TEXT NOT NULL,
        PRIMARY KEY (source, digest, output, input, selector, target)
    ) WITHOUT ROWID;
    CREATE INDEX key_links_target ON key_links (target);
    CREATE TABLE key_records (
        key TEXT NOT NULL,
        record TEXT NOT NULL REFERENCES records (id) ON DELETE CASCADE,
        created_ms INTEGER NOT NULL,
        PRIMARY KEY (key, record)
    ) WITHOUT ROWID;
    CREATE INDEX key_records_record ON key_records (record);

    -- Builds that were.
    CREATE TABLE history (
        id TEXT PRIMARY KEY,
        created_ms INTEGER NOT NULL,
        completed_ms INTEGER,
        pinned INTEGER NOT NULL,
        payload BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX history_created ON history (created_ms);
    CREATE TABLE history_blobs (
        history TEXT NOT NULL REFERENCES history (id) ON DELETE CASCADE,
        digest TEXT NOT NULL,
        PRIMARY KEY (history, digest)
    ) WITHOUT ROWID;
", "
    -- Digests in cache keys are stored as their bytes (see `DigestText`).
    UPDATE key_links SET
        source = CASE WHEN source GLOB 'sha256:*' AND length(source) = 71 AND source NOT GLOB '*[A-F]*' THEN coalesce(unhex(substr(source, 8)), source) ELSE source END,
        digest = CASE WHEN digest GLOB 'sha256:*' AND length(digest) = 71 AND digest NOT GLOB '*[A-F]*' THEN coalesce(unhex(substr(digest, 8)), digest) ELSE digest END,
        selector = CASE WHEN selector GLOB 'sha256:*' AND length(selector) = 71 AND selector NOT GLOB '*[A-F]*' THEN coalesce(unhex(substr(selector, 8)), selector) ELSE selector END,
        target = CASE WHEN target GLOB 'sha256:*' AND length(target) = 71 AND target NOT GLOB '*[A-F]*' THEN coalesce(unhex(substr(target, 8)), target) ELSE target END;
    UPDATE key_records SET
        key = CASE WHEN key GLOB 'sha256:*' AND length(key) = 71 AND key NOT GLOB '*[A-F]*' THEN coalesce(unhex(substr(key, 8)), key) ELSE key END;
"];

pub(super) fn prepare(connection: &mut Connection, root: &Path) -> Result<()> {
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(Error::db("read the format"))?;
    let known = STEPS.len() as i64;
    if version > known {
        return Err(Error::Newer { path: root.to_owned(), found: version, known });
    }
    for (step, sql) in STEPS.iter().enumerate().skip(version.max(0) as usize) {
        let transaction = connection.transaction().map_err(Error::db("set up the tables"))?;
        transaction.execute_batch(sql).map_err(Error::db("set up the tables"))?;
        transaction
            .pragma_update(None, "user_version", step as i64 + 1)
            .map_err(Error::db("set up the tables"))?;
        transaction.commit().map_err(Error::db("set up the tables"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::*;
    use crate::db::DigestText;

    #[test]
    fn cache_keys_of_the_first_format_are_found_as_before() {
        let mut db = Connection::open_in_memory().expect("opens");
        db.execute_batch(STEPS[0]).expect("the first tables");
        db.pragma_update(None, "user_version", 1).expect("the first format");
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
        let link = params![digest("a"), digest("b"), "", "a name"];
        db.execute("INSERT INTO key_links VALUES (?1, ?2, 0, 1, ?3, ?4)", link).expect("a link");
        let upper = digest("a").replace('a', "A").replace("shA", "sha");
        let other = params![upper, digest("b"), "", "another"];
        db.execute("INSERT INTO key_links VALUES (?1, ?2, 0, 1, ?3, ?4)", other).expect("a link");
        db.execute("INSERT INTO records VALUES ('r', NULL, x'', 0)", []).expect("a record");
        db.execute("INSERT INTO key_records VALUES (?, 'r', 5)", [digest("c")]).expect("a key");
        prepare(&mut db, Path::new("/nowhere")).expect("brought up to date");
        let target = |source: &str| {
            db.query_row(
                "SELECT target FROM key_links WHERE source = ? AND digest = ? AND selector = ?",
                params![DigestText(source), DigestText(digest("b")), DigestText("")],
                |row| Ok(row.get::<_, DigestText<String>>(0)?.0),
            )
        };
        assert_eq!(target(&digest("a")), Ok("a name".to_owned()));
        assert_eq!(target(&upper), Ok("another".to_owned()), "as it was written");
        let key =
            db.query_row("SELECT key FROM key_records WHERE key = ?", [DigestText(digest("c"))], |row| {
                Ok(row.get::<_, DigestText<String>>(0)?.0)
            });
        assert_eq!(key, Ok(digest("c")));
    }
}
