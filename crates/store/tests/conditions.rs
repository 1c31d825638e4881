//! Disks that are full or read-only, and life as a plain user in a namespace of its own.

mod common;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use common::{Memory, is_root, lazy, tar};
use kiln_layer::overlay::{Format, XattrSpace};
use kiln_layer::tar::{Entry, EntryKind, Writer};
use kiln_store::{Backend, CommitInfo, NoObserver, Ref, Store, StoreOptions};

/// A small file system of its own, gone in the end.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(options: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(dir.path()).status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("skipped: mounting a file system is not allowed here");
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_so_and_leaves_nothing_half_done() {
    let Some(disk) = Disk::new("size=4m") else { return };
    let root = disk.0.path();
    let store = Store::open(root, StoreOptions::default()).expect("opens");
    let plain = tar(&[("big", &"x".repeat(8 << 20))]);
    let layer =
        store.lazy_layer(&Ref::scratch(), lazy(&plain, Memory::new(plain.clone()))).expect("recorded");
    let image = store.append(&Ref::scratch(), &layer).expect("recorded");
    let error = store.ensure_unpacked(&image, &NoObserver).await.expect_err("does not fit");
    assert!(error.hint().is_some_and(|hint| hint.contains("kiln prune")), "{error:?}");
    let mut ingest = store.content().ingest(None).expect("begins");
    ingest.write_all(&plain).expect_err("does not fit");
    drop(ingest);
    let count = |dir: &str| fs::read_dir(root.join(dir)).expect("there").count();
    assert_eq!((count("ingest"), count("content/blobs/sha256"), count("layers")), (0, 0, 0));
    common::layer(&store, &Ref::scratch(), &[("small", "fits")]);
}

#[test]
fn a_read_only_disk_is_said_so() {
    let Some(disk) = Disk::new("ro") else { return };
    let error =
        Store::open(&disk.0.path().join("state"), StoreOptions::default()).expect_err("cannot be made");
    assert!(error.is_read_only() && error.hint().is_some(), "{error:?}");
}

/// Set in the process inside the user namespace.
const INSIDE: &str = "KILN_STORE_TEST_INSIDE";

#[test]
fn one_mapped_id_is_enough() {
    if let Some(root) = std::env::var_os(INSIDE) {
        tokio::runtime::Runtime::new().expect("starts").block_on(inside(Path::new(&root)));
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let out = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "one_mapped_id_is_enough", "--nocapture"])
        .env(INSIDE, dir.path())
        .output();
    let Ok(out) = out else {
        eprintln!("skipped: unshare is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&out.stderr);
    if text.contains("Operation not permitted") && text.starts_with("unshare:") {
        eprintln!("skipped: user namespaces are not allowed here");
        return;
    }
    assert!(out.status.success(), "{text}");
}

async fn inside(root: &Path) {
    let format = Format { xattrs: XattrSpace::User, owner_xattr: true };
    let options = StoreOptions { format, backend: Backend::Overlay, ..StoreOptions::default() };
    let store = Store::open(root, options).expect("opens");
    let low = tar(&[("d/", ""), ("d/gone", "1"), ("d/kept", "2"), ("o/", ""), ("o/hidden", "")]);
    let mut high = Writer::new(Vec::new());
    let owned = Entry { uid: 1234, gid: 5678, mode: 0o4755, ..Entry::new(EntryKind::File, "owned") };
    let device = Entry { major: 1, minor: 3, ..Entry::new(EntryKind::CharDevice, "null") };
    let link = Entry { uid: 99, link: "owned".into(), ..Entry::new(EntryKind::Symlink, "link") };
    let whiteouts = ["d/.wh.gone", "o/.wh..wh..opq"].map(|name| Entry::new(EntryKind::File, name));
    for entry in whiteouts.iter().chain([&owned, &device, &link]) {
        high.start(entry).expect("memory");
    }
    let high = high.finish().expect("memory");
    let mut image = Ref::scratch();
    for plain in [low, high] {
        let layer = store.lazy_layer(&image, lazy(&plain, Memory::new(plain.clone()))).expect("recorded");
        image = store.append(&image, &layer).expect("recorded");
    }
    store.ensure_unpacked(&image, &NoObserver).await.expect("unpacks");
    let union = store.union(&image).expect("ready");
    let found = |path: &str| union.lookup(path).expect("read");
    assert!(found("d/gone").is_none() && found("o/hidden").is_none() && found("d/kept").is_some());
    let node = found("owned").expect("there");
    assert_eq!((node.meta.uid, node.meta.gid, node.meta.mode), (1234, 5678, 0o4755));

    let new = store.new_layer(&image, Default::default()).expect("begins");
    let mounted = store.mount_somewhere(&new.mount_source().expect("ready")).expect("mounts");
    let at = |path: &str| mounted.path().join(path);
    assert!(!at("d/gone").exists() && !at("o/hidden").exists() && at("d/kept").exists());
    fs::remove_dir_all(at("d")).expect("removed");
    fs::create_dir(at("d")).expect("made");
    fs::write(at("d/new"), "").expect("written");
    drop(mounted);
    let done = new.commit(CommitInfo::default()).expect("commits");
    let names: Vec<_> =
        store.union(&done).expect("ready").read_dir("d").expect("there").into_iter().collect();
    assert_eq!(names.len(), 1, "what was there does not show through");

    let (blob, _pin) =
        store.layer_blob(&image.layers()[1], &Default::default(), &NoObserver).await.expect("known");
    assert!(blob.local);
    let options = kiln_layer::diff::DiffOptions::default();
    let mut out = Vec::new();
    let lower = store.union(&image.parent()).expect("ready");
    kiln_layer::diff::write_layer(
        &image.top().expect("one").dir().expect("ready"),
        &lower,
        &mut out,
        &options,
    )
    .expect("archives");
    let listed = String::from_utf8_lossy(&out).into_owned();
    // uid 1234 and gid 5678 in octal.
    assert!(listed.contains("0002322\u{0}0013056"), "the kept owner is the one in the archive");
    assert!(listed.contains("d/.wh.gone") && listed.contains("o/.wh.hidden"));
}
