//! Memory where the kernel wants it for direct transfers.

/// What addresses, offsets and lengths are multiples of. The largest logical block of a disk.
pub(super) const ALIGN: usize = 4096;

/// Bytes that begin at an aligned address.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    capacity: usize,
    len: usize,
}

impl Buffer {
    pub(super) fn new(capacity: usize) -> Self {
        let bytes = vec![0; capacity + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Self { bytes, start, capacity, len: 0 }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// Takes what fits of `data`; says how much that was.
    pub(super) fn take(&mut self, data: &[u8]) -> usize {
        let taken = data.len().min(self.capacity - self.len);
        let at = self.start + self.len;
        self.bytes[at..at + taken].copy_from_slice(&data[..taken]);
        self.len += taken;
        taken
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// All of it, to be filled from outside; then [`Buffer::set_len`].
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.capacity]
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity);
    }
}
