//! Digests of what a ref holds, blind to times: two refs with the same paths, bytes, modes, owners, links and extended
//! attributes have the same digest, however they came about.
//!
//! Every layer has a [`LayerTable`]; a ref is the [`Tree`] of its layers' tables. The names and headers of a layer are
//! read when it is first asked about, the bytes of a file when a [`Selector`] first picks it, by several threads.
//! Tables are kept with their layers, so that a second build reads no file at all.
//!
//! Everything is gone through in the order of paths, and what may be as long as paths are many is in memory only while it is short:
//! see [`Scratch`].

mod builder;
mod filter;
mod form;
mod merge;
mod record;
mod scan;
mod scratch;
mod select;
mod selection;
mod stored;
mod table;
mod tree;
mod unread;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_layer::threads::Budget;

pub use builder::{TableBuilder, TableError};
pub use record::{Record, RecordKind};
pub use scan::{header_of, scan};
pub use scratch::Scratch;
pub use select::{SelectError, Selector, is_wildcard, without_redundant};
pub use stored::StoredError;
pub use table::LayerTable;
pub use tree::Tree;

use select::select;
use unread::Unread;

use crate::encode::{Encoder, Hash};
use crate::error::PathError;

/// Why content has no digest.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    #[error(transparent)]
    Select(#[from] SelectError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Table(#[from] TableError),
}

impl From<io::Error> for ContentError {
    fn from(error: io::Error) -> ContentError {
        TableError::from(error).into()
    }
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
    scratch: &Scratch,
) -> Result<Hash, ContentError> {
    let everything = [Selector::default()];
    let selectors = if selectors.is_empty() { &everything } else { selectors };
    let mut unread = Unread::new(tree, dirs, budget, scratch.bounds);
    let selections = selectors
        .iter()
        .map(|selector| select(tree, selector, &mut unread, scratch))
        .collect::<Result<Vec<_>, _>>()?;
    unread.read()?;
    let mut encoder = Encoder::new("kiln.content.v1");
    encoder.u64(selections.len() as u64);
    for selection in &selections {
        encoder.hash(&selection.digest(tree)?);
    }
    Ok(encoder.finish())
}

/// The tree of a ref without layers: nothing but a root that says nothing.
///
/// # Errors
/// None where memory has room for one record.
pub fn empty_tree(scratch: &Scratch) -> Result<Tree, TableError> {
    let mut builder = TableBuilder::new(scratch);
    let kind = RecordKind::Dir { opaque: false };
    builder.push(&Record { path: b"", kind, header: &Hash::default(), content: None })?;
    Ok(Tree::new(vec![Arc::new(builder.finish()?)]))
}

#[cfg(test)]
mod same;
#[cfg(test)]
mod tests;
