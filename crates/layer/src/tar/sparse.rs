//! Files with holes: only some stretches of their content are in the archive.

use super::field::number;

/// How many stretches a sparse file may have; bounds memory against hostile maps.
const SEGMENTS_MAX: usize = 1 << 16;

/// A stretch of a sparse file that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
}

/// Reads four (or, in a continuation record, 21) offset and length pairs of GNU's old format.
pub(super) fn parse_old(raw: &[u8], segments: &mut Vec<Segment>) -> Result<(), &'static str> {
    for pair in raw.chunks_exact(24) {
        if pair[0] == 0 && pair[12] == 0 {
            break;
        }
        let get = |field: &[u8]| number(field).and_then(|value| u64::try_from(value).ok());
        let (Some(offset), Some(len)) = (get(&pair[..12]), get(&pair[12..])) else {
            return Err("sparse file has a bad map");
        };
        segments.push(Segment { offset, len });
        if segments.len() > SEGMENTS_MAX {
            return Err("sparse file has too many pieces");
        }
    }
    Ok(())
}

/// Checks that stretches come in order, do not overlap, fit the file and account for all stored bytes.
pub(super) fn check(segments: &[Segment], stored: u64, size: u64) -> Result<(), &'static str> {
    if segments.len() > SEGMENTS_MAX {
        return Err("sparse file has too many pieces");
    }
    let (mut end, mut sum) = (0u64, 0u64);
    for segment in segments {
        if segment.offset < end {
            return Err("sparse file has overlapping pieces");
        }
        end = segment.offset.checked_add(segment.len).ok_or("sparse file is too large")?;
        sum += segment.len;
    }
    if end > size {
        return Err("sparse file has pieces beyond its end");
    }
    if sum != stored {
        return Err("sparse file's pieces do not account for its data");
    }
    Ok(())
}
