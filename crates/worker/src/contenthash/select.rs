//! Which paths of a tree a step looks at, and the digest of just these.

use super::ContentError;
use super::filter::Filter;
use super::scratch::Scratch;
use super::selection::{Selection, Whole};
use super::tree::{TooManyLinks, Tree};
use super::unread::Unread;
use crate::glob::{BadPattern, has_wildcards};
use crate::path;

/// A part of a ref: one path, or what matches a wildcard, less what the patterns leave out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    /// Rooted or not; empty is everything.
    pub path: String,
    /// `path` holds wildcards that count as such.
    pub wildcard: bool,
    /// Follow a link that `path` itself leads to.
    pub follow_links: bool,
    /// Only what matches one of these, relative to `path` (to what it matched, for a wildcard).
    pub include: Vec<String>,
    /// Not what matches these.
    pub exclude: Vec<String>,
    /// Prefixes of paths of which each must be among what is selected.
    pub required: Vec<String>,
}

impl Selector {
    /// The path as it is, with all that is below it.
    pub fn path(path: impl Into<String>) -> Selector {
        Selector { path: path.into(), ..Selector::default() }
    }

    /// Whether it picks paths one by one instead of a whole subtree.
    pub fn is_filter(&self) -> bool {
        self.wildcard || !self.include.is_empty() || !self.exclude.is_empty()
    }
}

/// Why a selector has no digest.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The text is BuildKit's: clients look for it.
    #[error("{path:?}: not found")]
    NotFound { path: String },
    #[error(transparent)]
    Links(#[from] TooManyLinks),
    #[error(transparent)]
    Wildcard(#[from] BadPattern),
    #[error("invalid {list}patterns: [{patterns}]")]
    Patterns {
        list: &'static str,
        patterns: String,
        #[source]
        source: kiln_session::patterns::PatternError,
    },
}

/// Picks what `selector` says of `tree`. Files whose content is not known are told to `unread`, and have to be read before
/// [`Selection::digest`].
///
/// # Errors
/// See [`SelectError`].
pub(super) fn select(
    tree: &Tree,
    selector: &Selector,
    unread: &mut Unread<'_>,
    scratch: &Scratch,
) -> Result<Selection, ContentError> {
    let rooted = path::rooted(&selector.path);
    if selector.is_filter() {
        return Filter::new(tree, selector, &rooted, scratch)?.run(unread);
    }
    Ok(Selection::Whole(Whole::new(tree, &rooted, selector.follow_links, unread)?))
}

/// The selectors of a list that say something: paths below others in the list go, the rest is in a fixed order.
pub fn without_redundant(selectors: &[Selector]) -> Vec<Selector> {
    let mut kept: Vec<Selector> = Vec::new();
    for follow_links in [false, true] {
        let plain = || selectors.iter().filter(|s| !s.is_filter() && s.follow_links == follow_links);
        for selector in plain() {
            let inside = |other: &Selector| {
                let dir = format!("{}/", other.path.trim_end_matches('/'));
                other.path != selector.path && selector.path.starts_with(&dir)
            };
            if !plain().any(inside) {
                kept.push(Selector { follow_links, ..Selector::path(selector.path.clone()) });
            }
        }
    }
    kept.sort();
    kept.dedup();
    kept.extend(selectors.iter().filter(|s| s.is_filter()).cloned());
    kept.sort_by(|a, b| a.path.cmp(&b.path));
    kept
}

/// Whether the wildcards of a `COPY` source are there to be expanded.
pub fn is_wildcard(path: &str, allowed: bool) -> bool {
    allowed && has_wildcards(path)
}
