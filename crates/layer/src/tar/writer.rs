//! Writing an archive in pax format, with the headers that Go's writer makes.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::RECORD_BYTES;
use super::header::{Entry, EntryKind, checksums};
use super::pax::{XATTR_PREFIX, push_record};
use crate::error::{Error, Result};

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
const ZEROS: [u8; RECORD_BYTES] = [0; RECORD_BYTES];

/// Writes an archive.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Content of the current entry still to come, and the padding behind it.
    data_left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Writes to `out`, in pieces as small as 512 bytes.
    pub fn new(out: W) -> Self {
        Self { out, data_left: 0, padding: 0 }
    }

    /// Begins an entry. A directory's name gets its trailing slash here. A file's `size` bytes must follow by
    /// [`Writer::write_data`]. Sparse entries are written as they are read: with their zeros.
    pub fn start(&mut self, entry: &Entry) -> Result<()> {
        assert_eq!(self.data_left, 0, "the last entry's content is complete");
        self.pad()?;
        let mut name = entry.path.as_os_str().as_bytes().to_vec();
        if entry.kind == EntryKind::Dir && !name.ends_with(b"/") {
            name.push(b'/');
        }
        let link = entry.link.as_os_str().as_bytes();
        let size = if entry.kind == EntryKind::File { entry.size } else { 0 };

        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut extend = |key: &str, value: &[u8]| records.push((key.as_bytes().to_vec(), value.to_vec()));
        let split = split_name(&name);
        if split.is_none() {
            extend("path", &name);
        }
        if link.len() > NAME_BYTES || !link.is_ascii() {
            extend("linkpath", link);
        }
        if !fits_octal(size, 12) {
            extend("size", size.to_string().as_bytes());
        }
        for (key, id) in [("uid", entry.uid), ("gid", entry.gid)] {
            if !fits_octal(u64::from(id), 8) {
                extend(key, id.to_string().as_bytes());
            }
        }
        let mtime = u64::try_from(entry.mtime_s).ok().filter(|&seconds| fits_octal(seconds, 12));
        if mtime.is_none() || entry.mtime_ns != 0 {
            extend("mtime", time_text(entry.mtime_s, entry.mtime_ns).as_bytes());
        }
        for (key, value) in &entry.xattrs {
            records.push(([XATTR_PREFIX, key.as_bytes()].concat(), value.clone()));
        }
        records.sort();
        if !records.is_empty() {
            let mut data = Vec::new();
            for (key, value) in &records {
                push_record(&mut data, key, value);
            }
            self.extension(&name, &data)?;
        }

        let mut raw = [0u8; RECORD_BYTES];
        match split {
            Some(at) if at > 0 => {
                raw[345..345 + at - 1].copy_from_slice(&name[..at - 1]);
                raw[..name.len() - at].copy_from_slice(&name[at..]);
            }
            _ => put_ascii(&mut raw[..NAME_BYTES], &name),
        }
        put_ascii(&mut raw[157..257], link);
        put_octal(&mut raw[100..108], u64::from(entry.mode & 0o7777));
        put_octal(&mut raw[108..116], u64::from(entry.uid));
        put_octal(&mut raw[116..124], u64::from(entry.gid));
        put_octal(&mut raw[124..136], size);
        put_octal(&mut raw[136..148], mtime.unwrap_or(0));
        raw[156] = typeflag(entry.kind);
        put_octal(&mut raw[329..337], u64::from(entry.major));
        put_octal(&mut raw[337..345], u64::from(entry.minor));
        self.record(raw)?;
        self.data_left = size;
        self.padding = (size.next_multiple_of(RECORD_BYTES as u64) - size) as usize;
        Ok(())
    }

    /// Writes content of the current entry. More than its size is an error.
    pub fn write_data(&mut self, data: &[u8]) -> Result<()> {
        self.passed(data.len() as u64)?;
        self.out.write_all(data).map_err(Error::Write)
    }

    /// The writer below, where the next content of the current entry goes: for content that gets there in another way, of which
    /// [`Writer::passed`] is told.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Takes note of content of the current entry that went past this writer.
    pub fn passed(&mut self, bytes: u64) -> Result<()> {
        let too_long = || Error::Write(std::io::Error::other("more content than the entry's size"));
        self.data_left = self.data_left.checked_sub(bytes).ok_or_else(too_long)?;
        Ok(())
    }

    /// Ends the archive and gives the writer back.
    pub fn finish(mut self) -> Result<W> {
        assert_eq!(self.data_left, 0, "the last entry's content is complete");
        self.pad()?;
        self.out.write_all(&ZEROS).map_err(Error::Write)?;
        self.out.write_all(&ZEROS).map_err(Error::Write)?;
        Ok(self.out)
    }

    fn pad(&mut self) -> Result<()> {
        self.out.write_all(&ZEROS[..std::mem::take(&mut self.padding)]).map_err(Error::Write)
    }

    fn extension(&mut self, name: &[u8], data: &[u8]) -> Result<()> {
        let mut raw = [0u8; RECORD_BYTES];
        put_ascii(&mut raw[..NAME_BYTES], pax_name(name).as_os_str().as_bytes());
        for range in [100..108, 108..116, 116..124, 136..148, 329..337, 337..345] {
            put_octal(&mut raw[range], 0);
        }
        put_octal(&mut raw[124..136], data.len() as u64);
        raw[156] = b'x';
        self.record(raw)?;
        self.out.write_all(data).map_err(Error::Write)?;
        self.padding = data.len().next_multiple_of(RECORD_BYTES) - data.len();
        self.pad()
    }

    fn record(&mut self, mut raw: [u8; RECORD_BYTES]) -> Result<()> {
        raw[257..265].copy_from_slice(b"ustar\x0000");
        let (sum, _) = checksums(&raw);
        raw[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.out.write_all(&raw).map_err(Error::Write)
    }
}

