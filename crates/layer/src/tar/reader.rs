//! Reading an archive entry by entry from a stream of chunks, without copying content.

use bytes::{Bytes, BytesMut};

use super::RECORD_BYTES;
use super::field::{decimal, number};
use super::header::{Entry, EntryKind, Record, path};
use super::pax::Extensions;
use super::sparse::{self, Segment};
use crate::error::{Error, Result};

/// The largest extended header, long name or sparse map taken; what Go's reader allows.
const SPECIAL_BYTES_MAX: u64 = 1 << 20;

/// Where an archive's plain bytes come from.
pub trait Chunks {
    /// The next bytes, never empty; `None` at the end.
    fn next_chunk(&mut self) -> Result<Option<Bytes>>;
}

/// Reads an archive.
#[derive(Debug)]
pub struct Reader<C> {
    chunks: C,
    chunk: Bytes,
    /// Where `chunk` begins in the archive.
    offset: u64,
    /// Stored bytes of the current entry not read yet, and the padding behind them.
    data_left: u64,
    padding: u64,
    ended: bool,
}

impl<C: Chunks> Reader<C> {
    /// Reads from these chunks.
    pub fn new(chunks: C) -> Self {
        Self { chunks, chunk: Bytes::new(), offset: 0, data_left: 0, padding: 0, ended: false }
    }

