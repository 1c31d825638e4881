//! The displays: each turns a [`Trace`](crate::Trace) into bytes for the user's terminal or log.

mod failure;
mod plain;
mod rawjson;
mod tty;

use std::fmt;
use std::str::FromStr;

use crate::event::{SolveStatus, VertexWarning};
use crate::{Colors, Timestamp, Trace};

/// How often a display is redrawn at most, in nanoseconds.
pub const REDRAW_NANOS: i64 = 100_000_000;
/// Rows of output shown below a running step.
pub const LOG_LINES: usize = 6;

/// Which display, as `--progress` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `tty` on a terminal, else `plain`.
    Auto,
    /// Redrawn in place.
    Tty,
    /// One line after another.
    Plain,
    /// One JSON object a line.
    RawJson,
    /// Nothing.
    Quiet,
}

/// A name that is not a display's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseModeError(String);

impl fmt::Display for ParseModeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid progress mode {}", self.0)
    }
}

impl std::error::Error for ParseModeError {}

impl FromStr for Mode {
    type Err = ParseModeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "" | "auto" => Ok(Mode::Auto),
            "tty" => Ok(Mode::Tty),
            "plain" => Ok(Mode::Plain),
            "rawjson" => Ok(Mode::RawJson),
            "quiet" | "none" => Ok(Mode::Quiet),
            other => Err(ParseModeError(other.to_owned())),
        }
    }
}

/// Columns and rows of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Default for Size {
    /// What is assumed where the terminal does not tell.
    fn default() -> Self {
        Self { width: 80, height: 10 }
    }
}

/// What a user may set.
#[derive(Clone, Debug)]
pub struct Options {
    /// The word in `[+] Building 1.2s`.
    pub phase: String,
    /// First line of a plain display, such as ``building with "x" instance using remote driver``; empty for none.
    pub plain_description: String,
    /// At the right of a live display's first line, such as `remote:x`; empty for none.
    pub tty_description: String,
    /// Colours of a live display.
    pub colors: Colors,
    /// Rows of output below a running step (`BUILDKIT_TTY_LOG_LINES`).
    pub log_lines: usize,
    /// Cut long names in a plain display (`PROGRESS_NO_TRUNC=0`).
    pub truncate_names: bool,
    /// The output is a terminal: a plain display then drops control sequences, save colours.
    pub terminal: bool,
    /// Shortest time between two drawings, in nanoseconds (`TTY_DISPLAY_RATE`).
    pub redraw_nanos: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            phase: "Building".to_owned(),
            plain_description: String::new(),
            tty_description: String::new(),
            colors: Colors::none(),
            log_lines: LOG_LINES,
            truncate_names: false,
            terminal: false,
            redraw_nanos: REDRAW_NANOS,
        }
    }
}

/// A display with the state that it draws.
#[derive(Debug)]
pub struct Display {
    trace: Trace,
    kind: Kind,
    options: Options,
    drawn: Option<Timestamp>,
}

#[derive(Debug)]
enum Kind {
    Tty(tty::Tty),
    Plain(plain::Plain),
    RawJson,
    Quiet,
}

impl Display {
    /// A display of nothing yet. [`Mode::Auto`] follows `options.terminal`.
    pub fn new(mode: Mode, options: Options) -> Self {
        let kind = match mode {
            Mode::Tty => Kind::Tty(tty::Tty::default()),
            Mode::Auto if options.terminal => Kind::Tty(tty::Tty::default()),
            Mode::Auto | Mode::Plain => Kind::Plain(plain::Plain::default()),
            Mode::RawJson => Kind::RawJson,
            Mode::Quiet => Kind::Quiet,
        };
        Self { trace: Trace::new(), kind, options, drawn: None }
    }

    /// Takes an event and returns what to write now. Events that come faster than the display is redrawn return
    /// nothing; they show with a later one or with [`refresh`](Self::refresh).
    pub fn update(&mut self, status: &SolveStatus, now: Timestamp, size: Size) -> Vec<u8> {
        self.trace.update(status, now);
        if matches!(self.kind, Kind::RawJson) {
            return rawjson::line(status);
        }
        let too_early = self.drawn.is_some_and(|drawn| now.nanos_since(drawn) < self.options.redraw_nanos);
        if too_early { Vec::new() } else { self.refresh(now, size) }
    }

    /// What to write as time goes by: the caller calls this a few times a second while the build runs.
    pub fn refresh(&mut self, now: Timestamp, size: Size) -> Vec<u8> {
        self.drawn = Some(now);
        match &mut self.kind {
            Kind::Tty(tty) => tty.draw(&mut self.trace, &self.options, now, size, false),
            Kind::Plain(plain) => plain.print(&mut self.trace, &self.options, now),
            Kind::RawJson | Kind::Quiet => Vec::new(),
        }
    }

    /// What to write last: the final state and the output of the steps that failed.
    pub fn finish(&mut self, now: Timestamp, size: Size) -> Vec<u8> {
        match &mut self.kind {
            Kind::Tty(tty) => {
                let mut out = tty.draw(&mut self.trace, &self.options, now, size, true);
                failure::write_kept(&mut out, &self.trace);
                out
            }
            Kind::Plain(plain) => {
                let mut out = plain.print(&mut self.trace, &self.options, now);
                plain.write_failures(&mut out, &self.trace, &self.options);
                out
            }
            Kind::RawJson | Kind::Quiet => Vec::new(),
        }
    }

    /// Whether [`refresh`](Self::refresh) ever has something to say.
    pub fn is_periodic(&self) -> bool {
        matches!(self.kind, Kind::Tty(_) | Kind::Plain(_))
    }

    /// All warnings so far, without repeats.
    pub fn warnings(&self) -> Vec<VertexWarning> {
        self.trace.warnings()
    }

    /// The state that is drawn.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }
}

#[cfg(test)]
mod tests;