fn typeflag(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Dir => b'5',
        EntryKind::Fifo => b'6',
    }
}

/// Where a name is cut into prefix and name: 0 if it fits whole, `None` if an extended header has to say it.
fn split_name(name: &[u8]) -> Option<usize> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= NAME_BYTES {
        return Some(0);
    }
    // A directory's trailing slash stays with its name.
    let longest = (PREFIX_BYTES + 1).min(name.len() - 1);
    let slash = name[..longest].iter().rposition(|&byte| byte == b'/')?;
    let rest = name.len() - slash - 1;
    (slash > 0 && slash <= PREFIX_BYTES && rest > 0 && rest <= NAME_BYTES).then_some(slash + 1)
}

fn pax_name(name: &[u8]) -> PathBuf {
    let path = Path::new(OsStr::from_bytes(name));
    let base = path.file_name().unwrap_or_default();
    path.parent().unwrap_or(Path::new("")).join("PaxHeaders.0").join(base)
}

/// What of `text` is ASCII and fits: the rest is in an extended header.
fn put_ascii(field: &mut [u8], text: &[u8]) {
    for (to, from) in field.iter_mut().zip(text.iter().filter(|byte| byte.is_ascii())) {
        *to = *from;
    }
}

fn fits_octal(value: u64, field: u32) -> bool {
    value < 1 << (3 * (field - 1))
}

/// Zero-padded digits and a NUL; zero where the number does not fit and an extended header says it.
fn put_octal(field: &mut [u8], value: u64) {
    let value = if fits_octal(value, field.len() as u32) { value } else { 0 };
    let digits = format!("{value:0width$o}\0", width = field.len() - 1);
    field.copy_from_slice(digits.as_bytes());
}

fn time_text(seconds: i64, nanos: u32) -> String {
    if nanos == 0 {
        return seconds.to_string();
    }
    let (sign, whole, nanos) = if seconds < 0 {
        ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos)
    } else {
        ("", seconds.unsigned_abs(), nanos)
    };
    let fraction = format!("{nanos:09}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}
