//! Excerpts of the Dockerfile for messages.

use crate::location::{Range, bounds};
use std::fmt::Write;

/// Lines of context around a range of several lines, and around a single one.
const CONTEXT_LINES: u32 = 2;
const CONTEXT_LINES_SINGLE: u32 = 4;

const RULER: &str = "--------------------\n";

/// The lines of `ranges`, marked, with some context; empty if they are not in the file.
pub fn print_excerpt(filename: &str, data: &[u8], ranges: &[Range]) -> String {
    let data = String::from_utf8_lossy(data);
    let lines: Vec<&str> = data.split('\n').collect();
    let last_line = u32::try_from(lines.len()).unwrap_or(u32::MAX);
    let Some((first, last)) = bounds(ranges) else { return String::new() };
    if first < 1 || first > last_line {
        return String::new();
    }
    let (mut start, mut end) = (first, last.max(first).min(last_line));
    let wanted = if start == end { CONTEXT_LINES_SINGLE } else { CONTEXT_LINES };
    // Each round adds one line on both sides, and counts for one of the lines wanted itself.
    let mut padding = 0;
    while padding < wanted {
        if start > 1 {
            start -= 1;
            padding += 1;
        }
        if end != last_line {
            end += 1;
            padding += 1;
        }
        padding += 1;
    }
    let mut text = format!("{filename}:{first}\n{RULER}");
    for number in start..=end {
        let marked = ranges
            .iter()
            .any(|range| (range.start.line..=range.end.line.max(range.start.line)).contains(&number));
        let mark = if marked { ">>>" } else { "   " };
        let line = lines[number as usize - 1];
        writeln!(text, " {number:3} | {mark} {line}").expect("writing to a String cannot fail");
    }
    text + RULER
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::lines;

    #[test]
    fn excerpts() {
        let text = print_excerpt("Dockerfile", b"a\nb\nc\nd\ne\nf", &lines(3, 3));
        let want = "Dockerfile:3\n--------------------\n   1 |     a\n   2 |     b\n   3 | >>> c\n   4 |     d\n   5 |     e\n--------------------\n";
        assert_eq!(text, want);
        assert_eq!(print_excerpt("x", b"a", &lines(2, 2)), "");
        assert_eq!(print_excerpt("x", b"a", &[]), "");
    }
}
