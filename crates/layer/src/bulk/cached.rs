//! What of a file is in memory.

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

/// `cachestat`, the same on all processors (Linux 6.5, `include/uapi/asm-generic/unistd.h`).
const CACHESTAT: libc::c_long = 451;

/// What is one page to `cachestat`, at least.
const PAGE_BYTES: u64 = 4096;

/// A file system that says nothing of the pages of the one below it.
const OVERLAYFS: u64 = 0x794c_7630;

/// `struct cachestat_range` of `include/uapi/linux/mman.h`.
#[repr(C)]
struct Range {
    offset: u64,
    /// 0 would mean: to the end.
    len: u64,
}

/// `struct cachestat`, in pages.
#[repr(C)]
#[derive(Default)]
struct Pages {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether the kernel tells, of files of this file system, which of their pages are in memory.
pub(super) fn is_told(file: &File) -> bool {
    !rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type as u64 == OVERLAYFS) && is_cached(file, 0, 1).is_ok()
}

/// Whether these bytes of a file are best read from memory: all of them are there, or some are that the disk does not have yet. `len` is
/// not 0, and the file goes so far.
pub(super) fn is_cached(file: &File, offset: u64, len: u64) -> Result<bool, Errno> {
    let range = Range { offset, len };
    let mut pages = Pages::default();
    // SAFETY: both structures are laid out as the kernel's, live until the call returns, and are only read and only written in it.
    #[allow(unsafe_code)]
    let result =
        unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut pages, 0_u32) };
    if result != 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOSYS));
    }
    let wanted = (offset + len).div_ceil(PAGE_BYTES) - offset / PAGE_BYTES;
    Ok(pages.cached >= wanted || pages.dirty > 0)
}
