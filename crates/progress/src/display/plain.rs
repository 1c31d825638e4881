//! The plain display: one line after another, each with the number of its vertex.
//!
//! Lines of concurrent vertices are not interleaved at will: the display stays with one vertex while that has news,
//! and turns to another (`#3 ...`, blank line, `#5 [2/3] RUN make`) when it is done or others waited long enough. What is
//! done is always told at once.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::io::Write as _;

use super::{Options, failure};
use crate::event::VertexStatus;
use crate::trace::{VertexIndex, VertexState};
use crate::{Timestamp, Trace, intervals, sanitize, units};

/// The least time with one vertex while others wait, stretched by its share of the news.
const ANTI_FLICKER_SECONDS: f64 = 5.0;
/// No vertex with news waits longer than this.
const WAIT_SECONDS_MAX: f64 = 10.0;
/// Progress of a part is told again after this time or this share of its total.
const STATUS_SECONDS: f64 = 5.0;
const STATUS_SHARE: f64 = 0.05;
/// Lines repeated of a step that failed; all of them were printed before.
const FAILURE_LINES: usize = 10;
/// Bytes of a name where names are cut.
const NAME_BYTES: usize = 72;

#[derive(Debug, Default)]
pub(super) struct Plain {
    current: Option<VertexIndex>,
    begun: bool,
    numbers: usize,
    printed: HashMap<VertexIndex, Printed>,
}

/// What was printed of one vertex.
#[derive(Debug, Default)]
struct Printed {
    number: usize,
    warnings: usize,
    /// Bytes of the unfinished last line that are out already.
    partial_bytes: usize,
    recent: VecDeque<Vec<u8>>,
    statuses: HashMap<String, (i64, Timestamp)>,
}

struct Waiting {
    index: VertexIndex,
    seconds: f64,
    speed: f64,
}

impl Plain {
    pub(super) fn print(&mut self, trace: &mut Trace, options: &Options, now: Timestamp) -> Vec<u8> {
        let mut out = Vec::new();
        let changed: Vec<VertexIndex> =
            trace.changed().into_iter().filter(|&index| !trace.vertices()[index].hidden).collect();
        let (mut done, mut open): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|&index| trace.vertices()[index].is_completed());

        let before = self.current;
        done.sort_by_key(|&index| (Some(index) != before, trace.vertices()[index].completed(), index));
        for &index in &done {
            self.print_vertex(&mut out, trace, options, index);
        }
        let current_is_done = before.is_none_or(|current| done.contains(&current));

        if open.is_empty() {
            if current_is_done && let Some(next) = first_open(trace) {
                self.print_vertex(&mut out, trace, options, next);
            }
            return out;
        }
        if let Some(current) = before
            && !current_is_done
        {
            if open.contains(&current) {
                self.print_vertex(&mut out, trace, options, current);
            } else {
                open.push(current);
            }
        }
        let current = before.filter(|_| !current_is_done);
        if let Some(next) = turn_to(trace, &open, current, now) {
            self.print_vertex(&mut out, trace, options, next);
        }
        out
    }

    /// Repeats the last lines of every vertex that failed.
    pub(super) fn write_failures(&self, out: &mut Vec<u8>, trace: &Trace, options: &Options) {
        for (index, vertex) in trace.vertices().iter().enumerate() {
            if !vertex.is_failed() || vertex.hidden || !vertex.is_started() {
                continue;
            }
            failure::heading(out, vertex);
            for line in self.printed.get(&index).iter().flat_map(|printed| &printed.recent) {
                out.extend_from_slice(&shown(line, options));
                out.push(b'\n');
            }
            failure::end(out);
        }
    }

    fn print_vertex(&mut self, out: &mut Vec<u8>, trace: &mut Trace, options: &Options, index: VertexIndex) {
        if self.current != Some(index) {
            self.switch_to(out, trace, options, index);
        }
        let printed = self.printed.get_mut(&index).expect("inserted when it became current");
        let vertex = &mut trace.vertices_mut()[index];
        let has_open_status = printed.write_statuses(out, vertex);
        printed.write_warnings(out, vertex);
        printed.write_logs(out, vertex, options);
        if vertex.is_completed() && !has_open_status {
            self.current = None;
            vertex.activity = 0;
            if vertex.logs.is_partial() {
                out.push(b'\n');
                printed.partial_bytes = 0;
                if let Some(line) = vertex.logs.lines().last() {
                    printed.remember(line);
                }
            }
            let number = printed.number;
            writeln!(out, "#{number} {}", outcome(vertex)).expect("a Vec takes every write");
        }
        trace.seen(index);
    }

    fn switch_to(&mut self, out: &mut Vec<u8>, trace: &mut Trace, options: &Options, index: VertexIndex) {
        if let Some(old) = self.current {
            let vertex = &mut trace.vertices_mut()[old];
            vertex.activity = 0;
            let printed = self.printed.get_mut(&old).expect("inserted when it became current");
            if vertex.logs.is_partial() && printed.partial_bytes > 0 {
                out.push(b'\n');
            }
            printed.partial_bytes = 0;
            writeln!(out, "#{} ...", printed.number).expect("a Vec takes every write");
        }
        if self.begun {
            out.push(b'\n');
        } else if !options.plain_description.is_empty() {
            write!(out, "#0 {}\n\n", options.plain_description).expect("a Vec takes every write");
        }
        self.begun = true;

        let numbers = &mut self.numbers;
        let printed = self.printed.entry(index).or_insert_with(|| {
            *numbers += 1;
            Printed { number: *numbers, ..Printed::default() }
        });
        let name = &trace.vertices()[index].name;
        let name = if options.truncate_names { truncated(name) } else { Cow::Borrowed(name.as_str()) };
        let name = if options.terminal { Cow::Owned(sanitize::text(&name)) } else { name };
        writeln!(out, "#{} {name}", printed.number).expect("a Vec takes every write");
        self.current = Some(index);
    }
}

