//! The state is its owner's, whatever mode this process gives new files by itself.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{TestStore, layer};
use kiln_store::{Ref, Store, StoreOptions};

#[test]
fn nobody_else_may_write_to_the_state() {
    // As the daemon has it: files of layers get any mode. Nothing else runs in this process.
    rustix::process::umask(rustix::fs::Mode::empty());
    let t = TestStore::new();
    let root = t.dir.path().join("made");
    drop(Store::open(&root, StoreOptions::default()).expect("opens"));
    assert_eq!(root.metadata().expect("is there").permissions().mode() & 0o7777, 0o700);
    t.store.content().put(b"blob").expect("put");
    let _layer = layer(&t.store, &Ref::scratch(), &[("a", "x")]);
    let mut folders = vec![t.dir.path().to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("is a folder").flatten() {
            let meta = entry.metadata().expect("is there");
            seen += 1;
            let mode = meta.permissions().mode() & 0o7777;
            assert!(mode & 0o022 == 0, "{} has mode {mode:o}", entry.path().display());
            // What is in layers and in the trash is closed off by their folders.
            let closed = mode & 0o077 == 0;
            if meta.is_dir() && !closed {
                folders.push(entry.path());
            }
        }
    }
    assert!(seen > 8, "{seen}");
}
