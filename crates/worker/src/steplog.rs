//! Output of a step, clipped where a step says more than anyone would read. When the step fails, the end of what was
//! clipped is shown after all.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use kiln_solver::Progress;
use tokio::io::AsyncWrite;

/// How much of the clipped output is kept for the case of a failure, in bytes.
const TAIL_BYTES: usize = 256 << 10;

/// How much one stream of a step may say. -1 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLogLimits {
    /// Bytes in all.
    pub size_bytes_max: i64,
    /// Bytes for each second that has begun.
    pub bytes_per_second_max: i64,
}

impl Default for StepLogLimits {
    /// BuildKit's: 2 MiB, 200 KiB a second.
    fn default() -> Self {
        StepLogLimits { size_bytes_max: 2 << 20, bytes_per_second_max: 200 << 10 }
    }
}

/// One stream of a step: 1 is its standard output, 2 its standard error.
#[derive(Clone)]
pub struct StepLog {
    state: Arc<Mutex<State>>,
}

struct State {
    clip: Clip,
    sink: Box<dyn Fn(Bytes) + Send>,
    started: Instant,
}

impl StepLog {
    /// Writes to the log of a vertex.
    pub fn new(progress: Progress, stream: i32, limits: StepLogLimits) -> StepLog {
        StepLog::to(Box::new(move |data| progress.log(stream, data)), limits)
    }

    fn to(sink: Box<dyn Fn(Bytes) + Send>, limits: StepLogLimits) -> StepLog {
        let clip = Clip { limits, seen: 0, clipping: false, tail: None };
        StepLog { state: Arc::new(Mutex::new(State { clip, sink, started: Instant::now() })) }
    }

    /// Takes what the step wrote.
    pub fn write(&self, data: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = state.started.elapsed().as_secs_f64().ceil() as i64;
        let shown = state.clip.take(data, seconds);
        if !shown.is_empty() {
            (state.sink)(shown.into());
        }
    }

    /// The step failed: shows the end of what was clipped.
    pub fn show_tail(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tail) = state.clip.tail.take() {
            (state.sink)(Vec::from(tail).into());
        }
    }
}

impl AsyncWrite for StepLog {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.write(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Decides what is shown; knows no clock.
struct Clip {
    limits: StepLogLimits,
    seen: i64,
    clipping: bool,
    tail: Option<VecDeque<u8>>,
}

impl Clip {
    fn take(&mut self, data: &[u8], seconds: i64) -> Vec<u8> {
        let before = self.seen;
        self.seen = self.seen.saturating_add_unsigned(data.len() as u64);
        let StepLogLimits { size_bytes_max: size, bytes_per_second_max: speed } = self.limits;
        let by_speed =
            (speed != -1).then(|| seconds.saturating_mul(speed)).filter(|max| size == -1 || *max <= size);
        let max = by_speed.or((size != -1).then_some(size));
        let room = match max {
            Some(max) => usize::try_from(max.saturating_sub(before)).unwrap_or(0).min(data.len()),
            None => data.len(),
        };
        if room < data.len() && self.tail.is_none() {
            self.tail = Some(VecDeque::new());
        }
        if let Some(tail) = &mut self.tail {
            tail.extend(data);
            let over = tail.len().saturating_sub(TAIL_BYTES);
            tail.drain(..over);
        }
        let mut shown = data[..room].to_vec();
        if room == data.len() {
            self.clipping = false;
        } else if !self.clipping {
            self.clipping = true;
            let limit = match by_speed {
                Some(_) => format!("{}/s", units(speed)),
                None => units(size),
            };
            shown.extend_from_slice(format!("\n[output clipped, log limit {limit} reached]\n").as_bytes());
        }
        shown
    }
}

/// A number of bytes in the largest unit that it is at least one of.
fn units(bytes: i64) -> String {
    let (value, unit) = match bytes {
        ..1024 => return format!("{bytes}B"),
        1024..0x10_0000 => (bytes as f64 / 1024.0, "KiB"),
        0x10_0000..0x4000_0000 => (bytes as f64 / 1_048_576.0, "MiB"),
        _ => (bytes as f64 / 1_073_741_824.0, "GiB"),
    };
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(size_bytes_max: i64, bytes_per_second_max: i64) -> Clip {
        let limits = StepLogLimits { size_bytes_max, bytes_per_second_max };
        Clip { limits, seen: 0, clipping: false, tail: None }
    }

    fn taken(clip: &mut Clip, data: &str, seconds: i64) -> String {
        String::from_utf8(clip.take(data.as_bytes(), seconds)).unwrap()
    }

    #[test]
    fn clips_by_size_and_says_so_once() {
        let mut clip = clip(10, -1);
        assert_eq!(taken(&mut clip, "12345678", 1), "12345678");
        assert_eq!(taken(&mut clip, "90abc", 1), "90\n[output clipped, log limit 10B reached]\n");
        assert_eq!(taken(&mut clip, "def", 1), "");
        assert_eq!(clip.tail.unwrap(), *b"90abcdef");
    }

    #[test]
    fn clips_by_speed_until_time_has_passed() {
        let mut clip = clip(1 << 20, 4);
        assert_eq!(taken(&mut clip, "12345", 1), "1234\n[output clipped, log limit 4B/s reached]\n");
        assert_eq!(taken(&mut clip, "678", 2), "678");
        assert_eq!(taken(&mut clip, "9", 2), "\n[output clipped, log limit 4B/s reached]\n");
    }

    #[test]
    fn no_limit_is_no_limit() {
        let mut clip = clip(-1, -1);
        assert_eq!(taken(&mut clip, &"x".repeat(1000), 1).len(), 1000);
    }

    #[test]
    fn sizes_read_as_in_buildkit() {
        assert_eq!(
            (units(2 << 20), units(200 << 10), units(512)),
            ("2MiB".into(), "200KiB".into(), "512B".into())
        );
    }

    #[test]
    fn a_failure_shows_the_end() {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let sink = shown.clone();
        let limits = StepLogLimits { size_bytes_max: 2, bytes_per_second_max: -1 };
        let log = StepLog::to(Box::new(move |data| sink.lock().unwrap().extend_from_slice(&data)), limits);
        log.write(b"ab");
        log.write(b"the end");
        log.show_tail();
        let text = String::from_utf8(shown.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "ab\n[output clipped, log limit 2B reached]\nthe end");
    }
}
