//! The last lines of a running step, as a terminal would show them.
//!
//! A step may redraw its own progress bar with carriage returns and cursor movements. This small screen obeys those
//! within its own few rows and keeps plain characters only, so that nothing of it reaches the real terminal.

use std::collections::VecDeque;

use unicode_width::UnicodeWidthChar as _;

const TAB_COLUMNS: usize = 8;
/// Parameters kept of one control sequence; more are read and forgotten.
const PARAMETERS_MAX: usize = 8;
/// Stands in the second cell of a wide character; never shown.
const SECOND_CELL: char = '\u{0}';

/// A few rows of text and a cursor.
#[derive(Debug)]
pub struct Terminal {
    rows: VecDeque<Vec<char>>,
    height: usize,
    width: usize,
    row: usize,
    column: usize,
    state: State,
    undecoded: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Text,
    Escape,
    Control { parameters: Vec<u16>, private: bool },
    String { escaped: bool },
}

impl Terminal {
    /// An empty screen; both sizes are at least 1.
    pub fn new(height: usize, width: usize) -> Self {
        Self {
            rows: VecDeque::from([Vec::new()]),
            height: height.max(1),
            width: width.max(1),
            row: 0,
            column: 0,
            state: State::Text,
            undecoded: Vec::new(),
        }
    }

    /// Changes the size; rows that no longer fit go from the top.
    pub fn resize(&mut self, height: usize, width: usize) {
        self.height = height.max(1);
        self.width = width.max(1);
        while self.rows.len() > self.height {
            self.rows.pop_front();
            self.row = self.row.saturating_sub(1);
        }
        // The cursor may stand below the last row that was written to.
        self.row = self.row.min(self.height - 1);
        self.column = self.column.min(self.width);
    }

