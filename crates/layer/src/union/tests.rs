use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Union;
use crate::overlay::{self, Format};

struct Layers {
    _root: tempfile::TempDir,
    dirs: Vec<PathBuf>,
}

impl Layers {
    /// A union of three layers; `None` without the right to make whiteouts.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making whiteouts needs root");
            return None;
        }
        let root = tempfile::tempdir().expect("a temporary directory");
        let dirs: Vec<PathBuf> = (0..3).map(|layer| root.path().join(layer.to_string())).collect();
        let [low, mid, top] = &dirs[..] else { unreachable!() };
        for (dir, sub) in [(low, "a/deep"), (low, "b"), (mid, "a"), (mid, "b"), (top, "a")] {
            fs::create_dir_all(dir.join(sub)).expect("fresh");
        }
        fs::write(low.join("a/one"), "low").expect("fresh");
        fs::write(low.join("a/two"), "low").expect("fresh");
        fs::write(low.join("a/deep/x"), "low").expect("fresh");
        fs::write(low.join("b/hidden"), "low").expect("fresh");
        fs::write(mid.join("a/two"), "mid").expect("fresh");
        fs::write(mid.join("b/shown"), "mid").expect("fresh");
        symlink("/a/deep", mid.join("link")).expect("fresh");
        symlink("../../../a", mid.join("up")).expect("fresh");
        let open = |path: PathBuf| fs::File::open(path).expect("there");
        overlay::set_opaque(open(mid.join("b")).as_fd(), &Format::default()).expect("allowed");
        overlay::make_whiteout(open(top.join("a")).as_fd(), "one".as_ref()).expect("allowed");
        fs::write(top.join("a/deep"), "now a file").expect("fresh");
        Some(Self { _root: root, dirs })
    }

    fn union(&self, count: usize) -> Union {
        Union::open(&self.dirs[..count], &Format::default()).expect("opens")
    }
}

fn names(union: &Union, path: &str) -> Vec<String> {
    let nodes = union.read_dir(path).expect("a directory");
    nodes.iter().map(|node| format!("{}@{}", node.name().display(), node.layer())).collect()
}

#[test]
fn merges_as_overlayfs_does() {
    let Some(layers) = Layers::new() else { return };
    let union = layers.union(3);
    assert_eq!(names(&union, "/"), ["a@2", "b@1", "link@1", "up@1"]);
    assert_eq!(names(&union, "a"), ["deep@2", "two@1"]);
    assert_eq!(names(&union, "b"), ["shown@1"]);
    assert_eq!(names(&layers.union(1), "a"), ["deep@0", "one@0", "two@0"]);
    for (path, layer) in [
        ("a/two", Some(1)),
        ("a/one", None),
        ("a/deep", Some(2)),
        ("a/deep/x", None),
        ("b/hidden", None),
        ("link/x", None),
        ("./a//two/", Some(1)),
    ] {
        assert_eq!(union.lookup(path).expect("a lookup").map(|node| node.layer()), layer, "{path}");
    }
    for (path, text) in [
        ("a/two", Some("mid")),
        ("a/one", None),
        ("a/deep", Some("now a file")),
        ("a/deep/x", None),
        ("b/hidden", None),
    ] {
        let file = union.open_file(path).expect("a lookup");
        assert_eq!(file.map(|file| std::io::read_to_string(file).expect("text")).as_deref(), text, "{path}");
    }
    assert!(union.lookup("a/../b").is_err());
    let walked: Vec<String> = union
        .walk("")
        .expect("a walk")
        .map(|node| node.expect("readable").path.display().to_string())
        .collect();
    assert_eq!(walked, ["", "a", "a/deep", "a/two", "b", "b/shown", "link", "up"]);
    let mut walk = layers.union(2).walk("").expect("a walk");
    let mut seen = Vec::new();
    while let Some(node) = walk.next() {
        let node = node.expect("readable");
        if node.path == Path::new("a") {
            walk.skip_dir();
        }
        seen.push(node.path.display().to_string());
    }
    assert_eq!(seen, ["", "a", "b", "b/shown", "link", "up"]);
}

#[test]
fn links_are_followed_inside_only() {
    let Some(layers) = Layers::new() else { return };
    let union = layers.union(2);
    for (path, follow, real, found) in [
        ("link/x", true, "a/deep/x", true),
        ("link", true, "a/deep", true),
        ("link", false, "link", true),
        ("up/two", true, "a/two", true),
        ("../../../../a/one", true, "a/one", true),
        ("a/../b/shown", true, "b/shown", true),
        ("link/none/more", true, "a/deep/none/more", false),
        ("nothing/..", true, "", true),
    ] {
        let resolved = union.resolve(path, follow).expect(path);
        assert_eq!((resolved.path, resolved.node.is_some()), (PathBuf::from(real), found), "{path}");
    }
    symlink("loop", layers.dirs[1].join("loop")).expect("fresh");
    assert!(layers.union(2).resolve("loop", true).is_err());
}

#[test]
fn the_view_of_nothing_is_empty() {
    let union = Union::empty();
    assert!(union.root().expect("no I/O").is_none());
    assert!(union.lookup("a").expect("no I/O").is_none());
    assert_eq!(union.walk("").expect("no I/O").count(), 0);
    assert_eq!(union.resolve("a/../b", true).expect("no I/O").path, Path::new("b"));
}
