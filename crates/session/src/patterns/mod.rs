//! Patterns of `.dockerignore` files and of includes and excludes: paths against lists in which `!` takes back.
//!
//! `*` and `?` stop at slashes, `**` does not, `[…]` is a class, `\` takes the next character as it is. A pattern also matches all
//! that is below what it matches. The last pattern that matches decides. Pure.

mod glob;

use std::fmt;

use glob::Glob;

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `!` without a pattern.
    #[error("illegal exclusion pattern: \"!\"")]
    OnlyExclusion,
    /// A class that does not end, and the like.
    #[error("syntax error in pattern")]
    Syntax {
        /// The pattern.
        pattern: String,
    },
}

/// One pattern of a list.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    exclusion: bool,
    glob: Glob,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.exclusion { "!" } else { "" }, self.text)
    }
}

impl Pattern {
    /// The cleaned text, without `!`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it takes back.
    pub fn is_exclusion(&self) -> bool {
        self.exclusion
    }

    fn matches(&self, path: &str) -> bool {
        self.glob.matches(path)
    }

    /// Without a last `/**` or `/*`.
    pub(crate) fn without_trailing_glob(&self) -> &str {
        let text = self.text.strip_suffix("/**").unwrap_or(&self.text);
        text.strip_suffix("/*").unwrap_or(text)
    }

    /// Whether what is before a last `/**` or `/*` has no special characters.
    pub(crate) fn is_prefix(&self) -> bool {
        !self.without_trailing_glob().contains(['*', '[', ']', '?', '^', '\\'])
    }
}

/// A list of patterns.
#[derive(Debug, Clone, Default)]
pub struct PatternMatcher {
    patterns: Vec<Pattern>,
}

/// Which patterns matched a directory, for what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MatchInfo(Vec<bool>);

impl PatternMatcher {
    /// Reads patterns; empty ones do not count.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        let mut list = Vec::new();
        for text in patterns {
            let text = text.as_ref().trim();
            if text.is_empty() {
                continue;
            }
            let text = clean(text);
            let (exclusion, text) = match text.strip_prefix('!') {
                Some("") => return Err(PatternError::OnlyExclusion),
                Some(rest) => (true, rest.to_string()),
                None => (false, text),
            };
            let glob = Glob::new(&text).ok_or_else(|| PatternError::Syntax { pattern: text.clone() })?;
            list.push(Pattern { text, exclusion, glob });
        }
        Ok(Self { patterns: list })
    }

    /// The patterns in order.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether one of them takes back.
    pub fn has_exclusions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exclusion)
    }

    /// Whether `path` (relative, with slashes) or a directory above it is matched.
    pub fn matches_or_parent_matches(&self, path: &str) -> bool {
        let mut matched = false;
        for pattern in &self.patterns {
            // A pattern that could not change the answer is not asked.
            if pattern.exclusion == matched && matches_upwards(pattern, path) {
                matched = !pattern.exclusion;
            }
        }
        matched
    }

    /// The same for a walk: what matched the directory that has `path` is known. `MatchInfo::default()` at the top.
    pub fn matches_using_parent_results(&self, path: &str, parent: &MatchInfo) -> (bool, MatchInfo) {
        let mut matched = false;
        let mut info = MatchInfo(vec![false; self.patterns.len()]);
        for (index, pattern) in self.patterns.iter().enumerate() {
            let mut matches = parent.0.get(index).copied().unwrap_or(false);
            if !matches {
                if pattern.exclusion != matched {
                    continue;
                }
                matches =
                    if parent.0.is_empty() { matches_upwards(pattern, path) } else { pattern.matches(path) };
            }
            info.0[index] = matches;
            if matches {
                matched = !pattern.exclusion;
            }
        }
        (matched, info)
    }
}

/// Whether the pattern matches the path or a directory above it.
fn matches_upwards(pattern: &Pattern, path: &str) -> bool {
    pattern.matches(path)
        || path.match_indices('/').any(|(slash, _)| slash > 0 && pattern.matches(&path[..slash]))
}

/// The path as Go's `filepath.Clean` gives it.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}

/// Go's `filepath.Match` for one path component or more; `None` if the pattern is none.
pub(crate) fn match_component(pattern: &str, name: &str) -> Option<bool> {
    glob::check_syntax(pattern).then(|| glob::component(pattern).is_some_and(|regex| regex.is_match(name)))
}

#[cfg(test)]
mod tests;
