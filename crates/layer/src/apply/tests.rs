use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use kiln_oci::{Compression, Digest};

use super::{Applied, ApplyOptions, Lean, apply, settle};
use crate::compress::{CompressOptions, Compressor};
use crate::overlay::{self, Format};
use crate::tar::{Entry, EntryKind, Writer};
use crate::threads::Budget;
use crate::union::Union;
use crate::{Error, Result};

/// Entries as short as tests want them.
pub(crate) struct Tar(Writer<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    pub(crate) fn entry(mut self, entry: Entry, content: &[u8]) -> Self {
        let entry = Entry { size: content.len() as u64, ..entry };
        self.0.start(&entry).expect("writing to memory");
        self.0.write_data(content).expect("writing to memory");
        self
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.entry(Entry { mtime_s: 1_000, ..Entry::new(EntryKind::File, path) }, content.as_bytes())
    }

    pub(crate) fn dir(self, path: &str) -> Self {
        self.entry(Entry { mtime_s: 2_000, ..Entry::new(EntryKind::Dir, path) }, b"")
    }

    pub(crate) fn link(self, kind: EntryKind, path: &str, to: &str) -> Self {
        self.entry(Entry { link: to.into(), ..Entry::new(kind, path) }, b"")
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.finish().expect("writing to memory")
    }
}

fn unpack_with(tar: &[u8], options: &ApplyOptions) -> (tempfile::TempDir, Result<Applied>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let applied = apply(tar, dir.path(), options);
    (dir, applied)
}

/// Unpacks with helpers and without: both must do the same.
fn unpack(tar: &[u8]) -> (tempfile::TempDir, Result<Applied>) {
    let alone = ApplyOptions { budget: Budget::new(0), ..ApplyOptions::default() };
    let together = ApplyOptions { budget: Budget::new(3), ..ApplyOptions::default() };
    let (dir_alone, done_alone) = unpack_with(tar, &alone);
    let (dir, done) = unpack_with(tar, &together);
    match (&done_alone, &done) {
        (Ok(a), Ok(b)) => {
            assert_eq!((&a.diff_id, &a.leans, a.usage), (&b.diff_id, &b.leans, b.usage));
            assert_eq!(listing(dir_alone.path()), listing(dir.path()));
        }
        (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
        (a, b) => panic!("alone: {a:?}, with helpers: {b:?}"),
    }
    (dir, done)
}

/// Every file with its kind, mode and content or target.
fn listing(root: &Path) -> Vec<String> {
    fn add(dir: &Path, root: &Path, lines: &mut Vec<String>) {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(dir).expect("readable").map(|e| e.expect("entry").path()).collect();
        entries.sort();
        for path in entries {
            let meta = path.symlink_metadata().expect("there");
            let name = path.strip_prefix(root).expect("beneath").display().to_string();
            let what = if meta.is_dir() {
                "dir".to_owned()
            } else if meta.is_symlink() {
                format!("-> {}", fs::read_link(&path).expect("a link").display())
            } else if meta.file_type().is_char_device() {
                format!("char {}", meta.rdev())
            } else if meta.is_file() {
                fs::read_to_string(&path).expect("text")
            } else {
                "special".to_owned()
            };
            lines.push(format!("{name} {:o} {what}", meta.mode() & 0o7777));
            if meta.is_dir() {
                add(&path, root, lines);
            }
        }
    }
    let mut lines = Vec::new();
    add(root, root, &mut lines);
    lines
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: making whiteouts and devices needs root");
    }
    root
}

