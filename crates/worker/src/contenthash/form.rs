//! Records as bytes, in the order of their paths.
//!
//! A record is, integers as LEB128:
//!
//! * how much of its path it shares with the one before, and the rest of the path;
//! * a [`Tag`], with [`SAME_HEADER`] where the header is that of the last record with this tag;
//! * the header, unless it is the same, or the path is removed;
//! * the target of a link; of a regular file with room for one its content digest, zeros while that is not known.

use std::io::{self, Read};

use super::record::{Record, RecordKind};
use crate::encode::Hash;

/// The header is that of the last record with the same tag: most files of a layer have the same one.
const SAME_HEADER: u8 = 0x80;

/// Content that is not known. No file has this digest that anybody could name.
const NO_CONTENT: Hash = [0; 32];

/// What a record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
enum Tag {
    #[default]
    File = 1,
    /// A file without room for a content digest; its headers count with those of other files.
    Unread = 2,
    Dir = 3,
    OpaqueDir = 4,
    Symlink = 5,
    Special = 6,
    Whiteout = 7,
}

impl Tag {
    const COUNT: usize = 8;

    fn new(byte: u8) -> io::Result<Tag> {
        const TAGS: [Tag; 7] =
            [Tag::File, Tag::Unread, Tag::Dir, Tag::OpaqueDir, Tag::Symlink, Tag::Special, Tag::Whiteout];
        usize::from(byte).checked_sub(1).and_then(|index| TAGS.get(index)).copied().ok_or_else(damaged)
    }

    /// Its place among the last headers.
    fn header(self) -> usize {
        if self == Tag::Unread { Tag::File as usize } else { self as usize }
    }
}

/// The last header of each tag.
type Headers = [Option<Hash>; Tag::COUNT];

/// A path or link target that is longer than those of files are.
#[derive(Debug)]
pub(super) struct TooLong;

/// Whether a file whose content is not known gets room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Always,
    IfKnown,
}

/// What a writer knows of the records before.
#[derive(Debug, Default)]
pub(super) struct Writer {
    headers: Headers,
}

impl Writer {
    /// The next record can be read without those before it.
    pub(super) fn restart(&mut self) {
        self.headers = Headers::default();
    }

    /// Adds a record to `out`. Of its path `shared` bytes are in the one before.
    pub(super) fn write(
        &mut self,
        record: &Record<'_>,
        shared: usize,
        room: Room,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        let (tag, target) = match record.kind {
            RecordKind::File if record.content.is_none() && room == Room::IfKnown => (Tag::Unread, &b""[..]),
            RecordKind::File => (Tag::File, &b""[..]),
            RecordKind::Dir { opaque: false } => (Tag::Dir, &b""[..]),
            RecordKind::Dir { opaque: true } => (Tag::OpaqueDir, &b""[..]),
            RecordKind::Symlink { target } => (Tag::Symlink, target),
            RecordKind::Special => (Tag::Special, &b""[..]),
            RecordKind::Whiteout => (Tag::Whiteout, &b""[..]),
        };
        if record.path.len().max(target.len()) > usize::from(u16::MAX) {
            return Err(TooLong);
        }
        put_uint(out, shared);
        put_bytes(out, &record.path[shared..]);
        if tag == Tag::Whiteout {
            out.push(tag as u8);
            return Ok(());
        }
        let last = &mut self.headers[tag.header()];
        if last.as_ref() == Some(record.header) {
            out.push(tag as u8 | SAME_HEADER);
        } else {
            *last = Some(*record.header);
            out.push(tag as u8);
            out.extend_from_slice(record.header);
        }
        match tag {
            Tag::Symlink => put_bytes(out, target),
            Tag::File => out.extend_from_slice(record.content.unwrap_or(&NO_CONTENT)),
            _ => {}
        }
        Ok(())
    }
}

/// A record that was read; the next one is read into its place.
#[derive(Debug, Default)]
pub(super) struct Entry {
    path: Vec<u8>,
    target: Vec<u8>,
    tag: Tag,
    header: Hash,
    content: Hash,
    headers: Headers,
}

impl Entry {
    /// Reads the next record.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] and [`io::ErrorKind::UnexpectedEof`] for what is no record; what `input` says.
    pub(super) fn read(&mut self, input: &mut impl Read) -> io::Result<()> {
        let shared = read_uint(input)?;
        let rest = read_uint(input)?;
        if shared > self.path.len() || rest > usize::from(u16::MAX) - shared {
            return Err(damaged());
        }
        self.path.resize(shared + rest, 0);
        input.read_exact(&mut self.path[shared..])?;
        let byte = read_byte(input)?;
        self.tag = Tag::new(byte & !SAME_HEADER)?;
        self.content = NO_CONTENT;
        if self.tag == Tag::Whiteout {
            self.header = Hash::default();
            return if byte & SAME_HEADER == 0 { Ok(()) } else { Err(damaged()) };
        }
        let last = &mut self.headers[self.tag.header()];
        if byte & SAME_HEADER != 0 {
            self.header = last.ok_or_else(damaged)?;
        } else {
            input.read_exact(&mut self.header)?;
            *last = Some(self.header);
        }
        match self.tag {
            Tag::Symlink => {
                let length = read_uint(input)?;
                if length > usize::from(u16::MAX) {
                    return Err(damaged());
                }
                self.target.resize(length, 0);
                input.read_exact(&mut self.target)?;
            }
            Tag::File => input.read_exact(&mut self.content)?,
            _ => {}
        }
        Ok(())
    }

    /// Its path.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// What it says.
    pub(super) fn record(&self) -> Record<'_> {
        let kind = match self.tag {
            Tag::File | Tag::Unread => RecordKind::File,
            Tag::Dir => RecordKind::Dir { opaque: false },
            Tag::OpaqueDir => RecordKind::Dir { opaque: true },
            Tag::Symlink => RecordKind::Symlink { target: &self.target },
            Tag::Special => RecordKind::Special,
            Tag::Whiteout => RecordKind::Whiteout,
        };
        let content = (self.content != NO_CONTENT).then_some(&self.content);
        Record { path: &self.path, kind, header: &self.header, content }
    }
}

/// The path of a record that shares none with the one before, if so much of it is there; how much is needed otherwise.
pub(super) fn first_path(bytes: &[u8]) -> io::Result<Result<&[u8], usize>> {
    let mut input = bytes;
    let whole = |result: io::Result<usize>| match result {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        other => other.map(Some),
    };
    // Lengths of two bytes have three at most.
    let Some(shared) = whole(read_uint(&mut input))? else { return Ok(Err(bytes.len() + 8)) };
    let Some(length) = whole(read_uint(&mut input))? else { return Ok(Err(bytes.len() + 8)) };
    if shared > 0 || length > usize::from(u16::MAX) {
        return Err(damaged());
    }
    Ok(input.get(..length).ok_or(bytes.len() - input.len() + length))
}

pub(super) fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

pub(super) fn put_uint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uint(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn read_byte(input: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0];
    input.read_exact(&mut byte)?;
    Ok(byte[0])
}

pub(super) fn read_uint(input: &mut impl Read) -> io::Result<usize> {
    let mut number = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = read_byte(input)?;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(damaged())
}
