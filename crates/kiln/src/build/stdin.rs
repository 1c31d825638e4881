//! What comes on standard input: a tar stream, or a Dockerfile.

use std::io::{self, Read};

use crate::error::{Context as _, Error, Result};

/// Enough to tell a tar stream.
const PEEK_BYTES: usize = 1024;
const BLOCK_BYTES: usize = 512;
/// A Dockerfile that is longer is none.
const DOCKERFILE_BYTES_MAX: usize = 16 << 20;

/// Standard input with its beginning already read.
#[derive(Debug)]
pub struct Peeked<R> {
    beginning: Vec<u8>,
    rest: R,
}

impl<R: Read> Peeked<R> {
    /// Reads the beginning.
    pub fn new(mut rest: R) -> Result<Self> {
        let mut beginning = Vec::with_capacity(PEEK_BYTES);
        rest.by_ref().take(PEEK_BYTES as u64).read_to_end(&mut beginning).when("read standard input")?;
        Ok(Self { beginning, rest })
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.beginning.is_empty()
    }

    /// Whether it is a tar stream, maybe compressed.
    pub fn is_archive(&self) -> bool {
        const BZIP2: &[u8] = b"BZh";
        const GZIP: &[u8] = &[0x1f, 0x8b, 0x08];
        const XZ: &[u8] = &[0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00];
        [BZIP2, GZIP, XZ].iter().any(|magic| self.beginning.starts_with(magic))
            || is_tar_header(&self.beginning)
    }

    /// All of it, as a Dockerfile.
    pub fn read_dockerfile(self) -> Result<Vec<u8>> {
        let mut all = self.beginning;
        self.rest.take(DOCKERFILE_BYTES_MAX as u64 + 1).read_to_end(&mut all).when("read standard input")?;
        if all.len() > DOCKERFILE_BYTES_MAX {
            return Err(Error::user("the Dockerfile on standard input is too long"));
        }
        Ok(all)
    }

    /// The beginning and the rest.
    pub fn into_reader(self) -> io::Chain<io::Cursor<Vec<u8>>, R> {
        io::Cursor::new(self.beginning).chain(self.rest)
    }
}

/// A tar header carries the sum of its own bytes.
fn is_tar_header(data: &[u8]) -> bool {
    let Some(header) = data.get(..BLOCK_BYTES) else { return false };
    let field = String::from_utf8_lossy(&header[148..156]);
    let field = field.trim_matches(|c: char| c == '\0' || c == ' ');
    let Ok(told) = i64::from_str_radix(field, 8) else { return false };
    let byte = |at: usize| if (148..156).contains(&at) { b' ' } else { header[at] };
    let unsigned: i64 = (0..BLOCK_BYTES).map(|at| i64::from(byte(at))).sum();
    // Some old programs summed signed bytes.
    let signed: i64 = (0..BLOCK_BYTES).map(|at| i64::from(byte(at).cast_signed())).sum();
    told == unsigned || told == signed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str) -> Vec<u8> {
        let mut block = vec![0u8; BLOCK_BYTES];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    fn peek(data: &[u8]) -> Peeked<&[u8]> {
        Peeked::new(data).unwrap()
    }

    #[test]
    fn tells_archives_from_text() {
        assert!(peek(&header("Dockerfile")).is_archive());
        assert!(peek(&header("Dockerfilé")).is_archive());
        let gzip: &[u8] = &[0x1f, 0x8b, 0x08, 0x00];
        for magic in [gzip, b"BZh9", b"\xfd7zXZ\0"] {
            assert!(peek(magic).is_archive());
        }
        let text = b"FROM scratch\nCOPY a b\n".repeat(60);
        for data in [&text[..], b"FROM x", b"", &[0u8; 1024]] {
            assert!(!peek(data).is_archive());
        }
    }

    #[test]
    fn nothing_is_lost() {
        let data: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        let mut all = Vec::new();
        peek(&data).into_reader().read_to_end(&mut all).unwrap();
        assert_eq!(all, data);
        assert_eq!(peek(&data).read_dockerfile().unwrap(), data);
        assert!(peek(b"").is_empty());
    }
}
