//! Time spans in which a vertex was at work.

use crate::Timestamp;

/// From start to stop; without a stop it is still running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// When work began.
    pub start: Timestamp,
    /// When it ended, if it did.
    pub stop: Option<Timestamp>,
}

impl Interval {
    /// Seconds from start to stop, or to `now` where it still runs. `now` is on the same clock as the interval.
    pub fn seconds(&self, now: Timestamp) -> f64 {
        self.stop.unwrap_or(now).seconds_since(self.start)
    }
}

/// Joins what overlaps, so that a sum of the result counts no moment twice. An interval without a stop swallows
/// everything after its start.
pub fn merge(intervals: impl IntoIterator<Item = Interval>) -> Vec<Interval> {
    let mut sorted: Vec<Interval> = intervals.into_iter().collect();
    sorted.sort_by_key(|interval| interval.start);
    let mut merged: Vec<Interval> = Vec::new();
    for next in sorted {
        match merged.last_mut() {
            Some(last) => match last.stop {
                None => break,
                Some(stop) if stop < next.start => merged.push(next),
                Some(stop) => last.stop = next.stop.map(|next_stop| next_stop.max(stop)),
            },
            None => merged.push(next),
        }
    }
    merged
}

/// The sum of all spans in seconds.
pub fn total_seconds(merged: &[Interval], now: Timestamp) -> f64 {
    merged.iter().map(|interval| interval.seconds(now)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(start: i64, stop: impl Into<Option<i64>>) -> Interval {
        Interval { start: Timestamp::from_nanos(start), stop: stop.into().map(Timestamp::from_nanos) }
    }

    #[test]
    fn joins_overlaps_only() {
        assert_eq!(merge([]), []);
        assert_eq!(merge([interval(5, 6), interval(1, 2)]), [interval(1, 2), interval(5, 6)]);
        assert_eq!(merge([interval(1, 5), interval(2, 3), interval(4, 9)]), [interval(1, 9)]);
        assert_eq!(merge([interval(1, 5), interval(5, 7)]), [interval(1, 7)]);
    }

    #[test]
    fn an_open_interval_swallows_the_rest() {
        assert_eq!(merge([interval(1, 5), interval(3, None), interval(9, 12)]), [interval(1, None)]);
        assert_eq!(
            merge([interval(1, 2), interval(3, None), interval(4, 5)]),
            [interval(1, 2), interval(3, None)]
        );
    }
}
