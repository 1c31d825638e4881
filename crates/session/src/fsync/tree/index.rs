//! Finding a path in a list that is in order: hard links ask for it.

use std::cmp::Ordering;

use kiln_spool::{Reader, Spool};

use super::TreeError;
use super::entry::{self, Place};
use crate::fsync::order::compare_paths;

/// Of so many entries the place of one is kept, an eighth of a byte each; the others are read one after the other.
const EVERY: u64 = 64;

/// Where some entries begin.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: Vec<Place>,
    entries: u64,
}

impl Index {
    /// How many entries there are.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Another entry begins at `place`, behind all others.
    pub(super) fn add(&mut self, place: Place) {
        if self.entries.is_multiple_of(EVERY) {
            self.places.push(place);
        }
        self.entries += 1;
    }

    /// Where the entry with that path begins.
    pub(super) fn find(&self, spool: &Spool, path: &str) -> Result<Option<Place>, TreeError> {
        let mut buffer = Vec::new();
        // The last of the known places whose path is not behind this one.
        let (mut low, mut high) = (0, self.places.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match compare_paths(entry::at(spool, self.places[middle], &mut buffer)?.path()?, path) {
                Ordering::Equal => return Ok(Some(self.places[middle])),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        let Some(first) = low.checked_sub(1) else { return Ok(None) };
        let mut reader = Reader::new(spool, self.places[first]);
        for _ in 0..EVERY {
            let place = reader.offset();
            let Some(raw) = entry::next(&mut reader)? else { return Ok(None) };
            match compare_paths(raw.path()?, path) {
                Ordering::Equal => return Ok(Some(place)),
                Ordering::Greater => return Ok(None),
                Ordering::Less => {}
            }
            let length = raw.length;
            std::io::BufRead::consume(&mut reader, length);
        }
        Ok(None)
    }
}