impl Printed {
    /// Tells the progress of the parts that changed enough; true while one of those told is unfinished.
    fn write_statuses(&mut self, out: &mut Vec<u8>, vertex: &mut VertexState) -> bool {
        let mut has_open = false;
        for status in vertex.statuses_mut().filter(|status| status.changed) {
            status.changed = false;
            let event = &status.event;
            if let Some(&(told, at)) = self.statuses.get(&event.id)
                && event.completed.is_none()
            {
                let share =
                    if event.total > 0 { (event.current - told) as f64 / event.total as f64 } else { 0.0 };
                if share < STATUS_SHARE && event.timestamp.seconds_since(at) < STATUS_SECONDS {
                    continue;
                }
            }
            self.statuses.insert(event.id.clone(), (event.current, event.timestamp));
            has_open |= event.completed.is_none();
            writeln!(out, "#{} {}", self.number, status_line(event)).expect("a Vec takes every write");
        }
        has_open
    }

    fn write_warnings(&mut self, out: &mut Vec<u8>, vertex: &VertexState) {
        for warning in &vertex.warnings[self.warnings..] {
            let short = sanitize::text(&String::from_utf8_lossy(&warning.short));
            writeln!(out, "#{} WARN: {short}", self.number).expect("a Vec takes every write");
        }
        self.warnings = vertex.warnings.len();
    }

    fn write_logs(&mut self, out: &mut Vec<u8>, vertex: &mut VertexState, options: &Options) {
        let count = vertex.logs.lines().len();
        let partial = vertex.logs.is_partial();
        for (at, line) in vertex.logs.lines().enumerate() {
            let rest = line.get(self.partial_bytes..).unwrap_or_default();
            if self.partial_bytes == 0 {
                write!(out, "#{} ", self.number).expect("a Vec takes every write");
            }
            out.extend_from_slice(&shown(rest, options));
            self.partial_bytes = 0;
            if partial && at + 1 == count {
                self.partial_bytes = line.len();
            } else {
                out.push(b'\n');
                self.remember(line);
            }
        }
        vertex.logs.clear_finished();
    }

    fn remember(&mut self, line: &[u8]) {
        if self.recent.len() == FAILURE_LINES {
            self.recent.pop_front();
        }
        self.recent.push_back(line.to_vec());
    }
}

fn status_line(event: &VertexStatus) -> String {
    let mut line = event.id.clone();
    let amount = units::amount(event.current, event.total);
    if !amount.is_empty() {
        line.push(' ');
        line.push_str(&amount);
    }
    let end = event.completed.unwrap_or(event.timestamp);
    let seconds = event.started.map_or(0.0, |started| end.seconds_since(started));
    if seconds > 0.01 {
        line.push_str(&format!(" {seconds:.1}s"));
    }
    if event.completed.is_some() {
        line.push_str(" done");
    }
    line
}

fn outcome(vertex: &VertexState) -> String {
    if vertex.is_canceled() {
        "CANCELED".to_owned()
    } else if !vertex.error.is_empty() {
        format!("ERROR: {}", vertex.error)
    } else if vertex.cached {
        "CACHED".to_owned()
    } else {
        let ended = vertex.completed().unwrap_or_default();
        format!("DONE {:.1}s", intervals::total_seconds(vertex.intervals(), ended))
    }
}

/// A vertex that is at work, to be shown where nothing else is.
fn first_open(trace: &Trace) -> Option<VertexIndex> {
    trace.vertices().iter().position(|vertex| vertex.is_started() && !vertex.is_completed() && !vertex.hidden)
}

/// Which of the open vertices to show next; none to stay.
fn turn_to(
    trace: &Trace,
    open: &[VertexIndex],
    current: Option<VertexIndex>,
    now: Timestamp,
) -> Option<VertexIndex> {
    let waiting: Vec<Waiting> = open
        .iter()
        .filter_map(|&index| {
            let vertex = &trace.vertices()[index];
            let seconds = now.seconds_since(vertex.waiting_since?).max(0.0);
            // A vertex may have come this very moment; it then counts as very active, not as infinitely so.
            let speed = vertex.activity as f64 / seconds.max(0.001);
            Some(Waiting { index, seconds, speed })
        })
        .collect();
    let busiest = waiting.iter().max_by(|a, b| a.speed.total_cmp(&b.speed))?;
    let Some(current) = current else { return Some(busiest.index) };
    if let Some(late) =
        waiting.iter().find(|other| other.index != current && other.seconds > WAIT_SECONDS_MAX)
    {
        return Some(late.index);
    }
    let here = waiting.iter().find(|other| other.index == current)?;
    let all: f64 = waiting.iter().map(|other| other.speed).sum();
    let others = 1.0 - here.speed / all;
    let stay_seconds = ANTI_FLICKER_SECONDS / others;
    (stay_seconds < here.seconds && busiest.index != current).then_some(busiest.index)
}

fn shown<'a>(line: &'a [u8], options: &Options) -> Cow<'a, [u8]> {
    if options.terminal { Cow::Owned(sanitize::output(line).into_bytes()) } else { Cow::Borrowed(line) }
}

fn truncated(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_BYTES {
        return Cow::Borrowed(name);
    }
    let mut end = NAME_BYTES;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}...", &name[..end]))
}
