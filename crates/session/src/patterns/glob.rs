//! One pattern, compiled.

use regex::Regex;

/// How a pattern is compared: most need no regular expression.
#[derive(Debug, Clone)]
pub(super) enum Glob {
    /// The path itself.
    Exact(String),
    /// All paths that begin so.
    Prefix(String),
    /// All paths that end so; with a leading slash also the rest itself.
    Suffix(String),
    Regex(Regex),
}

impl Glob {
    /// None: not a pattern.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        if !check_syntax(pattern) {
            return None;
        }
        compile(pattern)
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => {
                path.ends_with(suffix.as_str()) || suffix.strip_prefix('/').is_some_and(|rest| path == rest)
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// What the pattern has turned out to be so far.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

fn compile(pattern: &str) -> Option<Glob> {
    let mut regex = String::from("(?s)^");
    let mut kind = Kind::Exact;
    let mut chars = pattern.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.peek() == Some(&'*') => {
                chars.next();
                // `**/` is `**`.
                if chars.peek() == Some(&'/') {
                    chars.next();
                }
                if chars.peek().is_none() {
                    if kind == Kind::Exact {
                        kind = Kind::Prefix;
                    } else {
                        regex.push_str(".*");
                        kind = Kind::Regex;
                    }
                } else {
                    regex.push_str("(.*/)?");
                    kind = Kind::Regex;
                }
                if first {
                    kind = Kind::Suffix;
                }
            }
            '*' => {
                regex.push_str("[^/]*");
                kind = Kind::Regex;
            }
            '?' => {
                regex.push_str("[^/]");
                kind = Kind::Regex;
            }
            '\\' => match chars.next() {
                Some(next) => {
                    push_literal(&mut regex, next);
                    kind = Kind::Regex;
                }
                None => regex.push_str("\\\\"),
            },
            '[' => {
                push_class(&mut regex, &mut chars);
                kind = Kind::Regex;
            }
            ']' => {
                regex.push_str("\\]");
                kind = Kind::Regex;
            }
            // In the middle of a regular expression it means the beginning, which is never there.
            '^' => regex.push('^'),
            c => push_literal(&mut regex, c),
        }
        first = false;
    }
    Some(match kind {
        Kind::Exact => Glob::Exact(pattern.to_string()),
        Kind::Prefix => Glob::Prefix(pattern[..pattern.len() - 2].to_string()),
        // Only what follows the leading `**` without further special characters gets here.
        Kind::Suffix => Glob::Suffix(pattern[2..].to_string()),
        Kind::Regex => {
            regex.push('$');
            Glob::Regex(Regex::new(&regex).ok()?)
        }
    })
}

fn push_literal(regex: &mut String, c: char) {
    regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// A class as Go's regular expressions read it, in the syntax of ours, which knows more operators.
fn push_class(regex: &mut String, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    regex.push('[');
    if chars.peek() == Some(&'^') {
        chars.next();
        regex.push('^');
    }
    while let Some(c) = chars.next() {
        match c {
            ']' => break,
            '-' => regex.push('-'),
            '\\' => {
                if let Some(next) = chars.next() {
                    push_class_literal(regex, next);
                }
            }
            c => push_class_literal(regex, c),
        }
    }
    regex.push(']');
}

fn push_class_literal(regex: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        regex.push('\\');
    }
    regex.push(c);
}

/// Go's `filepath.Match` as a regular expression: no `**`.
pub(super) fn component(pattern: &str) -> Option<Regex> {
    let mut regex = String::from("(?s)^");
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => push_class(&mut regex, &mut chars),
            '\\' => push_literal(&mut regex, chars.next()?),
            c => push_literal(&mut regex, c),
        }
    }
    regex.push('$');
    Regex::new(&regex).ok()
}

/// What Go's `filepath.Match(pattern, ".")` does not call a bad pattern: classes are closed, not empty, and their ranges have ends;
/// nothing ends in a backslash.
pub(super) fn check_syntax(pattern: &str) -> bool {
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return false,
            '[' if !check_class(&mut chars) => return false,
            _ => {}
        }
    }
    true
}

fn check_class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    if chars.peek() == Some(&'^') {
        chars.next();
    }
    let mut members = 0;
    loop {
        if chars.peek() == Some(&']') && members > 0 {
            chars.next();
            return true;
        }
        if !check_member(chars) {
            return false;
        }
        if chars.peek() == Some(&'-') {
            chars.next();
            if !check_member(chars) {
                return false;
            }
        }
        members += 1;
    }
}

fn check_member(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    match chars.next() {
        None | Some('-' | ']') => false,
        Some('\\') => chars.next().is_some() && chars.peek().is_some(),
        Some(_) => chars.peek().is_some(),
    }
}
