//! Output lines of one vertex, each with the seconds since it began.

use std::collections::VecDeque;

/// What is kept of a step's output to be shown when it fails; twice what a daemon passes on of one step by default.
pub const KEPT_BYTES_MAX: usize = 4 << 20;

/// Lines, the last of which may be unfinished. Bounded: the oldest lines go first.
#[derive(Debug, Default)]
pub struct LogBuffer {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: usize,
    partial: bool,
}

impl LogBuffer {
    /// Takes a piece of output that was written `seconds` after the vertex began. Each line that begins in it is
    /// prefixed with that time.
    pub fn push(&mut self, data: &[u8], seconds: f64) {
        if data.is_empty() {
            return;
        }
        let precision = match seconds {
            ..10.0 => 3,
            ..100.0 => 2,
            _ => 1,
        };
        let mut pieces = data.split(|&byte| byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let ends_with_newline = pieces.peek().is_none() && piece.is_empty();
            if ends_with_newline {
                self.partial = false;
                break;
            }
            if let (true, Some(last)) = (self.partial, self.lines.back_mut()) {
                last.extend_from_slice(piece);
                self.bytes += piece.len();
            } else {
                let mut line = format!("{seconds:.precision$} ").into_bytes();
                line.extend_from_slice(piece);
                self.bytes += line.len();
                self.lines.push_back(line);
            }
            self.partial = pieces.peek().is_none();
        }
        while self.bytes > KEPT_BYTES_MAX && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
            self.dropped += 1;
        }
        if self.bytes > KEPT_BYTES_MAX {
            // One endless line: its beginning stays, the rest is let go.
            self.lines[0].truncate(KEPT_BYTES_MAX);
            self.bytes = KEPT_BYTES_MAX;
        }
    }

    /// The lines, without their newlines.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.lines.iter().map(Vec::as_slice)
    }

    /// Whether the last line has not ended yet.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// How many lines had to go.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Forgets the finished lines; the unfinished one stays.
    pub fn clear_finished(&mut self) {
        let last = if self.partial { self.lines.pop_back() } else { None };
        self.lines.clear();
        self.bytes = last.as_ref().map_or(0, Vec::len);
        self.lines.extend(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(buffer: &LogBuffer) -> Vec<String> {
        buffer.lines().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    #[test]
    fn lines_carry_the_time_they_began_at() {
        let mut buffer = LogBuffer::default();
        buffer.push(b"one\ntw", 0.5);
        assert!(buffer.is_partial());
        buffer.push(b"o\n\nthree", 12.345);
        buffer.push(b"\n", 123.45);
        assert!(!buffer.is_partial());
        assert_eq!(lines(&buffer), ["0.500 one", "0.500 two", "12.35 ", "12.35 three"]);
        buffer.push(b"x", 123.45);
        assert_eq!(lines(&buffer)[4], "123.5 x");
        buffer.clear_finished();
        assert_eq!(lines(&buffer), ["123.5 x"]);
    }

    #[test]
    fn is_bounded() {
        let mut buffer = LogBuffer::default();
        for _ in 0..40 {
            buffer.push(&vec![b'x'; 1 << 18], 0.0);
            buffer.push(b"\n", 0.0);
        }
        assert!(buffer.bytes <= KEPT_BYTES_MAX);
        assert!(buffer.dropped() > 20);
        let mut endless = LogBuffer::default();
        for _ in 0..40 {
            endless.push(&vec![b'x'; 1 << 18], 0.0);
        }
        assert_eq!(endless.lines().len(), 1);
        assert!(endless.bytes <= KEPT_BYTES_MAX);
    }
}