#[test]
fn unpacks_what_an_archive_can_hold() {
    if !is_root() {
        return;
    }
    let owner = Entry {
        uid: 1234,
        gid: 99_999_999,
        mode: 0o6755,
        mtime_s: 5,
        mtime_ns: 7,
        ..Entry::new(EntryKind::File, "usr/suid")
    };
    let attributes = Entry {
        xattrs: vec![("user.kind".into(), b"good".to_vec())],
        ..Entry::new(EntryKind::File, "usr/attributes")
    };
    let long = format!("usr/{}/{}", "d".repeat(200), "f".repeat(200));
    let tar = Tar::new()
        .dir("usr")
        .entry(owner, b"x")
        .entry(attributes, b"")
        .file(&long, "long")
        .file("usr/ümlaut", "utf-8")
        .link(EntryKind::Symlink, "usr/link", "../../anywhere")
        .link(EntryKind::HardLink, "usr/again", "usr/suid")
        .entry(Entry { major: 1, minor: 3, ..Entry::new(EntryKind::CharDevice, "usr/null") }, b"")
        .entry(Entry::new(EntryKind::Fifo, "usr/fifo"), b"")
        .dir("usr/empty")
        .bytes();
    let (dir, applied) = unpack(&tar);
    let applied = applied.expect("a good archive");
    assert_eq!(applied.diff_id, Digest::sha256_of(&tar));
    assert_eq!(
        (applied.digest, applied.size, applied.plain_size),
        (Digest::sha256_of(&tar), tar.len() as u64, tar.len() as u64)
    );
    assert_eq!(applied.leans, [Lean::Parent(PathBuf::from(format!("usr/{}", "d".repeat(200))))]);
    let at = |name: &str| dir.path().join(name).symlink_metadata().expect(name);
    let suid = at("usr/suid");
    // The hard link entry has the last word.
    assert_eq!((suid.uid(), suid.gid(), suid.mode() & 0o7777), (0, 0, 0o644));
    assert_eq!(at("usr/again").ino(), suid.ino());
    assert_eq!(at("usr").mtime(), 2_000);
    assert!(at("usr/fifo").file_type().is_fifo());
    assert_eq!(at("usr/null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(fs::read_to_string(dir.path().join(&long)).expect("there"), "long");
    assert_eq!(fs::read_to_string(dir.path().join("usr/ümlaut")).expect("there"), "utf-8");
    let path = dir.path().join("usr/attributes");
    assert_eq!(
        crate::union::get_xattr(&path, OsStr::new("user.kind")).expect("readable"),
        Some(b"good".to_vec())
    );
}

#[test]
fn sets_owner_mode_and_time() {
    if !is_root() {
        return;
    }
    let entry = Entry {
        uid: 12,
        gid: 34,
        mode: 0o6711,
        mtime_s: -5,
        mtime_ns: 7,
        ..Entry::new(EntryKind::File, "f")
    };
    let dir =
        Entry { uid: 56, gid: 78, mode: 0o1700, mtime_s: 9, mtime_ns: 1, ..Entry::new(EntryKind::Dir, "d") };
    let tar = Tar::new().entry(dir, b"").entry(entry, b"x").file("d/inside", "").bytes();
    let (root, applied) = unpack(&tar);
    applied.expect("a good archive");
    let at = |name: &str| root.path().join(name).metadata().expect(name);
    let (f, d) = (at("f"), at("d"));
    assert_eq!((f.uid(), f.gid(), f.mode() & 0o7777, f.mtime(), f.mtime_nsec()), (12, 34, 0o6711, -5, 7));
    assert_eq!((d.uid(), d.gid(), d.mode() & 0o7777, d.mtime(), d.mtime_nsec()), (56, 78, 0o1700, 9, 1));
}

#[test]
fn the_later_of_two_wins() {
    let tar = Tar::new()
        .file("a", "file first")
        .dir("a")
        .file("a/b", "inside")
        .file("c/d", "gone")
        .file("c", "a file in place of a directory")
        .file("e", "1")
        .file("e", "2")
        .link(EntryKind::Symlink, "e", "elsewhere")
        .file("g", "1")
        .link(EntryKind::HardLink, "h", "g")
        .file("g", "2")
        .bytes();
    let (dir, applied) = unpack(&tar);
    applied.expect("a good archive");
    let text = |name: &str| fs::read_to_string(dir.path().join(name)).expect(name);
    assert_eq!(
        (text("a/b"), text("c"), text("g"), text("h")),
        ("inside".into(), "a file in place of a directory".into(), "2".into(), "1".into())
    );
    assert_eq!(fs::read_link(dir.path().join("e")).expect("a link"), Path::new("elsewhere"));
}

#[test]
fn whiteouts_are_about_lower_layers_only() {
    if !is_root() {
        return;
    }
    let tar = Tar::new()
        .dir("d")
        .file("d/.wh.gone", "")
        .file("d/kept", "x")
        .file("d/.wh.kept", "")
        .dir("d/sub")
        .file("d/.wh.sub", "")
        .file("d/.wh.again", "")
        .dir("d/again")
        .file("d/.wh.file", "")
        .file("d/file", "new")
        .file("o/.wh..wh..opq", "")
        .file("o/.wh..wh.plnk", "")
        .file("o/x", "")
        .bytes();
    let (dir, applied) = unpack(&tar);
    applied.expect("a good archive");
    let gone = dir.path().join("d/gone").symlink_metadata().expect("a whiteout");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(fs::read_to_string(dir.path().join("d/kept")).expect("there"), "x");
    assert_eq!(fs::read_to_string(dir.path().join("d/file")).expect("there"), "new");
    for (name, opaque) in [("d/sub", true), ("d/again", true), ("o", true), ("d", false)] {
        let handle = fs::File::open(dir.path().join(name)).expect(name);
        let found = overlay::is_opaque(std::os::fd::AsFd::as_fd(&handle), &Format::default()).expect(name);
        assert_eq!(found, opaque, "{name}");
    }
    assert!(!dir.path().join("o/.wh..wh.plnk").exists());
    // Not a layer: names like others.
    let (dir, applied) = unpack_with(&tar, &ApplyOptions { whiteouts: false, ..ApplyOptions::default() });
    applied.expect("a good archive");
    assert!(dir.path().join("d/.wh.gone").is_file());
}

#[test]
fn symlinked_parents_lead_inside_the_root() {
    let outside = tempfile::tempdir().expect("a temporary directory");
    let absolute = outside.path().to_str().expect("text");
    let tar = Tar::new()
        .dir("usr")
        .dir("usr/lib")
        .link(EntryKind::Symlink, "lib", "usr/lib")
        .file("lib/libc", "c")
        .link(EntryKind::Symlink, "out", absolute)
        .file("out/evil", "1")
        .link(EntryKind::Symlink, "up", "../../../..")
        .file("up/etc/passwd", "2")
        .bytes();
    let (dir, applied) = unpack(&tar);
    applied.expect("a good archive");
    assert_eq!(fs::read_to_string(dir.path().join("usr/lib/libc")).expect("there"), "c");
    assert_eq!(fs::read_dir(outside.path()).expect("readable").count(), 0);
    let inside = dir.path().join(absolute.trim_start_matches('/')).join("evil");
    assert_eq!(fs::read_to_string(inside).expect("there"), "1");
    assert_eq!(fs::read_to_string(dir.path().join("etc/passwd")).expect("there"), "2");
}

#[test]
fn hostile_archives_are_refused_clearly() {
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("climbs", Tar::new().file("../x", "").bytes(), "climbs out of the root"),
        ("climbs inside", Tar::new().file("a/../../x", "").bytes(), "climbs out of the root"),
        (
            "hard link out",
            Tar::new().link(EntryKind::HardLink, "a", "../../etc/passwd").bytes(),
            "climbs out",
        ),
        ("file as parent", Tar::new().file("a", "").file("a/b", "").bytes(), "a parent is not a directory"),
        (
            "loop",
            Tar::new()
                .link(EntryKind::Symlink, "a", "b")
                .link(EntryKind::Symlink, "b", "a")
                .file("a/x", "")
                .bytes(),
            "too many symbolic links",
        ),
        (
            "own mark",
            Tar::new().entry(Entry::new(EntryKind::CharDevice, "a"), b"").bytes(),
            "overlayfs' own mark",
        ),
        ("whiteout of nothing", Tar::new().file("a/.wh.", "").bytes(), "whiteout of no file"),
        ("whiteout of parent", Tar::new().file("a/.wh...", "").bytes(), "whiteout of no file"),
        (
            "hard link to directory",
            Tar::new().dir("d").link(EntryKind::HardLink, "a", "d").bytes(),
            "hard link to a directory",
        ),
        ("truncated", Tar::new().file("a", &"x".repeat(2000)).bytes()[..1500].to_vec(), "ends in the middle"),
        ("no archive", vec![b'x'; 4096], "checksum"),
        ("long name", Tar::new().file(&"a/".repeat(3000), "").bytes(), "name is too long"),
        ("long component", Tar::new().file(&"a".repeat(300), "").bytes(), "failed to create"),
    ];
    for (what, tar, expected) in cases {
        let (_dir, applied) = unpack(&tar);
        let error = applied.expect_err(what);
        let text = error.to_string();
        assert!(text.contains(expected), "{what}: {text}");
    }
}

#[test]
fn expanding_stops_at_the_limit() {
    let tar = Tar::new().file("zeros", &"\0".repeat(10 << 20)).bytes();
    let mut bomb =
        Compressor::new(Vec::new(), &CompressOptions::new(Compression::Gzip), &Budget::new(0)).expect("gzip");
    std::io::Write::write_all(&mut bomb, &tar).expect("memory");
    let (bomb, _) = bomb.finish().expect("memory");
    assert!(bomb.len() < 100_000);
    let options = ApplyOptions { bytes_max: Some(1 << 20), ..ApplyOptions::default() };
    let (_dir, applied) = unpack_with(&bomb, &options);
    assert!(matches!(applied, Err(Error::TooLarge { limit: 0x10_0000 })));
}

#[test]
fn damaged_compression_is_said_so() {
    let tar = Tar::new().file("a", &"text ".repeat(100_000)).bytes();
    for kind in [Compression::Gzip, Compression::Zstd] {
        let mut out =
            Compressor::new(Vec::new(), &CompressOptions::new(kind), &Budget::new(0)).expect("known");
        std::io::Write::write_all(&mut out, &tar).expect("memory");
        let (good, _) = out.finish().expect("memory");
        let (_dir, applied) = unpack(&good);
        let applied = applied.expect("good");
        assert_eq!((applied.compression, applied.diff_id), (kind, Digest::sha256_of(&tar)));
        assert_eq!(applied.digest, Digest::sha256_of(&good));
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 0x55;
        bad[middle + 1] ^= 0xaa;
        for bytes in [&bad[..], &good[..middle]] {
            let (_dir, applied) = unpack(bytes);
            assert!(applied.expect_err("damaged").is_bad_data());
        }
    }
}

#[test]
fn leans_are_settled_when_the_lower_layers_are_there() {
    if !is_root() {
        return;
    }
    let below = Tar::new()
        .entry(Entry { mode: 0o750, uid: 7, mtime_s: 77, ..Entry::new(EntryKind::Dir, "opt") }, b"")
        .file("opt/tool", "tool")
        .dir("usr")
        .dir("usr/lib")
        .file("usr/lib/old", "old")
        .link(EntryKind::Symlink, "lib", "usr/lib")
        .bytes();
    let above = Tar::new()
        .file("opt/new", "new")
        .file("lib/fresh", "fresh")
        .link(EntryKind::HardLink, "tool2", "opt/tool")
        .link(EntryKind::HardLink, "tool3", "tool2")
        .bytes();
    let (low, applied) = unpack(&below);
    assert!(applied.expect("good").leans.is_empty());
    let (high, applied) = unpack(&above);
    let leans = applied.expect("good").leans;
    assert_eq!(leans.len(), 4, "{leans:?}");
    let lower = Union::open(&[low.path()], &Format::default()).expect("opens");
    settle(high.path(), &leans, &lower, &Format::default()).expect("settles");
    let opt = high.path().join("opt").metadata().expect("there");
    assert_eq!((opt.uid(), opt.permissions().mode() & 0o7777, opt.mtime()), (7, 0o750, 77));
    assert!(high.path().join("lib").symlink_metadata().is_err(), "moved to where the link below leads");
    assert_eq!(fs::read_to_string(high.path().join("usr/lib/fresh")).expect("there"), "fresh");
    let inode = |name: &str| high.path().join(name).metadata().expect(name).ino();
    assert_eq!((inode("opt/tool"), inode("tool3")), (inode("tool2"), inode("tool2")));
    assert_eq!(fs::read_to_string(high.path().join("tool2")).expect("there"), "tool");

    let missing = Tar::new().link(EntryKind::HardLink, "a", "nowhere").bytes();
    let (high, applied) = unpack(&missing);
    let leans = applied.expect("may be below").leans;
    let error = settle(high.path(), &leans, &lower, &Format::default()).expect_err("is not");
    assert!(error.to_string().contains("does not exist"), "{error}");
}
