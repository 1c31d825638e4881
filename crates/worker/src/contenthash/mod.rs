//! Digests of what a ref holds, blind to times: two refs with the same paths, bytes, modes, owners, links and extended
//! attributes have the same digest, however they came about.
//!
//! Every layer has a [`LayerTable`]; a ref is the [`Tree`] of its layers' tables. The names and headers of a layer are
//! read when it is first asked about, the bytes of a file when a [`Selector`] first picks it, by several threads.
//! Tables are kept with their layers, so that a second build reads no file at all.

mod scan;
mod select;
mod table;
mod tree;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_layer::threads::Budget;
use rustix::fs::{CWD, Mode};

pub use scan::{header_of, scan};
pub use select::{SelectError, Selector, is_wildcard, select, without_redundant};
pub use table::{BadTable, LayerTable, Record, RecordKind, TableBuilder, TooLong};
pub use tree::Tree;

use crate::crew;
use crate::encode::{Encoder, Hash};
use crate::error::PathError;
use crate::raw::DIR_FLAGS;

/// Why content has no digest.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error(transparent)]
    Select(#[from] SelectError),
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The digest of what `selectors` pick of `tree`, whose layers are in `dirs`, lowest first. Files whose content is not
/// known yet are read, and their digests put into the tables. No selector means everything.
///
/// # Errors
/// A path that is not there, a malformed pattern, and what the file system says.
pub fn checksum(
    tree: &Tree,
    dirs: &[PathBuf],
    selectors: &[Selector],
    budget: &Budget,
) -> Result<Hash, ContentError> {
    let everything = [Selector::default()];
    let selectors = if selectors.is_empty() { &everything } else { selectors };
    let selections =
        selectors.iter().map(|selector| select(tree, selector)).collect::<Result<Vec<_>, _>>()?;
    let mut missing: Vec<usize> = selections
        .iter()
        .flat_map(|selection| selection.files(tree))
        .filter(|&index| tree.record(index).content.is_none())
        .collect();
    missing.sort_unstable();
    missing.dedup();
    hash_files(tree, dirs, missing, budget)?;
    let mut encoder = Encoder::new("kiln.content.v1");
    encoder.list(selections.iter(), |encoder, selection| {
        encoder.hash(&selection.digest(tree).expect("all content it needs has just been read"));
    });
    Ok(encoder.finish())
}

fn hash_files(tree: &Tree, dirs: &[PathBuf], files: Vec<usize>, budget: &Budget) -> Result<(), PathError> {
    /// Files in one job; few, for some are large.
    const FILES_PER_JOB: usize = 16;
    if files.is_empty() {
        return Ok(());
    }
    let open = |dir: &PathBuf| {
        rustix::fs::openat(CWD, dir, DIR_FLAGS, Mode::empty())
            .map_err(|errno| PathError::new("open", dir.to_string_lossy(), errno))
    };
    let roots: Vec<OwnedFd> = dirs.iter().map(open).collect::<Result<_, _>>()?;
    let jobs: Vec<Vec<usize>> = files.chunks(FILES_PER_JOB).map(<[usize]>::to_vec).collect();
    crew::run(budget, jobs, |job: Vec<usize>, _| {
        for index in job {
            let node = tree.node(index);
            let record = tree.record(index);
            let hash = scan::hash_file(&roots[node.layer as usize], record.path).map_err(|errno| {
                PathError::new("open", format!("/{}", String::from_utf8_lossy(record.path)), errno)
            })?;
            tree.table(node.layer).set_content(node.record as usize, hash);
        }
        Ok(())
    })
}

/// The tree of a ref without layers: nothing but a root that says nothing.
pub fn empty_tree() -> Tree {
    let mut builder = TableBuilder::default();
    let root = Record {
        path: b"",
        kind: RecordKind::Dir { opaque: false },
        header: &Hash::default(),
        content: None,
    };
    builder.push(&root).expect("no path is short");
    Tree::new(vec![Arc::new(builder.finish())])
}

#[cfg(test)]
mod tests;
