//! Data for standard output.

use std::io::Write as _;

use crate::error::{Context as _, Result};

/// Spaces between two columns.
const GAP: usize = 3;

/// Writes to standard output.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).when("write to standard output")
}

/// Lines in columns; the first has the headings.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let pad = width + GAP - cell.chars().count();
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', pad));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `2 hours ago`.
pub fn ago(seconds: i64) -> String {
    const UNITS: [(i64, i64, &str); 6] = [
        (63_072_000, 31_536_000, "year"),
        (5_184_000, 2_592_000, "month"),
        (1_209_600, 604_800, "week"),
        (172_800, 86_400, "day"),
        (3600, 3600, "hour"),
        (60, 60, "minute"),
    ];
    let unit = UNITS.iter().find(|(from, _, _)| seconds >= *from);
    let (count, unit) =
        unit.map_or((seconds.max(0), "second"), |(_, length, name)| (seconds / length, *name));
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["A", "LONG"], vec!["value", "b"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(table(&rows), "A       LONG\nvalue   b\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn ages_are_rounded() {
        for (seconds, expected) in
            [(1, "1 second ago"), (90, "1 minute ago"), (7200, "2 hours ago"), (864_000, "10 days ago")]
        {
            assert_eq!(ago(seconds), expected);
        }
    }
}
