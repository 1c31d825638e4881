//! One row of the live display.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::trace::{VertexIndex, VertexState};
use crate::{Timestamp, Trace, intervals, sanitize, units};

const PREFIX: &str = " => ";
/// Below this a time is shown as none: it flickers otherwise.
const SECONDS_MIN: f64 = 0.05;
/// Columns that a name needs to be worth showing, and those that must be there for an amount beside it.
const NAME_COLUMNS_MIN: usize = 12;
const NAME_COLUMNS_BESIDE_AMOUNT: usize = 20;
/// Cells of a transfer's bar, without its brackets.
const BAR_CELLS: usize = 12;

/// How a row looks; which colour that is comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Done,
    Canceled,
    Failed,
    Faint,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) completed: bool,
    /// The vertex whose output may be shown below; only on the first row of a vertex.
    pub(super) vertex: Option<VertexIndex>,
    text: String,
    amount: String,
    /// Share done of a transfer that still runs, from 0 to 1.
    share: Option<f64>,
    seconds: f64,
    outcome: Style,
}

/// The rows of all that has started, in that order.
pub(super) fn rows(trace: &Trace, now: Timestamp) -> Vec<Row> {
    let remote_now = trace.remote(now);
    let mut rows = Vec::new();
    for (index, vertex) in trace.visible_indices() {
        rows.push(vertex_row(index, vertex, remote_now));
        rows.extend(vertex.statuses().map(|status| {
            let event = &status.event;
            let started = event.started.unwrap_or(event.timestamp);
            let completed = event.completed.is_some();
            Row {
                completed,
                vertex: None,
                text: format!("=> {}", sanitize::text(&event.id)),
                amount: units::amount(event.current, event.total),
                share: (event.total > 0 && !completed).then(|| event.current as f64 / event.total as f64),
                seconds: event.completed.unwrap_or(remote_now).seconds_since(started),
                outcome: Style::Done,
            }
        }));
        let last = vertex.intervals().last();
        rows.extend(vertex.warnings.iter().map(|warning| Row {
            completed: true,
            vertex: None,
            text: format!("WARN: {}", sanitize::text(&String::from_utf8_lossy(&warning.short))),
            amount: String::new(),
            share: None,
            seconds: last.map_or(0.0, |interval| interval.seconds(remote_now)),
            outcome: Style::Canceled,
        }));
    }
    rows
}

fn vertex_row(index: VertexIndex, vertex: &VertexState, remote_now: Timestamp) -> Row {
    let (word, outcome) = if vertex.is_canceled() {
        ("CANCELED ", Style::Canceled)
    } else if vertex.is_failed() {
        ("ERROR ", Style::Failed)
    } else {
        ("", Style::Done)
    };
    let cached = if vertex.cached { "CACHED " } else { "" };
    Row {
        completed: vertex.is_completed(),
        vertex: Some(index),
        text: format!("{cached}{word}{}", sanitize::text(&vertex.name)),
        amount: String::new(),
        share: None,
        seconds: intervals::total_seconds(vertex.intervals(), remote_now),
        outcome,
    }
}

impl Row {
    pub(super) fn style(&self) -> Style {
        if self.completed { self.outcome } else { Style::Plain }
    }

    /// The row in `width` columns, less one that stays free; nothing where the terminal is too narrow.
    pub(super) fn draw(&self, width: usize) -> Option<String> {
        let seconds = if self.seconds < SECONDS_MIN { 0.0 } else { self.seconds };
        let timer = format!("{seconds:.1}s");
        let mut left = width.checked_sub(PREFIX.len() + timer.len() + 3)?;
        let mut right = String::new();
        if !self.amount.is_empty() && left > NAME_COLUMNS_BESIDE_AMOUNT {
            right = format!(" {}", self.amount);
            if let Some(bar) = self.share.map(bar)
                && left >= self.text.width() + right.len() + bar.len()
            {
                right.push_str(&bar);
            }
            left = left.checked_sub(right.len())?;
        }
        if left < NAME_COLUMNS_MIN {
            return None;
        }
        let text = cut(&self.text, left);
        Some(justify(&format!("{PREFIX}{text}{right}"), &timer, width - 1))
    }
}

/// ` [====>       ]`
fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * BAR_CELLS as f64) as usize;
    let mut cells = "=".repeat(full);
    if full < BAR_CELLS {
        cells.push('>');
    }
    format!(" [{cells:<BAR_CELLS$}]")
}

/// As much of the text as fits into so many columns.
pub(super) fn cut(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns {
            return &text[..at];
        }
    }
    text
}

/// Two texts at both ends of a line of `width` columns.
pub(super) fn justify(left: &str, right: &str, width: usize) -> String {
    let left = cut(left, width);
    let room = width - left.width();
    if right.is_empty() || room <= right.width() {
        return left.to_owned();
    }
    format!("{left}{}{right}", " ".repeat(room - right.width()))
}
