//! Extended headers (POSIX.1-2001 pax): records of `length key=value`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::field::{decimal, time};
use super::header::path;
use super::sparse::Segment;

/// The prefix of extended attributes' keys.
pub(super) const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What extended headers say about the entry that follows.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub path: Option<PathBuf>,
    pub link: Option<PathBuf>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    pub sparse: Option<SparseKeys>,
}

/// GNU's three ways of saying that a file has holes.
#[derive(Debug, Default)]
pub(super) struct SparseKeys {
    /// Version 1.0: the map stands before the data.
    pub map_in_data: bool,
    pub name: Option<PathBuf>,
    pub real_size: Option<u64>,
    pub segments: Vec<Segment>,
    offset: Option<u64>,
}

impl Extensions {
    /// Reads the payload of an `x` entry.
    pub(super) fn parse(&mut self, mut data: &[u8]) -> Result<(), &'static str> {
        while !data.is_empty() {
            let (record, rest) = split_record(data).ok_or("extended header is malformed")?;
            data = rest;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or("extended header has no `=`")?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            if key.is_empty() || key.contains(&0) {
                return Err("extended header has a bad key");
            }
            self.take(key, value)?;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let is_text = matches!(key, b"path" | b"linkpath" | b"GNU.sparse.name");
        if is_text && value.contains(&0) {
            return Err("name contains a NUL");
        }
        let number = || decimal(value).ok_or("extended header has a bad number");
        match key {
            // An empty value takes an earlier one back.
            b"path" => self.path = (!value.is_empty()).then(|| path(value)),
            b"linkpath" => self.link = (!value.is_empty()).then(|| path(value)),
            b"size" => self.size = if value.is_empty() { None } else { Some(number()?) },
            b"uid" => self.uid = if value.is_empty() { None } else { Some(number()?) },
            b"gid" => self.gid = if value.is_empty() { None } else { Some(number()?) },
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value).ok_or("extended header has a bad time")?),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                    if name.is_empty() {
                        return Err("extended attribute has no name");
                    }
                    self.xattrs.retain(|(key, _)| key.as_encoded_bytes() != name);
                    self.xattrs.push((OsString::from_vec(name.to_vec()), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().take(key, value)?;
                }
            }
        }
        Ok(())
    }
}

impl SparseKeys {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let number = || decimal(value).ok_or("sparse file has a bad number");
        match key {
            b"major" => self.map_in_data = number()? == 1,
            b"minor" | b"numblocks" => {}
            b"name" => self.name = Some(path(value)),
            b"realsize" | b"size" => self.real_size = Some(number()?),
            b"offset" => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or("sparse file has a length without an offset")?;
                self.segments.push(Segment { offset, len: number()? });
            }
            b"map" => {
                let numbers: Option<Vec<u64>> =
                    value.split(|&byte| byte == b',').filter(|part| !part.is_empty()).map(decimal).collect();
                let numbers = numbers.ok_or("sparse file has a bad map")?;
                if numbers.len() % 2 != 0 {
                    return Err("sparse file has a bad map");
                }
                self.segments =
                    numbers.chunks_exact(2).map(|pair| Segment { offset: pair[0], len: pair[1] }).collect();
            }
            _ => {}
        }
        Ok(())
    }
}

/// Splits `length key=value\n` off; gives `key=value`.
fn split_record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = data.iter().take(20).position(|&byte| byte == b' ')?;
    let len = usize::try_from(decimal(&data[..blank])?).ok()?;
    if len < blank + 2 || len > data.len() || data[len - 1] != b'\n' {
        return None;
    }
    Some((&data[blank + 1..len - 1], &data[len..]))
}

/// Appends a record; its length counts itself.
pub(super) fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // blank, `=`, newline
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + decimal_digits(len) {
        len = rest + decimal_digits(len);
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_themselves() {
        for len in [0, 1, 80, 85, 86, 87, 88, 89, 90, 91, 92, 980, 990, 1000, 9985] {
            let mut out = Vec::new();
            push_record(&mut out, b"key", &vec![b'v'; len]);
            let (record, rest) = split_record(&out).expect("well-formed");
            assert_eq!((record.len(), rest.len()), (4 + len, 0), "{len}");
        }
    }

    #[test]
    fn refuses_malformed_records() {
        for text in [&b"5 a=b"[..], b"99 a=b\n", b"x a=b\n", b"0 a=b\n", b"3 a\n", b"7 a=b\n"] {
            assert!(Extensions::default().parse(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
        let mut good = Extensions::default();
        good.parse(b"10 path=a\n11 path=ab\n19 SCHILY.xattr.a=\n").expect("well-formed");
        assert_eq!(good.path, Some("ab".into()));
        assert_eq!(good.xattrs.len(), 1);
    }
}
