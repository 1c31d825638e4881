//! Selectors that pick paths one by one: wildcards and patterns.

use kiln_session::patterns::{MatchInfo, PatternMatcher};

use super::ContentError;
use super::record::RecordKind;
use super::scratch::Scratch;
use super::select::{SelectError, Selector};
use super::selection::{Picks, Selection, Whole};
use super::tree::{Here, Tree};
use super::unread::Unread;
use crate::encode::Hash;
use crate::glob::{Glob, split_wildcards};
use crate::path;

/// Goes through the paths in order and keeps those that match.
pub(super) struct Filter<'a> {
    tree: &'a Tree,
    selector: &'a Selector,
    /// Without trailing slash: empty for the root.
    path: &'a str,
    glob: Option<Glob>,
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    picks: Picks,
    /// The first pick has the name that the selector's path ends in.
    same_name: bool,
    /// Of the selector's required prefixes those that no pick has begun with.
    lacking: Vec<&'a str>,
    /// What became of links that were followed.
    links: Result<(), ContentError>,
    /// Folders around the path at hand, from the outside in.
    around: Vec<Around>,
}

struct Around {
    /// As the selector spells it, through links or not.
    path: String,
    /// Its digest.
    header: Hash,
    picked: bool,
    include: MatchInfo,
    exclude: MatchInfo,
}

impl<'a> Filter<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        selector: &'a Selector,
        rooted: &'a str,
        scratch: &Scratch,
    ) -> Result<Filter<'a>, SelectError> {
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
            picks: Picks::new(scratch),
            same_name: false,
            lacking: selector.required.iter().map(String::as_str).collect(),
            links: Ok(()),
            around: Vec::new(),
        })
    }

    pub(super) fn run(mut self, unread: &mut Unread<'_>) -> Result<Selection, ContentError> {
        // The part before the first wildcard is resolved through links; the paths below are then spelled as the
        // selector spells them, for patterns are written against those.
        let (prefix, start) = self.start()?;
        if let Some(start) = start {
            let resolved = text(&start);
            let mut matched = self.glob.is_none().then(|| self.path.to_owned());
            let mut walk = self.tree.walk(&start)?;
            while let Some(here) = walk.next()? {
                let real = text(here.record().path);
                let spelled = format!("{prefix}{}", &real[resolved.len()..]);
                self.visit(&here, spelled, &prefix, &mut matched, unread)?;
            }
        }
        if let Some(lacking) = self.lacking.first() {
            return Err(SelectError::NotFound { path: (*lacking).to_owned() }.into());
        }
        self.links?;
        if self.picks.count() == 1 && self.same_name {
            return Ok(Selection::Whole(self.picks.first()?));
        }
        Ok(Selection::Listed(self.picks))
    }

    fn start(&self) -> Result<(String, Option<Vec<u8>>), ContentError> {
        if self.glob.is_none() {
            return Ok((self.path.to_owned(), self.tree.resolve(self.path, false)?));
        }
        let (fixed, rest) = split_wildcards(self.path);
        if fixed == "/" {
            return Ok((String::new(), Some(Vec::new())));
        }
        let start = self.tree.resolve(&fixed, !rest.is_empty())?;
        Ok((fixed, start))
    }

    /// `matched` is the folder that the patterns are relative to: the last path that the wildcard matched.
    fn visit(
        &mut self,
        here: &Here<'_>,
        spelled: String,
        prefix: &str,
        matched: &mut Option<String>,
        unread: &mut Unread<'_>,
    ) -> Result<(), ContentError> {
        while self.around.pop_if(|dir| !is_below(&spelled, &dir.path)).is_some() {}
        let record = here.record();
        // The root's own header is nothing that a step chose.
        if spelled.is_empty() && record.is_dir() {
            return Ok(());
        }
        if let Some(glob) = &self.glob
            && !matched.as_ref().is_some_and(|dir| is_below(&spelled, dir))
        {
            if !glob.matches(&spelled) {
                return Ok(());
            }
            *matched = Some(spelled.clone());
        }
        let base = matched.as_deref().unwrap_or_default();
        let candidate = spelled.strip_prefix(base).unwrap_or(&spelled).trim_start_matches('/');
        let follow = self.around.is_empty() && self.selector.follow_links;
        let (wanted, include, exclude) = self.wanted(candidate);
        if wanted {
            self.pick_around(prefix)?;
            let item = if follow && matches!(record.kind, RecordKind::Symlink { .. }) {
                // What is required and missing is told before links that lead nowhere.
                match Whole::new(self.tree, &spelled, true, unread) {
                    Ok(item) => item,
                    Err(error) => {
                        self.links = std::mem::replace(&mut self.links, Ok(())).and(Err(error));
                        Whole::Known(Hash::default())
                    }
                }
            } else {
                Whole::alone(here, unread)?
            };
            self.pick(&spelled, prefix, &item)?;
        }
        if record.is_dir() {
            let header = *record.header;
            self.around.push(Around { path: spelled, header, picked: wanted, include, exclude });
        }
        Ok(())
    }

    /// The folders that a pick lies in.
    fn pick_around(&mut self, prefix: &str) -> Result<(), ContentError> {
        let mut around = std::mem::take(&mut self.around);
        for dir in around.iter_mut().filter(|dir| !dir.picked) {
            dir.picked = true;
            self.pick(&dir.path, prefix, &Whole::Known(dir.header))?;
        }
        self.around = around;
        Ok(())
    }

    fn pick(&mut self, spelled: &str, prefix: &str, item: &Whole) -> Result<(), ContentError> {
        if self.picks.count() == 0 {
            self.same_name = path::base(self.path) == path::base(spelled);
        }
        self.lacking.retain(|required| !spelled.starts_with(required));
        Ok(self.picks.add(spelled.strip_prefix(prefix).unwrap_or(spelled), item)?)
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
}

/// A record's path as the patterns see it: rooted, empty for the root.
fn text(path: &[u8]) -> String {
    if path.is_empty() { String::new() } else { format!("/{}", String::from_utf8_lossy(path)) }
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}
