//! Which paths of a tree a step looks at, and the digest of just these.

use super::table::RecordKind;
use super::tree::{TooManyLinks, Tree};
use crate::encode::{Encoder, Hash};
use crate::glob::{BadPattern, Glob, has_wildcards, split_wildcards};
use crate::path;
use kiln_session::patterns::{MatchInfo, PatternMatcher};

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

/// What a selector picked.
#[derive(Debug)]
pub struct Selection {
    items: Vec<Item>,
    /// The one item stands for itself, without the name it was found under.
    bare: bool,
}

#[derive(Debug)]
struct Item {
    /// Relative to the selector's path.
    name: String,
    index: usize,
    /// With everything below.
    deep: bool,
}

impl Selection {
    /// The places of all files whose content has to be known before [`Selection::digest`].
    pub fn files<'a>(&'a self, tree: &'a Tree) -> impl Iterator<Item = usize> + 'a {
        self.items
            .iter()
            .flat_map(|item| {
                let below =
                    if item.deep && tree.record(item.index).is_dir() { tree.below(item.index) } else { 0..0 };
                std::iter::once(item.index).chain(below)
            })
            .filter(|&index| tree.record(index).kind == RecordKind::File)
    }

    /// The digest; `None` while the content of a file is not known.
    pub fn digest(&self, tree: &Tree) -> Option<Hash> {
        let of =
            |item: &Item| if item.deep { tree.deep_digest(item.index) } else { tree.own_digest(item.index) };
        if let ([item], true) = (&*self.items, self.bare) {
            return of(item);
        }
        let mut encoder = Encoder::new("kiln.content.list.v1");
        encoder.u64(self.items.len() as u64);
        for item in &self.items {
            encoder.str(&item.name).hash(&of(item)?);
        }
        Some(encoder.finish())
    }
}

/// Picks what `selector` says.
///
/// # Errors
/// See [`SelectError`].
pub fn select(tree: &Tree, selector: &Selector) -> Result<Selection, SelectError> {
    let rooted = path::rooted(&selector.path);
    if !selector.is_filter() {
        let item = whole(tree, &rooted, selector.follow_links)?;
        return Ok(Selection { items: vec![item], bare: true });
    }
    Filter::new(tree, selector, &rooted)?.run()
}

/// The path with everything below it.
fn whole(tree: &Tree, rooted: &str, follow_links: bool) -> Result<Item, SelectError> {
    match tree.resolve(rooted, follow_links)? {
        Some(index) => Ok(Item { name: String::new(), index, deep: true }),
        None => Err(SelectError::NotFound { path: rooted.to_owned() }),
    }
}

/// Goes through the paths in order and keeps those that match.
struct Filter<'a> {
    tree: &'a Tree,
    selector: &'a Selector,
    /// Without trailing slash: empty for the root.
    path: &'a str,
    glob: Option<Glob>,
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    picked: Vec<Picked>,
    /// Folders around the path at hand, from the outside in.
    around: Vec<Around>,
}

struct Picked {
    /// As the selector spells it, through links or not.
    path: String,
    index: usize,
    follow: bool,
}

struct Around {
    path: String,
    index: usize,
    picked: bool,
    follow: bool,
    include: MatchInfo,
    exclude: MatchInfo,
}

