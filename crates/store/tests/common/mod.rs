//! What the store's tests share.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use kiln_layer::tar::{Entry, EntryKind, Writer};
use kiln_oci::{Descriptor, Digest, media_type};
use kiln_store::{BoxError, CommitInfo, LayerMeta, LazyLayer, Provider, Ref, Store, StoreOptions};
use tokio::io::AsyncRead;

/// A store in a directory of its own.
pub struct TestStore {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

impl TestStore {
    pub fn new() -> Self {
        Self::with(StoreOptions::default())
    }

    pub fn with(options: StoreOptions) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path(), options).expect("opens");
        Self { dir, store }
    }

    /// Closes it and opens it again, as a restart would.
    pub fn reopen(self) -> Self {
        let Self { dir, store } = self;
        drop(store);
        let store = Store::open(dir.path(), StoreOptions::default()).expect("opens again");
        Self { dir, store }
    }
}

pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: overlay mounts and whiteouts need root");
    }
    root
}

/// A layer with these files on top of `parent`.
pub fn layer(store: &Store, parent: &Ref, files: &[(&str, &str)]) -> Ref {
    let new = store.new_layer(parent, LayerMeta::regular(format!("{files:?}"))).expect("begins");
    for (path, content) in files {
        write(new.dir(), path, content);
    }
    new.commit(CommitInfo::default()).expect("commits")
}

pub fn write(dir: &Path, path: &str, content: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().expect("has one")).expect("made");
    fs::write(path, content).expect("written");
}

/// An archive of these files; names that end in a slash are directories.
pub fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for (path, content) in files {
        let kind = if path.ends_with('/') { EntryKind::Dir } else { EntryKind::File };
        let path = path.trim_end_matches('/');
        tar.start(&Entry { size: content.len() as u64, ..Entry::new(kind, path) }).expect("memory");
        tar.write_data(content.as_bytes()).expect("memory");
    }
    tar.finish().expect("memory")
}

/// Gives one blob, perhaps badly.
#[derive(Debug)]
pub struct Memory {
    pub bytes: Bytes,
    pub opened: AtomicUsize,
    /// The connection breaks after so many bytes, each time.
    pub breaks_after: Option<usize>,
}

impl Memory {
    pub fn new(bytes: impl Into<Bytes>) -> Arc<Self> {
        Arc::new(Self { bytes: bytes.into(), opened: AtomicUsize::new(0), breaks_after: None })
    }

    pub fn breaking(bytes: impl Into<Bytes>, after: usize) -> Arc<Self> {
        Arc::new(Self { bytes: bytes.into(), opened: AtomicUsize::new(0), breaks_after: Some(after) })
    }

    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl Provider for Memory {
    async fn open(&self, _: &Descriptor, offset: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>, BoxError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let mut rest = self.bytes.slice(offset as usize..);
        if let Some(after) = self.breaks_after {
            rest.truncate(after);
        }
        Ok(Box::new(Cursor::new(rest)))
    }
}

/// A plain layer archive as something to be fetched.
pub fn lazy(plain: &[u8], provider: Arc<Memory>) -> LazyLayer {
    let blob = &provider.bytes;
    LazyLayer {
        descriptor: Descriptor::new(media_type::OCI_LAYER, Digest::sha256_of(blob), blob.len() as u64),
        diff_id: Digest::sha256_of(plain),
        provider,
        meta: LayerMeta::regular("pulled"),
    }
}

/// The text of a file in the union of a ref.
pub fn text(store: &Store, reference: &Ref, path: &str) -> Option<String> {
    let node = store.union(reference).expect("unpacked").lookup(path).expect("a lookup")?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut node.open().expect("there"), &mut text).expect("text");
    Some(text)
}
