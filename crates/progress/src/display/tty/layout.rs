//! What fits onto the screen.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::row::Row;
use crate::Trace;
use crate::trace::VertexIndex;

/// Rows of output that are shown at least, where any are.
const TERMINAL_ROWS_MIN: usize = 6;
/// Columns beside the output of a step.
pub(super) const TERMINAL_MARGIN: usize = 10;
/// Rows kept free for other steps for each output that is shown.
const TERMINAL_SPACING: usize = 3;
/// The headline, and the row that the cursor stands on.
const RESERVED_ROWS: usize = 2;
/// What having been shown before is worth against bytes of new output.
const SHOWN_BONUS_BYTES: usize = 50;

/// What of the running steps' output is shown, and how many rows remain.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) terminals: Vec<VertexIndex>,
    pub(super) terminal_height: usize,
    pub(super) rows_max: usize,
}

pub(super) fn plan(
    trace: &Trace,
    rows: &[Row],
    shown: &HashMap<VertexIndex, usize>,
    height: usize,
    log_lines: usize,
) -> Plan {
    let most = height.saturating_sub(TERMINAL_ROWS_MIN + 1);
    let terminal_height = log_lines.min(most).max(TERMINAL_ROWS_MIN.min(log_lines));
    let rows_per_terminal = terminal_height + TERMINAL_SPACING;
    let open = rows.iter().filter(|row| !row.completed);
    let mut candidates: Vec<VertexIndex> = open
        .clone()
        .filter_map(|row| row.vertex)
        .filter(|&index| trace.vertices()[index].terminal_bytes > 0)
        .collect();
    candidates.sort_by_key(|index| {
        let shown = shown.get(index).copied().unwrap_or(0).saturating_mul(SHOWN_BONUS_BYTES);
        Reverse(trace.vertices()[*index].terminal_bytes.saturating_add(shown))
    });

    let mut free = height.saturating_sub(RESERVED_ROWS + open.count());
    let mut used = 0;
    let mut terminals = Vec::new();
    for index in candidates {
        if free <= rows_per_terminal {
            break;
        }
        used += trace.vertices()[index].terminal.lines().count().min(terminal_height);
        free -= rows_per_terminal;
        terminals.push(index);
    }
    Plan { terminals, terminal_height, rows_max: height.saturating_sub(RESERVED_ROWS + used) }
}

/// The last `max` rows; where that would cut off rows still at work, these take the place of finished ones.
pub(super) fn fit(mut rows: Vec<Row>, max: usize) -> Vec<Row> {
    let Some(cut) = rows.len().checked_sub(max).filter(|&cut| cut > 0) else { return rows };
    let kept = rows.split_off(cut);
    let mut open: Vec<Row> = rows.into_iter().filter(|row| !row.completed).collect();
    let mut room = open.len();
    let kept: Vec<Row> = kept
        .into_iter()
        .filter(|row| {
            let gives_way = row.completed && room > 0;
            room -= usize::from(gives_way);
            !gives_way
        })
        .collect();
    let mut fitting = open.split_off(room);
    fitting.extend(kept);
    fitting
}