impl<'a> Filter<'a> {
    fn new(tree: &'a Tree, selector: &'a Selector, rooted: &'a str) -> Result<Filter<'a>, SelectError> {
        let matcher = |list, patterns: &[String]| {
            if patterns.is_empty() {
                return Ok(None);
            }
            let invalid = |source| SelectError::Patterns { list, patterns: patterns.join(" "), source };
            PatternMatcher::new(patterns).map(Some).map_err(invalid)
        };
        let path = if rooted == "/" { "" } else { rooted };
        let wildcard = selector.wildcard && !path.is_empty();
        Ok(Filter {
            tree,
            selector,
            path,
            glob: if wildcard { Some(Glob::new(path)?) } else { None },
            include: matcher("include", &selector.include)?,
            exclude: matcher("exclude", &selector.exclude)?,
            picked: Vec::new(),
            around: Vec::new(),
        })
    }

    fn run(mut self) -> Result<Selection, SelectError> {
        // The part before the first wildcard is resolved through links; the paths below are then spelled as the
        // selector spells them, for patterns are written against those.
        let (prefix, start) = self.start()?;
        if let Some(start) = start {
            let resolved = text(self.tree.record(start).path);
            let mut matched = self.glob.is_none().then(|| self.path.to_owned());
            for index in start..self.tree.below(start).end {
                let real = text(self.tree.record(index).path);
                let spelled = format!("{prefix}{}", &real[resolved.len()..]);
                self.visit(index, spelled, &mut matched);
            }
        }
        for required in &self.selector.required {
            if !self.picked.iter().any(|picked| picked.path.starts_with(required.as_str())) {
                return Err(SelectError::NotFound { path: required.clone() });
            }
        }
        self.finish(&prefix)
    }

    fn start(&self) -> Result<(String, Option<usize>), SelectError> {
        if self.glob.is_none() {
            return Ok((self.path.to_owned(), self.tree.resolve(self.path, false)?));
        }
        let (fixed, rest) = split_wildcards(self.path);
        if fixed == "/" {
            return Ok((String::new(), self.tree.find(b"")));
        }
        let start = self.tree.resolve(&fixed, !rest.is_empty())?;
        Ok((fixed, start))
    }

    /// `matched` is the folder that the patterns are relative to: the last path that the wildcard matched.
    fn visit(&mut self, index: usize, spelled: String, matched: &mut Option<String>) {
        while self.around.last().is_some_and(|dir| !is_below(&spelled, &dir.path)) {
            self.around.pop();
        }
        let record = self.tree.record(index);
        // The root's own header is nothing that a step chose.
        if spelled.is_empty() && record.is_dir() {
            return;
        }
        if let Some(glob) = &self.glob
            && !matched.as_ref().is_some_and(|dir| is_below(&spelled, dir))
        {
            if !glob.matches(&spelled) {
                return;
            }
            *matched = Some(spelled.clone());
        }
        let base = matched.as_deref().unwrap_or_default();
        let candidate = spelled.strip_prefix(base).unwrap_or(&spelled).trim_start_matches('/').to_owned();
        let follow = self.around.is_empty() && self.selector.follow_links;
        let (wanted, include, exclude) = self.wanted(&candidate);
        if wanted {
            for dir in self.around.iter_mut().filter(|dir| !dir.picked) {
                dir.picked = true;
                self.picked.push(Picked { path: dir.path.clone(), index: dir.index, follow: dir.follow });
            }
            self.picked.push(Picked { path: spelled.clone(), index, follow });
        }
        if record.is_dir() {
            self.around.push(Around { path: spelled, index, picked: wanted, follow, include, exclude });
        }
    }

    fn wanted(&self, candidate: &str) -> (bool, MatchInfo, MatchInfo) {
        let parent = self.around.last();
        let none = MatchInfo::default();
        let (mut include, mut exclude) = (MatchInfo::default(), MatchInfo::default());
        if let Some(matcher) = &self.include {
            let (matches, info) =
                matcher.matches_using_parent_results(candidate, parent.map_or(&none, |dir| &dir.include));
            include = info;
            if !matches {
                return (false, include, exclude);
            }
        }
        if let Some(matcher) = &self.exclude {
            let (matches, info) =
                matcher.matches_using_parent_results(candidate, parent.map_or(&none, |dir| &dir.exclude));
            exclude = info;
            if matches {
                return (false, include, exclude);
            }
        }
        (true, include, exclude)
    }

    fn finish(self, prefix: &str) -> Result<Selection, SelectError> {
        let mut items = Vec::with_capacity(self.picked.len());
        let bare = match &*self.picked {
            [only] => path::base(self.path) == path::base(&only.path),
            _ => false,
        };
        for picked in self.picked {
            let name = picked.path.strip_prefix(prefix).unwrap_or(&picked.path).to_owned();
            let link = matches!(self.tree.record(picked.index).kind, RecordKind::Symlink { .. });
            items.push(if picked.follow && link {
                Item { name, ..whole(self.tree, &picked.path, true)? }
            } else {
                Item { name, index: picked.index, deep: false }
            });
        }
        Ok(Selection { items, bare })
    }
}

/// A record's path as the patterns see it: rooted, empty for the root.
fn text(path: &[u8]) -> String {
    if path.is_empty() { String::new() } else { format!("/{}", String::from_utf8_lossy(path)) }
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
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
