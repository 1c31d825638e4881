//! Aligned columns of text.

/// Rows whose cells, but for the last of each row, are padded to the width of their column.
pub(crate) struct Table {
    padding: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns are `padding` spaces apart.
    pub(crate) fn new(padding: usize) -> Self {
        Self { padding, rows: Vec::new() }
    }

    pub(crate) fn row<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) {
        self.rows.push(cells.into_iter().map(str::to_owned).collect());
    }

    pub(crate) fn finish(self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells =
                self.rows.iter().filter(|row| column + 1 < row.len()).map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let Some((last, cells)) = row.split_last() else { continue };
            for (cell, width) in cells.iter().zip(&widths) {
                // A column in which every cell is empty takes no room at all.
                let total = if *width == 0 { 0 } else { width + self.padding };
                text.push_str(&format!("{cell:total$}"));
            }
            text.push_str(last);
            text.push('\n');
        }
        text
    }
}
