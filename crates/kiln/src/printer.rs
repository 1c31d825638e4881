//! Shows the progress of a build on standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use kiln_progress::{Display, Mode, Options, Size, SolveStatus, Timestamp, VertexWarning, warnings};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::settings::Settings;

/// Events that wait to be shown; a display slower than the build slows the build's reports, not the build.
const QUEUE: usize = 128;
/// How often time moves on while nothing happens.
const TICK: Duration = Duration::from_millis(150);

/// Takes events. The display ends when all of these are gone.
pub type Reports = mpsc::Sender<SolveStatus>;

/// A running display.
#[derive(Debug)]
pub struct Printer {
    reports: Reports,
    task: JoinHandle<Vec<VertexWarning>>,
    mode: Mode,
    debug: bool,
    colors: kiln_progress::Colors,
}

impl Printer {
    /// Begins to show. `builder` and `driver` are named in the first line.
    pub fn start(
        settings: &Settings,
        mode: Mode,
        builder: &str,
        driver: &str,
        debug: bool,
    ) -> Result<Self, String> {
        let terminal = std::io::stderr().is_terminal();
        if mode == Mode::Tty && !terminal {
            return Err("failed to get console: the output is not a terminal".to_owned());
        }
        let (colors, problems) = settings.colors();
        for problem in problems {
            warn(&problem);
        }
        let colors = if terminal { colors } else { kiln_progress::Colors::none() };
        let options = Options {
            phase: "Building".to_owned(),
            plain_description: format!("building with {builder:?} instance using {driver} driver"),
            tty_description: format!("{driver}:{builder}"),
            colors: colors.clone(),
            log_lines: settings.log_lines(),
            truncate_names: settings.var("PROGRESS_NO_TRUNC").as_deref() == Some("0"),
            terminal,
            redraw_nanos: settings.redraw_nanos(),
        };
        let (reports, queue) = mpsc::channel(QUEUE);
        let task = tokio::spawn(show(Display::new(mode, options), queue));
        Ok(Self { reports, task, mode, debug, colors })
    }

    /// Where to send events.
    pub fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// Shows the end, and the warnings; returns these. Every other [`Reports`] must be gone by now, or go soon.
    pub async fn finish(self) -> Vec<VertexWarning> {
        drop(self.reports);
        // The task does not panic and nobody else has a handle to end it.
        let found = self.task.await.unwrap_or_default();
        if !matches!(self.mode, Mode::Quiet | Mode::RawJson) {
            write(warnings::summary(&found, self.debug, &self.colors).as_bytes());
        }
        found
    }
}

async fn show(mut display: Display, mut queue: mpsc::Receiver<SolveStatus>) -> Vec<VertexWarning> {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    loop {
        tokio::select! {
            event = queue.recv() => match event {
                Some(event) => {
                    write(&display.update(&event, now(), size()));
                    tick.reset();
                }
                None => break,
            },
            _ = tick.tick(), if display.is_periodic() => write(&display.refresh(now(), size())),
        }
    }
    write(&display.finish(now(), size()));
    display.warnings()
}

/// The time of day.
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Size of the terminal that standard error is, or what is assumed without one.
pub fn size() -> Size {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { width: usize::from(size.ws_col), height: usize::from(size.ws_row) }
        }
        _ => Size::default(),
    }
}

/// Says something beside the display, before it begins or after it ended.
pub fn warn(text: &str) {
    write(format!("WARNING: {text}\n").as_bytes());
}

fn write(text: &[u8]) {
    if !text.is_empty() {
        // Nobody is left to be told that standard error is closed.
        let _ = std::io::stderr().lock().write_all(text);
    }
}
