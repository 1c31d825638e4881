//! Files that a client gives instead of receiving what belongs into them.

use std::fs::File;

use rustix::fs::{FallocateFlags, FileType, fallocate, fstat};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use super::Caller;
use crate::{handles, keys};

/// Asks for a handle with this call.
pub(super) fn ask(metadata: &mut MetadataMap) {
    metadata.insert(keys::HANDLES, AsciiMetadataValue::from_static("1"));
}

impl Caller {
    /// Takes the file that the client offers in this answer, if it can be taken here.
    pub(super) async fn take_file(&self, answer: &MetadataMap) -> Option<File> {
        let name = answer.get(keys::HANDLE_NAME)?.to_str().ok()?.to_owned();
        let taken = tokio::task::spawn_blocking(move || {
            let file = File::from(handles::take(&name)?);
            Ok(Some(file).filter(is_plain))
        });
        match taken.await.map_err(std::io::Error::other).flatten() {
            Ok(file) => file,
            Err(error) => {
                tracing::debug!(session = %self.id(), %error, "the client's handles cannot be taken");
                self.ask_for_no_more_handles();
                None
            }
        }
    }
}

/// Whether it is an empty file on a disk or in memory. In the kernel's own file systems a file looks like one too, but what is written there
/// has effects, and it is this process that would write it.
fn is_plain(file: &File) -> bool {
    let empty = fstat(file).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0
    });
    // No file system of the kernel's own has room to reserve.
    empty && fallocate(file, FallocateFlags::KEEP_SIZE, 0, 1).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_not_written() {
        assert!(is_plain(&tempfile::tempfile().unwrap()));
        for path in ["/proc/self/oom_score_adj", "/proc/self/comm", "/dev/null"] {
            assert!(!is_plain(&File::options().write(true).open(path).unwrap()), "{path}");
        }
        let full = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(full.path(), "content").unwrap();
        assert!(!is_plain(full.as_file()));
        assert!(!is_plain(&File::open(std::env::temp_dir()).unwrap()));
    }
}
