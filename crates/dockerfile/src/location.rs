//! Places in a source file: lines are counted from 1, characters from 0; line 0 means "not known".

/// A point in a source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    pub line: u32,
    pub character: u32,
}

/// A stretch of a source file, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Range {
    pub start: Position,
    pub end: Position,
}

impl Range {
    /// The whole of one line.
    pub fn line(line: u32) -> Self {
        let position = Position { line, character: 0 };
        Self { start: position, end: position }
    }
}

/// One range a line, as BuildKit's clients expect them, from `start` to `end` (both included).
pub fn lines(start: u32, end: u32) -> Vec<Range> {
    (start..=end.max(start)).map(Range::line).collect()
}

/// First and last line covered by `ranges`, or `None` if there are none.
pub fn bounds(ranges: &[Range]) -> Option<(u32, u32)> {
    let start = ranges.iter().map(|range| range.start.line).min()?;
    let end = ranges.iter().map(|range| range.end.line).max()?;
    Some((start, end))
}

/// All ranges of `groups` in order of their first line, those that share a line joined.
pub fn merge(groups: &[Vec<Range>]) -> Vec<Range> {
    let mut all: Vec<Range> = groups.iter().flatten().copied().collect();
    all.sort_by_key(|range| range.start.line);
    let mut merged: Vec<Range> = Vec::with_capacity(all.len());
    for range in all {
        match merged.last_mut() {
            Some(last) if range.start.line <= last.end.line => {
                last.end.line = last.end.line.max(range.end.line);
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_one_range_each() {
        assert_eq!(lines(3, 5), [Range::line(3), Range::line(4), Range::line(5)]);
        assert_eq!(lines(3, 0), [Range::line(3)]);
    }

    #[test]
    fn merging_joins_overlaps_only() {
        let merged = merge(&[lines(4, 4), lines(1, 2), lines(2, 2)]);
        assert_eq!(merged, [Range::line(1), Range::line(2), Range::line(4)]);
    }
}
