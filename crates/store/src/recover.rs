//! Putting a state directory in order when it is opened: whatever was under way when the last process ended.

use std::collections::HashSet;
use std::path::Path;

use kiln_oci::Digest;
use rusqlite::{Connection, OptionalExtension, params};

use crate::content::Content;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::keys;
use crate::layers::{STATE_READY, STATE_RETAINED};

pub(crate) fn recover(root: &Path, db: &Db, content: &Content) -> Result<()> {
    // What was being written, and what says nothing that is not elsewhere.
    for name in ["ingest", "flat", "scratch"] {
        discard(root, &root.join(name))?;
    }
    unmount_leftovers(root);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let dirs = layer_dirs(root)?;
    let blobs: HashSet<Digest> = content.list()?.into_iter().map(|(digest, _, _)| digest).collect();
    let known = db.write("recover", |db| {
        drop_layers(db, boot.trim(), &dirs)?;
        forget_missing_blobs(db, &blobs)?;
        db.execute("INSERT OR REPLACE INTO facts (key, value) VALUES ('boot', ?)", [boot.trim()])?;
        // A lazy layer's directory is of an unpacking that did not end.
        db.prepare("SELECT name FROM layers WHERE state IN (?, ?)")?
            .query_map([STATE_READY, STATE_RETAINED], |row| row.get(0))?
            .collect::<rusqlite::Result<HashSet<String>>>()
    })?;
    for name in dirs.difference(&known) {
        discard_one(root, &root.join("layers").join(name))?;
    }
    Ok(())
}

/// Drops layers whose directory is not there, and after a new boot those that were not synced, with all that is made
/// of them.
fn drop_layers(db: &Connection, boot: &str, dirs: &HashSet<String>) -> rusqlite::Result<()> {
    let last: Option<String> =
        db.query_row("SELECT value FROM facts WHERE key = 'boot'", [], |row| row.get(0)).optional()?;
    let rebooted = last.is_some_and(|last| last != boot || boot.is_empty());
    let mut gone: HashSet<i64> = HashSet::new();
    {
        let mut select = db.prepare("SELECT id, name, synced FROM layers WHERE state IN (?, ?)")?;
        let mut rows = select.query([STATE_READY, STATE_RETAINED])?;
        while let Some(row) = rows.next()? {
            let (name, synced): (String, bool) = (row.get(1)?, row.get(2)?);
            if !dirs.contains(&name) || rebooted && !synced {
                gone.insert(row.get(0)?);
            }
        }
    }
    remove_layers(db, &gone).map(drop)
}

/// Removes layers and everything that is made of them; gives all that went.
pub(crate) fn remove_layers(db: &Connection, gone: &HashSet<i64>) -> rusqlite::Result<HashSet<i64>> {
    let mut all = HashSet::new();
    let mut todo: Vec<i64> = gone.iter().copied().collect();
    let mut order = Vec::new();
    while let Some(layer) = todo.pop() {
        if !all.insert(layer) {
            continue;
        }
        order.push(layer);
        // Layers made on top of a list that has this one in it.
        let mut above = db.prepare_cached(
            "WITH RECURSIVE lists (id) AS (
                 SELECT id FROM refs WHERE layer = ?
                 UNION SELECT refs.id FROM lists JOIN refs ON refs.parent = lists.id
             )
             SELECT layers.id FROM lists JOIN layers ON layers.base = lists.id",
        )?;
        let above: Vec<i64> = above.query_map([layer], |row| row.get(0))?.collect::<Result<_, _>>()?;
        todo.extend(above);
    }
    for layer in &order {
        release_records(db, *layer)?;
    }
    // Of two that are made of one another the later one has the higher number.
    order.sort_unstable_by(|a, b| b.cmp(a));
    for layer in order {
        db.prepare_cached("DELETE FROM layers WHERE id = ?")?.execute([layer])?;
    }
    Ok(all)
}

/// Lets go of the cache keys of all records that have the layer in their list, before it takes them along.
pub(crate) fn release_records(db: &Connection, layer: i64) -> rusqlite::Result<()> {
    let records: Vec<String> = db
        .prepare_cached(
            "WITH RECURSIVE lists (id) AS (
                 SELECT id FROM refs WHERE layer = ?
                 UNION SELECT refs.id FROM lists JOIN refs ON refs.parent = lists.id
             )
             SELECT records.id FROM lists JOIN records ON records.ref = lists.id",
        )?
        .query_map([layer], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for record in records {
        keys::release(db, &record)?;
    }
    Ok(())
}

fn forget_missing_blobs(db: &Connection, blobs: &HashSet<Digest>) -> rusqlite::Result<()> {
    let local: Vec<String> = db
        .prepare("SELECT DISTINCT digest FROM layer_blobs WHERE local = 1")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for text in local {
        if Digest::parse(&text).is_ok_and(|digest| blobs.contains(&digest)) {
            continue;
        }
        // One made here is made again when it is wanted; one from elsewhere is fetched again.
        db.execute("DELETE FROM layer_blobs WHERE digest = ? AND level IS NOT NULL", params![text])?;
        db.execute("UPDATE layer_blobs SET local = 0 WHERE digest = ?", params![text])?;
    }
    Ok(())
}

fn layer_dirs(root: &Path) -> Result<HashSet<String>> {
    let dir = root.join("layers");
    let mut names = HashSet::new();
    for entry in std::fs::read_dir(&dir).map_err(Error::io("read directory", &dir))? {
        let entry = entry.map_err(Error::io("read directory", &dir))?;
        names.insert(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Moves everything in a directory to the trash.
fn discard(root: &Path, dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(Error::io("read directory", dir))?.flatten() {
        discard_one(root, &entry.path())?;
    }
    Ok(())
}

fn discard_one(root: &Path, path: &Path) -> Result<()> {
    let target = root.join("trash").join(LayerId::random().as_str());
    std::fs::rename(path, &target).map_err(Error::io("remove", path))
}

/// Mounts that a killed process left in this mount namespace.
fn unmount_leftovers(root: &Path) {
    let dir = root.join("mnt");
    for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
        let path = entry.path();
        // Not a mount, most often.
        let _ = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH);
        // Never deeper: if the unmount failed, what is beneath is not ours to remove.
        let _ = std::fs::remove_dir(&path);
    }
}
