//! The live display: a headline and one row a step, redrawn in place.

mod layout;
mod row;

use std::collections::HashMap;
use std::io::Write as _;

use super::{Options, Size};
use crate::trace::VertexIndex;
use crate::{Timestamp, Trace, color};
use row::Style;

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const CLEAR_TO_END_OF_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// What is on the screen now.
#[derive(Debug, Default)]
pub(super) struct Tty {
    lines: usize,
    /// How often the output of a vertex was shown: a shown one tends to stay.
    shown: HashMap<VertexIndex, usize>,
}

/// A picture of the build, line by line.
#[derive(Debug, PartialEq, Eq)]
struct Frame {
    lines: Vec<(Style, String)>,
}

impl Tty {
    /// Returns what turns the last picture into the new one. The last one of all has every step, however high.
    pub(super) fn draw(
        &mut self,
        trace: &mut Trace,
        options: &Options,
        now: Timestamp,
        size: Size,
        last: bool,
    ) -> Vec<u8> {
        let frame = self.frame(trace, options, now, size, last);
        let mut out = Vec::new();
        out.extend_from_slice(HIDE_CURSOR.as_bytes());
        if self.lines > 0 {
            write!(out, "\x1b[{}A", self.lines).expect("a Vec takes every write");
        }
        out.push(b'\r');
        for (style, text) in &frame.lines {
            let color = match style {
                Style::Plain => "",
                Style::Done => &options.colors.run,
                Style::Canceled => &options.colors.cancel,
                Style::Failed => &options.colors.error,
                Style::Faint => &options.colors.faint,
            };
            let reset = if color.is_empty() { "" } else { color::RESET };
            writeln!(out, "{color}{text}{reset}{CLEAR_TO_END_OF_LINE}").expect("a Vec takes every write");
        }
        if self.lines > frame.lines.len() {
            out.extend_from_slice(CLEAR_BELOW.as_bytes());
        }
        out.extend_from_slice(SHOW_CURSOR.as_bytes());
        self.lines = frame.lines.len();
        out
    }

    fn frame(
        &mut self,
        trace: &mut Trace,
        options: &Options,
        now: Timestamp,
        size: Size,
        last: bool,
    ) -> Frame {
        let rows = row::rows(trace, now);
        let plan = layout::plan(trace, &rows, &self.shown, size.height, options.log_lines);
        let rows = if last { rows } else { layout::fit(rows, plan.rows_max) };

        let mut lines = vec![(Style::Plain, headline(trace, options, now, size, last))];
        for row in &rows {
            let Some(text) = row.draw(size.width) else { continue };
            lines.push((row.style(), text));
            let Some(index) = row.vertex.filter(|index| !last && plan.terminals.contains(index)) else {
                continue;
            };
            *self.shown.entry(index).or_default() += 1;
            let terminal = &mut trace.vertices_mut()[index].terminal;
            terminal.resize(plan.terminal_height, size.width.saturating_sub(layout::TERMINAL_MARGIN));
            lines.extend(terminal.lines().map(|line| (Style::Faint, format!(" => => # {line}"))));
        }
        Frame { lines }
    }
}

/// `[+] Building 3.2s (7/9) FINISHED`, and who builds at the right.
fn headline(trace: &Trace, options: &Options, now: Timestamp, size: Size, last: bool) -> String {
    let (done, all) = trace.counts();
    let seconds = now.seconds_since(trace.started().unwrap_or(now)).max(0.0);
    let finished = if last && done > 0 && done == all { " FINISHED" } else { "" };
    let left = format!("[+] {} {seconds:.1}s ({done}/{all}){finished}", options.phase);
    row::justify(&left, &options.tty_description, size.width.saturating_sub(1))
}
