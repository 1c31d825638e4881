//! One entry of a tree, as it is stored: a byte of flags, 32 bytes for a digest where [`SLOT`] is set, and a length-delimited
//! `fsutil.types.Stat`.

use std::borrow::Borrow;

use kiln_proto::MESSAGE_BYTES_MAX;
use kiln_proto::fsutil_types as wire;
use kiln_proto::prost::Message;
use kiln_proto::prost::encoding::{decode_varint, encode_varint};
use kiln_spool::{Reader, Spool};

use super::{ContentDigest, DIGEST_BYTES, TreeEntry, TreeError};
use crate::fsync::stat::FileStat;

/// Where in a list an entry begins.
pub(in crate::fsync) type Place = u64;

/// [`TreeEntry::complete`].
pub(super) const COMPLETE: u8 = 1;
/// The digest is known.
pub(super) const HAS_DIGEST: u8 = 2;
/// There is room for a digest.
pub(super) const SLOT: u8 = 4;
/// [`TreeEntry::fresh`].
pub(super) const FRESH: u8 = 8;

/// First byte of an encoded stat: the key of its path, a field of a length-delimited type.
const PATH_KEY: u8 = 1 << 3 | 2;

/// Flags, digest and length.
const HEAD_BYTES_MAX: usize = 1 + DIGEST_BYTES + 10;

/// Bytes of one entry: it came in a message. Longer ones are damaged.
const ENTRY_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// Read at first where an entry lies in a file: most are shorter.
const LIKELY_BYTES: u64 = 512;

/// One entry in a buffer.
pub(super) struct Raw<'a> {
    flags: u8,
    slot: Option<&'a ContentDigest>,
    /// Encoded.
    pub(super) stat: &'a [u8],
    /// How many bytes it has.
    pub(super) length: usize,
}

impl<'a> Raw<'a> {
    /// The entry that `bytes` begin with; none: they do not.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let head = Head::read(bytes)?;
        let slot = if head.flags & SLOT == 0 { None } else { Some(bytes.get(1..)?.first_chunk()?) };
        let stat = bytes.get(head.length..head.end)?;
        Some(Self { flags: head.flags, slot, stat, length: head.end })
    }

    pub(super) fn path(&self) -> Result<&'a str, TreeError> {
        let path = || {
            let (&PATH_KEY, mut bytes) = self.stat.split_first()? else { return None };
            let length = decode_varint(&mut bytes).ok()?;
            std::str::from_utf8(bytes.get(..usize::try_from(length).ok()?)?).ok()
        };
        path().ok_or(TreeError::Invalid)
    }

    pub(super) fn decode(&self) -> Result<TreeEntry, TreeError> {
        Ok(TreeEntry {
            stat: wire::Stat::decode(self.stat).map_err(|_| TreeError::Invalid)?.into(),
            digest: self.slot.filter(|_| self.flags & HAS_DIGEST != 0).copied(),
            complete: self.flags & COMPLETE != 0,
            fresh: self.flags & FRESH != 0,
        })
    }
}

/// What comes before the stat.
struct Head {
    flags: u8,
    /// Of the head.
    length: usize,
    /// Of the entry.
    end: usize,
}

impl Head {
    /// None: it is none, or longer than `bytes`.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (&flags, mut rest) = bytes.split_first()?;
        if flags & SLOT != 0 {
            rest = rest.get(DIGEST_BYTES..)?;
        }
        let stat = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
        let length = bytes.len() - rest.len();
        let end = length.checked_add(stat).filter(|end| *end <= ENTRY_BYTES_MAX)?;
        Some(Self { flags, length, end })
    }
}

/// Encodes an incomplete entry behind `bytes`, which are cleared before, and gives the stat back.
pub(super) fn encode(stat: FileStat, slot: bool, bytes: &mut Vec<u8>) -> FileStat {
    let message = wire::Stat::from(stat);
    bytes.clear();
    bytes.push(if slot { SLOT } else { 0 });
    if slot {
        bytes.extend([0; DIGEST_BYTES]);
    }
    encode_varint(message.encoded_len() as u64, bytes);
    message.encode_raw(bytes);
    message.into()
}

/// The next entry of a list, without consuming it; none: no more.
pub(super) fn next<S: Borrow<Spool>>(reader: &mut Reader<S>) -> Result<Option<Raw<'_>>, TreeError> {
    let bytes = reader.ahead(HEAD_BYTES_MAX)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let head = Head::read(bytes).ok_or(TreeError::Invalid)?;
    let bytes = reader.ahead(head.end)?;
    Raw::read(bytes).map(Some).ok_or(TreeError::Invalid)
}

/// The entry at a place. `buffer` has it if it lies in a file.
pub(super) fn at<'a>(spool: &'a Spool, place: Place, buffer: &'a mut Vec<u8>) -> Result<Raw<'a>, TreeError> {
    if let Some(bytes) = spool.slice_from(place) {
        return Raw::read(bytes).ok_or(TreeError::Invalid);
    }
    let left = spool.len().saturating_sub(place);
    buffer.resize(left.min(LIKELY_BYTES) as usize, 0);
    spool.read_at(place, buffer)?;
    let head = Head::read(buffer).ok_or(TreeError::Invalid)?;
    if head.end > buffer.len() {
        if head.end as u64 > left {
            return Err(TreeError::Invalid);
        }
        buffer.resize(head.end, 0);
        spool.read_at(place, buffer)?;
    }
    Raw::read(buffer).ok_or(TreeError::Invalid)
}