    /// Takes output, which may end in the middle of a character or a sequence.
    pub fn write(&mut self, data: &[u8]) {
        let mut joined = std::mem::take(&mut self.undecoded);
        joined.extend_from_slice(data);
        let mut rest = joined.as_slice();
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    text.chars().for_each(|c| self.take(c));
                    return;
                }
                Err(error) => {
                    let (valid, bad) = rest.split_at(error.valid_up_to());
                    let text = std::str::from_utf8(valid).expect("valid up to here");
                    text.chars().for_each(|c| self.take(c));
                    let Some(bad_bytes) = error.error_len() else {
                        self.undecoded = bad.to_vec();
                        return;
                    };
                    self.take(char::REPLACEMENT_CHARACTER);
                    rest = &bad[bad_bytes..];
                }
            }
        }
    }

    /// The rows that hold more than blanks, top to bottom, at most as many as the screen is high.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.rows
            .iter()
            .map(|row| row.iter().filter(|c| **c != SECOND_CELL).collect::<String>().trim_end().to_owned())
            .filter(|line| !line.trim_start().is_empty())
    }

    fn take(&mut self, c: char) {
        match &mut self.state {
            State::Text => self.take_text(c),
            State::Escape => {
                self.state = match c {
                    '[' => State::Control { parameters: vec![0], private: false },
                    ']' | 'P' | 'X' | '^' | '_' => State::String { escaped: false },
                    _ => State::Text,
                }
            }
            State::Control { parameters, private } => match c {
                '0'..='9' => {
                    let last = parameters.last_mut().expect("starts with one parameter");
                    *last = last.saturating_mul(10).saturating_add(c as u16 - '0' as u16);
                }
                ';' | ':' if parameters.len() < PARAMETERS_MAX => parameters.push(0),
                '\x20'..='\x3f' => *private |= matches!(c, '?' | '>' | '<' | '='),
                _ => {
                    let (parameters, private) = (std::mem::take(parameters), *private);
                    self.state = State::Text;
                    if !private {
                        self.control(c, &parameters);
                    }
                }
            },
            State::String { escaped } => match c {
                '\x07' => self.state = State::Text,
                '\\' if *escaped => self.state = State::Text,
                _ => *escaped = c == '\x1b',
            },
        }
    }

    fn take_text(&mut self, c: char) {
        match c {
            '\x1b' => self.state = State::Escape,
            '\n' => self.new_line(),
            '\r' => self.column = 0,
            '\x08' => self.column = self.column.saturating_sub(1),
            '\t' => self.column = ((self.column / TAB_COLUMNS + 1) * TAB_COLUMNS).min(self.width - 1),
            c if c.is_control() => {}
            c => self.put(c),
        }
    }

    fn put(&mut self, c: char) {
        // A wide character takes two cells and a combining one none: only what takes a cell is kept.
        let cells = c.width().unwrap_or(0);
        if cells == 0 {
            return;
        }
        if self.column + cells > self.width {
            self.new_line();
        }
        let column = self.column;
        let row = self.row_mut();
        if row.len() < column + 1 {
            row.resize(column, ' ');
            row.push(c);
        } else {
            row[column] = c;
        }
        self.column += 1;
        if cells == 2 {
            let column = self.column;
            let row = self.row_mut();
            row.resize(row.len().max(column + 1), SECOND_CELL);
            row[column] = SECOND_CELL;
            self.column += 1;
        }
    }

    fn row_mut(&mut self) -> &mut Vec<char> {
        while self.rows.len() <= self.row {
            self.rows.push_back(Vec::new());
        }
        &mut self.rows[self.row]
    }

    fn new_line(&mut self) {
        self.column = 0;
        self.row += 1;
        if self.row >= self.height {
            while self.rows.len() < self.height {
                self.rows.push_back(Vec::new());
            }
            self.rows.pop_front();
            self.row = self.height - 1;
        }
        self.row_mut();
    }

    fn control(&mut self, kind: char, parameters: &[u16]) {
        let first = usize::from(parameters[0]);
        let count = first.max(1);
        match kind {
            'A' => self.row = self.row.saturating_sub(count),
            'B' => self.row = (self.row + count).min(self.height - 1),
            'C' => self.column = (self.column + count).min(self.width - 1),
            'D' => self.column = self.column.saturating_sub(count),
            'E' => (self.row, self.column) = ((self.row + count).min(self.height - 1), 0),
            'F' => (self.row, self.column) = (self.row.saturating_sub(count), 0),
            'G' => self.column = (count - 1).min(self.width - 1),
            'H' | 'f' => {
                let column = usize::from(parameters.get(1).copied().unwrap_or(0)).max(1);
                self.row = (count - 1).min(self.height - 1);
                self.column = (column - 1).min(self.width - 1);
            }
            'J' => self.erase_rows(first),
            'K' => self.erase_in_row(first),
            _ => {}
        }
    }

    fn erase_in_row(&mut self, mode: usize) {
        let column = self.column;
        let row = self.row_mut();
        match mode {
            0 => row.truncate(column),
            1 => {
                let end = row.len().min(column + 1);
                row[..end].fill(' ');
            }
            2 => row.clear(),
            _ => {}
        }
    }

    fn erase_rows(&mut self, mode: usize) {
        let row = self.row;
        match mode {
            0 => self.rows.truncate(row + 1),
            1 => self.rows.iter_mut().take(row).for_each(Vec::clear),
            2 | 3 => self.rows.iter_mut().for_each(Vec::clear),
            _ => return,
        }
        self.erase_in_row(mode.min(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(chunks: &[&[u8]]) -> Vec<String> {
        let mut terminal = Terminal::new(3, 10);
        chunks.iter().for_each(|chunk| terminal.write(chunk));
        terminal.lines().collect()
    }

    #[test]
    fn scrolls_and_wraps() {
        assert_eq!(shown(&[b"a\nb\nc\nd\n"]), ["c", "d"]);
        assert_eq!(shown(&[b"0123456789ab"]), ["0123456789", "ab"]);
        assert_eq!(shown(&[b"one\n\n  \ntwo"]), ["two"]);
    }

    #[test]
    fn obeys_what_a_progress_bar_does() {
        assert_eq!(shown(&[b"10%\r20%\r100%"]), ["100%"]);
        assert_eq!(shown(&[b"abc\x08\x08X"]), ["aXc"]);
        assert_eq!(shown(&[b"one\ntwo\x1b[1A\rONE\x1b[K"]), ["ONE", "two"]);
        assert_eq!(shown(&[b"junk\x1b[2J\x1b[1;1Hnew"]), ["new"]);
        assert_eq!(shown(&[b"\x1b[1;32mgreen\x1b[0m"]), ["green"]);
        assert_eq!(shown(&[b"\x1b]0;title\x07x\x1b[?25ly"]), ["xy"]);
    }

    #[test]
    fn sequences_and_characters_may_be_cut() {
        assert_eq!(shown(&[b"a\xe2", b"\x82", b"\xacb"]), ["a\u{20ac}b"]);
        assert_eq!(shown(&[b"a\x1b", b"[3", b"1mb"]), ["ab"]);
        assert_eq!(shown(&[b"a\xffb"]), ["a\u{fffd}b"]);
    }

    #[test]
    fn wide_characters_take_two_cells() {
        assert_eq!(shown(&["漢漢漢漢漢漢".as_bytes()]), ["漢漢漢漢漢", "漢"]);
    }

    #[test]
    fn shrinks_above_a_cursor_that_went_down_without_writing() {
        let mut terminal = Terminal::new(3, 10);
        terminal.write(b"top\x1b[3B");
        terminal.resize(2, 10);
        terminal.write(b"x");
        assert_eq!(terminal.lines().collect::<Vec<_>>(), ["top", "   x"]);
        assert_eq!(terminal.rows.len(), 2);
    }

    proptest! {
        #[test]
        fn stays_within_its_size(
            chunks in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..20),
                    "\\x1b\\[[0-9;?]{0,6}[A-Ka-z]".prop_map(String::into_bytes),
                    "[a-z漢\\n\\t\\r]{0,20}".prop_map(String::into_bytes),
                ],
                0..20,
            ),
            height in 1usize..5,
            width in 1usize..12,
        ) {
            let mut terminal = Terminal::new(height, width);
            for (at, chunk) in chunks.iter().enumerate() {
                terminal.write(chunk);
                if at == 7 {
                    terminal.resize(2, 5);
                }
            }
            prop_assert!(terminal.rows.len() <= terminal.height);
            for line in terminal.lines() {
                prop_assert!(line.chars().all(|c| !c.is_control()));
            }
        }
    }
}
