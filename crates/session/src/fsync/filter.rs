//! Which files of a directory are sent.

use super::error::SyncError;
use super::follow;
use super::local_dir::LocalDir;
use crate::patterns::{MatchInfo, PatternMatcher};

/// Includes and excludes. A file is sent if an include matches (or there are none) and no exclude does, together with the directories
/// above it.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    /// No include has special characters but at its end: directories that cannot have matches need not be read.
    prefix_includes: bool,
    /// The same of exceptions from excludes.
    prefix_exceptions: bool,
}

/// What is known of a directory, for what is in it.
#[derive(Debug, Clone, Default)]
pub(super) struct DirMatch {
    include: MatchInfo,
    exclude: MatchInfo,
}

/// What the filter says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    /// Not it, but maybe something in it.
    LookInside,
    Skip,
}

impl Filter {
    /// Reads patterns. An empty list of includes includes everything.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, SyncError> {
        let matcher = |field: &'static str, patterns: &[String]| {
            if patterns.is_empty() {
                return Ok(None);
            }
            let matcher = PatternMatcher::new(patterns);
            matcher.map(Some).map_err(|source| SyncError::Patterns {
                field,
                patterns: patterns.to_vec(),
                source,
            })
        };
        let include = matcher("includepatterns", include)?;
        let exclude = matcher("excludepatterns", exclude)?;
        let all_prefixes = |matcher: &Option<PatternMatcher>, exclusion: bool| {
            let mut patterns = matcher.iter().flat_map(PatternMatcher::patterns);
            patterns.all(|pattern| pattern.is_exclusion() != exclusion || pattern.is_prefix())
        };
        Ok(Self {
            prefix_includes: all_prefixes(&include, false),
            prefix_exceptions: all_prefixes(&exclude, true),
            include,
            exclude,
        })
    }

    /// The filter of a request: includes, and what the links on certain paths of `dir` lead to.
    pub fn for_request(
        dir: &LocalDir,
        include: &[String],
        exclude: &[String],
        follow_paths: &[String],
    ) -> Result<Self, SyncError> {
        if follow_paths.is_empty() {
            return Self::new(include, exclude);
        }
        match follow::follow(dir, follow_paths)? {
            // One of the paths is the top: nothing is left out.
            None => Self::new(include, exclude),
            Some(paths) => {
                let mut include = include.to_vec();
                include.extend(paths);
                match follow::without_nested(include) {
                    None => Self::new(&[], exclude),
                    Some(include) => Self::new(&include, exclude),
                }
            }
        }
    }

    /// Judges a file in a directory of which `parent` is known.
    pub(super) fn judge(&self, path: &str, is_dir: bool, parent: &DirMatch) -> (Verdict, DirMatch) {
        let mut verdict = Verdict::Send;
        let mut here = DirMatch::default();
        let not_it = if is_dir { Verdict::LookInside } else { Verdict::Skip };
        if let Some(include) = &self.include {
            let (matched, info) = include.matches_using_parent_results(path, &parent.include);
            here.include = info;
            if !matched {
                if is_dir && self.prefix_includes && !may_match_inside(include, false, path) {
                    return (Verdict::Skip, here);
                }
                verdict = not_it;
            }
        }
        if let Some(exclude) = &self.exclude {
            let (matched, info) = exclude.matches_using_parent_results(path, &parent.exclude);
            here.exclude = info;
            if matched {
                if is_dir && self.prefix_exceptions && !may_match_inside(exclude, true, path) {
                    return (Verdict::Skip, here);
                }
                verdict = not_it;
            }
        }
        (verdict, here)
    }
}

/// Whether a pattern that is a plain path (but for its end) leads into the directory.
fn may_match_inside(matcher: &PatternMatcher, exclusion: bool, dir: &str) -> bool {
    let inside =
        |path: &str| path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    matcher
        .patterns()
        .iter()
        .any(|pattern| pattern.is_exclusion() == exclusion && inside(pattern.without_trailing_glob()))
}
