//! The lines of a definition file that a message is about.

use std::fmt::Write as _;

use crate::event::{Range, SourceInfo};
use crate::sanitize;

const RULE: &str = "--------------------\n";
/// Lines of context around one line, and around more than one.
const CONTEXT_OF_ONE: usize = 4;
const CONTEXT_OF_MANY: usize = 2;

/// An excerpt with a header `Dockerfile:3` and `>>>` before the lines in `ranges`. `None` where the ranges name no line
/// of the file.
pub fn excerpt(info: &SourceInfo, ranges: &[Range]) -> Option<String> {
    let text = String::from_utf8_lossy(&info.data);
    let lines: Vec<&str> = text.split('\n').collect();
    let first = usize::try_from(ranges.iter().map(|range| range.start.line).min()?).ok()?;
    let last = usize::try_from(ranges.iter().map(last_line).max()?).ok()?.min(lines.len());
    if first < 1 || first > lines.len() {
        return None;
    }
    let (mut from, mut to) = (first, last);
    let context = if first == last { CONTEXT_OF_ONE } else { CONTEXT_OF_MANY };
    let mut padded = 0;
    while padded < context {
        if from > 1 {
            from -= 1;
            padded += 1;
        }
        if to < lines.len() {
            to += 1;
            padded += 1;
        }
        padded += 1;
    }

    let mut out = format!("{}:{first}\n{RULE}", sanitize::text(&info.filename));
    for number in from..=to {
        let marked = ranges.iter().any(|range| contains(range, number));
        let marker = if marked { ">>>" } else { "   " };
        let line = sanitize::text(lines[number - 1]);
        writeln!(out, " {number:3} | {marker} {line}").expect("a String takes every write");
    }
    out.push_str(RULE);
    Some(out)
}

fn last_line(range: &Range) -> i32 {
    range.end.line.max(range.start.line)
}

fn contains(range: &Range, line: usize) -> bool {
    let Ok(line) = i32::try_from(line) else { return false };
    range.start.line <= line && line <= last_line(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Position;

    fn range(start: i32, end: i32) -> Range {
        Range { start: Position { line: start, character: 0 }, end: Position { line: end, character: 0 } }
    }

    fn info(lines: &[&str]) -> SourceInfo {
        SourceInfo {
            filename: "Dockerfile".into(),
            data: lines.join("\n").into(),
            language: "Dockerfile".into(),
        }
    }

    #[test]
    fn marks_the_lines_and_shows_some_around() {
        let file = info(&["FROM a", "", "COPY . .", "RUN false", "", "CMD x", ""]);
        insta::assert_snapshot!(excerpt(&file, &[range(4, 4)]).unwrap(), @r"
        Dockerfile:4
        --------------------
           2 |     
           3 |     COPY . .
           4 | >>> RUN false
           5 |     
           6 |     CMD x
        --------------------
        ");
        insta::assert_snapshot!(excerpt(&file, &[range(3, 4)]).unwrap(), @r"
        Dockerfile:3
        --------------------
           2 |     
           3 | >>> COPY . .
           4 | >>> RUN false
           5 |     
        --------------------
        ");
        insta::assert_snapshot!(excerpt(&info(&["FROM x"]), &[range(1, 0)]).unwrap(), @r"
        Dockerfile:1
        --------------------
           1 | >>> FROM x
        --------------------
        ");
    }

    #[test]
    fn ranges_outside_the_file_give_nothing() {
        let file = info(&["FROM a"]);
        assert_eq!(excerpt(&file, &[]), None);
        assert_eq!(excerpt(&file, &[range(0, 0)]), None);
        assert_eq!(excerpt(&file, &[range(-3, -1)]), None);
        assert_eq!(excerpt(&file, &[range(9, 9)]), None);
        assert!(excerpt(&file, &[range(1, i32::MAX)]).is_some());
    }

    #[test]
    fn escapes_in_the_file_do_not_reach_the_terminal() {
        let shown = excerpt(&info(&["RUN echo \x1b[2J\x07hi"]), &[range(1, 1)]).unwrap();
        assert!(!shown.contains('\x1b') && !shown.contains('\x07'), "{shown:?}");
    }
}