    /// The next entry; what was not read of the last one's content is skipped. `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip(self.data_left + self.padding)?;
            (self.data_left, self.padding) = (0, 0);
            if self.ended {
                return Ok(None);
            }
            let Some(raw) = self.record()? else {
                self.ended = true;
                return Ok(None);
            };
            if raw.iter().all(|&byte| byte == 0) {
                // The end is two such records; a second one that is missing is forgiven, as elsewhere.
                self.ended = true;
                return Ok(None);
            }
            let record = Record::parse(&raw).map_err(|reason| self.invalid(reason))?;
            let size = u64::try_from(record.size).map_err(|_| self.invalid("negative size"))?;
            match record.typeflag {
                b'x' | b'X' => {
                    let data = self.special(size)?;
                    extensions.parse(&data).map_err(|reason| self.invalid(reason))?;
                }
                b'g' => {
                    // Global headers are ignored, as upstream does.
                    self.special(size)?;
                }
                b'L' => extensions.path = Some(path(super::field::text(&self.special(size)?))),
                b'K' => extensions.link = Some(path(super::field::text(&self.special(size)?))),
                _ => return self.entry(record, size, extensions, &raw).map(Some),
            }
        }
    }

    /// The next bytes of the current entry's stored content, at most `max` of them; `None` when all were given.
    pub fn next_data(&mut self, max: usize) -> Result<Option<Bytes>> {
        if self.data_left == 0 {
            return Ok(None);
        }
        let len = usize::try_from(self.data_left).unwrap_or(usize::MAX).min(max);
        if !self.fill()? {
            return Err(self.truncated());
        }
        let len = len.min(self.chunk.len());
        self.data_left -= len as u64;
        self.offset += len as u64;
        Ok(Some(self.chunk.split_to(len)))
    }

    /// How many stored bytes of the current entry are still to come.
    pub fn data_left(&self) -> u64 {
        self.data_left
    }

    /// Reads what stands behind the archive's end and gives the chunks back.
    pub fn drain(mut self) -> Result<C> {
        while self.chunks.next_chunk()?.is_some() {}
        Ok(self.chunks)
    }

    fn entry(
        &mut self,
        record: Record,
        stored: u64,
        extensions: Extensions,
        raw: &[u8; RECORD_BYTES],
    ) -> Result<Entry> {
        let name = extensions.path.unwrap_or(record.name);
        let by_slash = name.as_os_str().as_encoded_bytes().ends_with(b"/");
        let kind = match record.typeflag {
            b'0' | 0 if by_slash => EntryKind::Dir,
            b'0' | b'7' | b'S' | 0 => EntryKind::File,
            b'1' => EntryKind::HardLink,
            b'2' => EntryKind::Symlink,
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Dir,
            b'6' => EntryKind::Fifo,
            other => return Err(self.invalid(format!("unhandled tar header type {other}"))),
        };
        // Only regular files carry content, whatever their header says.
        let stored = match kind {
            EntryKind::File => extensions.size.unwrap_or(stored),
            _ => 0,
        };
        if i64::try_from(stored).is_err() {
            return Err(self.invalid("size is too large"));
        }
        self.data_left = stored;
        self.padding = stored.next_multiple_of(RECORD_BYTES as u64) - stored;
        let id = |extended: Option<u64>, plain: i64| {
            extended.or(u64::try_from(plain).ok()).and_then(|id| u32::try_from(id).ok())
        };
        let device = |number: i64| u32::try_from(number).unwrap_or(0);
        let (mtime_s, mtime_ns) = extensions.mtime.unwrap_or((record.mtime, 0));
        let mut entry = Entry {
            kind,
            path: name,
            link: extensions.link.unwrap_or(record.link),
            mode: (record.mode & 0o7777) as u32,
            uid: id(extensions.uid, record.uid).ok_or_else(|| self.invalid("owner is out of range"))?,
            gid: id(extensions.gid, record.gid).ok_or_else(|| self.invalid("group is out of range"))?,
            size: stored,
            mtime_s,
            mtime_ns,
            major: device(record.major),
            minor: device(record.minor),
            xattrs: extensions.xattrs,
            sparse: None,
        };
        if record.typeflag == b'S' {
            let (segments, size) = self.old_sparse(raw)?;
            self.set_sparse(&mut entry, segments, size)?;
        } else if let Some(keys) = extensions.sparse.filter(|_| kind == EntryKind::File) {
            if let Some(name) = keys.name {
                entry.path = name;
            }
            let segments = if keys.map_in_data { self.sparse_map()? } else { keys.segments };
            let size = keys.real_size.ok_or_else(|| self.invalid("sparse file has no size"))?;
            self.set_sparse(&mut entry, segments, size)?;
        }
        Ok(entry)
    }

    fn set_sparse(&self, entry: &mut Entry, segments: Vec<Segment>, size: u64) -> Result<()> {
        sparse::check(&segments, self.data_left, size).map_err(|reason| self.invalid(reason))?;
        entry.size = size;
        entry.sparse = Some(segments);
        Ok(())
    }

    /// GNU's old format: four pieces in the header, more in records behind it.
    fn old_sparse(&mut self, raw: &[u8; RECORD_BYTES]) -> Result<(Vec<Segment>, u64)> {
        let mut segments = Vec::new();
        sparse::parse_old(&raw[386..482], &mut segments).map_err(|reason| self.invalid(reason))?;
        let mut more = raw[482] != 0;
        while more {
            let next = self.record()?.ok_or_else(|| self.truncated())?;
            sparse::parse_old(&next[..504], &mut segments).map_err(|reason| self.invalid(reason))?;
            more = next[504] != 0;
        }
        let size = number(&raw[483..495]).and_then(|size| u64::try_from(size).ok());
        Ok((segments, size.ok_or_else(|| self.invalid("sparse file has a bad size"))?))
    }

    /// Version 1.0: decimal numbers, one a line, padded to a record, before the data.
    fn sparse_map(&mut self) -> Result<Vec<Segment>> {
        let mut text = Vec::new();
        let mut at = 0;
        let mut next_number = |this: &mut Self| -> Result<u64> {
            loop {
                if let Some(len) = text[at..].iter().position(|&byte| byte == b'\n') {
                    let value = decimal(&text[at..at + len]);
                    at += len + 1;
                    return value.ok_or_else(|| this.invalid("sparse file has a bad map"));
                }
                if text.len() as u64 >= SPECIAL_BYTES_MAX || this.data_left < RECORD_BYTES as u64 {
                    return Err(this.invalid("sparse file has a bad map"));
                }
                let record = this.record()?.ok_or_else(|| this.truncated())?;
                this.data_left -= RECORD_BYTES as u64;
                text.extend_from_slice(&record);
            }
        };
        let count = next_number(self)?;
        let mut segments = Vec::new();
        for _ in 0..count {
            let (offset, len) = (next_number(self)?, next_number(self)?);
            segments.push(Segment { offset, len });
        }
        Ok(segments)
    }

    /// The content of an entry that describes the next one.
    fn special(&mut self, size: u64) -> Result<Bytes> {
        if size > SPECIAL_BYTES_MAX {
            return Err(self.invalid("extended header is too large"));
        }
        let data = self.take(size as usize)?.ok_or_else(|| self.truncated())?;
        self.skip(size.next_multiple_of(RECORD_BYTES as u64) - size)?;
        Ok(data)
    }

    fn record(&mut self) -> Result<Option<[u8; RECORD_BYTES]>> {
        let data = self.take(RECORD_BYTES)?;
        Ok(data.map(|data| data[..].try_into().expect("a record's length was asked for")))
    }

    /// Exactly `len` bytes, `None` at a clean end.
    fn take(&mut self, len: usize) -> Result<Option<Bytes>> {
        if len == 0 {
            return Ok(Some(Bytes::new()));
        }
        if !self.fill()? {
            return Ok(None);
        }
        if self.chunk.len() >= len {
            self.offset += len as u64;
            return Ok(Some(self.chunk.split_to(len)));
        }
        let mut whole = BytesMut::with_capacity(len);
        while whole.len() < len {
            if !self.fill()? {
                return Err(self.truncated());
            }
            let part = self.chunk.split_to(self.chunk.len().min(len - whole.len()));
            self.offset += part.len() as u64;
            whole.extend_from_slice(&part);
        }
        Ok(Some(whole.freeze()))
    }

    fn skip(&mut self, mut len: u64) -> Result<()> {
        while len > 0 {
            if !self.fill()? {
                return Err(self.truncated());
            }
            let part = usize::try_from(len).unwrap_or(usize::MAX).min(self.chunk.len());
            self.chunk = self.chunk.slice(part..);
            self.offset += part as u64;
            len -= part as u64;
        }
        Ok(())
    }

    /// Makes sure that a chunk is at hand; `false` at the end.
    fn fill(&mut self) -> Result<bool> {
        if self.chunk.is_empty() {
            match self.chunks.next_chunk()? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    fn invalid(&self, reason: impl Into<String>) -> Error {
        Error::Archive { offset: self.offset, reason: reason.into() }
    }

    fn truncated(&self) -> Error {
        self.invalid("the archive ends in the middle of an entry")
    }
}
