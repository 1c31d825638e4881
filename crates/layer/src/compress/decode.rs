//! Decompressing a layer whose format is told by its first bytes.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use kiln_oci::Compression;

/// Room for a compressed stream's next bytes.
const INPUT_BYTES: usize = 256 << 10;

/// How many first bytes tell the format.
const MAGIC_BYTES: usize = 4;

/// The largest window a Zstandard frame may ask for, as a power of two (128 MiB): bounds memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// A stream's start put back before its rest.
type Whole<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// Reads plain bytes out of a compressed stream.
pub enum Decoder<R: Read> {
    /// Not compressed.
    Plain(Whole<R>),
    /// gzip, of one member or many.
    Gzip(Box<MultiGzDecoder<Whole<R>>>),
    /// Zstandard, of one frame or many.
    Zstd(Box<zstd::stream::read::Decoder<'static, Whole<R>>>),
}

/// Looks at the first bytes of `source` and reads it accordingly.
pub fn decompressor<R: Read>(mut source: R) -> io::Result<Decoder<R>> {
    let mut start = vec![0; MAGIC_BYTES];
    let mut len = 0;
    while len < start.len() {
        match source.read(&mut start[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    start.truncate(len);
    let compression = Compression::of_bytes(&start);
    let whole = BufReader::with_capacity(INPUT_BYTES, Cursor::new(start).chain(source));
    Ok(match compression {
        Compression::Gzip | Compression::Estargz => Decoder::Gzip(Box::new(MultiGzDecoder::new(whole))),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Decoder::Zstd(Box::new(decoder))
        }
        Compression::Uncompressed => Decoder::Plain(whole),
    })
}

impl<R: Read> Decoder<R> {
    /// The format found.
    pub fn compression(&self) -> Compression {
        match self {
            Self::Plain(_) => Compression::Uncompressed,
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }

    /// Reads the source to its end (a stream may carry bytes after its last frame) and gives it back.
    pub fn into_source(self) -> io::Result<R> {
        let mut whole = match self {
            Self::Plain(whole) => whole,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        };
        loop {
            let len = whole.fill_buf()?.len();
            if len == 0 {
                return Ok(whole.into_inner().into_inner().1);
            }
            whole.consume(len);
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(whole) => whole.read(buf),
            Self::Gzip(decoder) => decoder.read(buf),
            Self::Zstd(decoder) => decoder.read(buf),
        }
    }
}
