//! Zstandard in blocks, each a frame of its own.

use std::io;

use super::block::{Codec, Worker};

/// Zstandard's own default.
pub(super) const DEFAULT_LEVEL: i32 = zstd::DEFAULT_COMPRESSION_LEVEL;

/// Twice the window of level 3, so that starting afresh costs little.
const BLOCK_BYTES: usize = 4 << 20;

pub(super) struct Zstd {
    level: i32,
}

impl Zstd {
    pub(super) fn new(level: i32) -> Self {
        Self { level }
    }
}

impl Codec for Zstd {
    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    fn worker(&self) -> io::Result<Box<dyn Worker>> {
        Ok(Box::new(zstd::bulk::Compressor::new(self.level)?))
    }

    fn empty(&self) -> io::Result<Vec<u8>> {
        zstd::bulk::compress(&[], self.level)
    }
}

impl Worker for zstd::bulk::Compressor<'static> {
    fn compress(&mut self, plain: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
        packed.clear();
        packed.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        self.compress_to_buffer(plain, packed).map(drop)
    }
}
