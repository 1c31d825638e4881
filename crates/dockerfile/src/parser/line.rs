//! Physical lines, and how continuations join them into logical ones.

use crate::limits::LINE_BYTES_MAX;

/// The lines of a text, each with its line feed, counted. Ends early at a line that is too long.
pub(super) struct Lines<'a> {
    rest: &'a str,
    number: u32,
    too_long: bool,
}

impl<'a> Lines<'a> {
    /// A byte-order mark at the beginning is dropped.
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text.strip_prefix('\u{feff}').unwrap_or(text), number: 0, too_long: false }
    }

    /// How many lines were read so far, which is the number of the last one.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn too_long(&self) -> bool {
        self.too_long
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() || self.too_long {
            return None;
        }
        let (len, limit) = match self.rest.find('\n') {
            Some(feed) => (feed + 1, LINE_BYTES_MAX),
            None => (self.rest.len(), LINE_BYTES_MAX - 1),
        };
        if len > limit {
            self.too_long = true;
            return None;
        }
        let (line, rest) = self.rest.split_at(len);
        self.rest = rest;
        self.number += 1;
        Some(line)
    }
}

/// A logical line.
pub(super) struct Joined {
    pub(super) text: String,
    /// An empty line stands between its parts, which is allowed but will not be for ever.
    pub(super) has_empty_line: bool,
}

/// Joins `first` with the lines that continue it; `None` if there is nothing on it.
pub(super) fn join(first: &str, lines: &mut Lines<'_>, escape: char) -> Option<Joined> {
    let (part, mut continues) = split_continuation(first, escape);
    if part.is_empty() && !continues {
        return None;
    }
    let mut joined = Joined { text: part.to_owned(), has_empty_line: false };
    while continues {
        let Some(raw) = lines.next() else { break };
        if is_comment(raw) {
            continue;
        }
        let line = without_line_end(raw);
        if line.trim_start().is_empty() {
            joined.has_empty_line = true;
            continue;
        }
        let (part, more) = split_continuation(line, escape);
        joined.text.push_str(part);
        continues = more;
    }
    Some(joined)
}

/// The part of a line before its continuation mark, and whether it has one. A mark is one escape
/// character, not escaped itself, with nothing but blanks after it.
fn split_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(part) if !part.ends_with(escape) => (part, true),
        _ => (line, false),
    }
}

pub(super) fn without_line_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

pub(super) fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}
