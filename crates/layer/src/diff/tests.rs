use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::{DiffOptions, write_layer, write_union};
use crate::apply::{ApplyOptions, apply};
use crate::changes::write_diff;
use crate::overlay::{self, Format};
use crate::tree::CopyHow;
use crate::union::Union;

/// A layer below and one above, as overlayfs would leave them.
struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: making whiteouts needs root");
            return None;
        }
        let root = tempfile::tempdir().expect("a temporary directory");
        for name in ["low", "up"] {
            fs::create_dir(root.path().join(name)).expect("fresh");
        }
        Some(Self { root })
    }

    fn low(&self, path: &str) -> PathBuf {
        self.root.path().join("low").join(path)
    }

    fn up(&self, path: &str) -> PathBuf {
        self.root.path().join("up").join(path)
    }

    fn whiteout(&self, path: &str) {
        let path = self.up(path);
        let dir = fs::File::open(path.parent().expect("has one")).expect("there");
        overlay::make_whiteout(dir.as_fd(), path.file_name().expect("has one")).expect("allowed");
    }

    fn lower(&self) -> Union {
        Union::open(&[self.low("")], &Format::default()).expect("opens")
    }

    fn archive(&self, options: &DiffOptions) -> Vec<u8> {
        let mut out = Vec::new();
        write_layer(&self.up(""), &self.lower(), &mut out, options).expect("archives");
        out
    }

    /// The names in the archive as GNU tar lists them.
    fn names(&self) -> Vec<String> {
        tar_list(&self.archive(&DiffOptions::default()), &[])
    }
}

fn tar_list(archive: &[u8], flags: &[&str]) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), archive).expect("written");
    let out = std::process::Command::new("tar")
        .arg("-t")
        .args(flags)
        .arg("-f")
        .arg(file.path())
        .env("TZ", "UTC")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .expect("GNU tar is installed");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text").lines().map(str::to_owned).collect()
}

fn same_times(paths: &[PathBuf]) {
    for path in paths {
        let time =
            fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000, 5));
        fs::File::open(path).expect("there").set_times(time).expect("allowed");
    }
}

#[test]
fn a_removal_brings_its_parent() {
    let Some(f) = Fixture::new() else { return };
    fs::create_dir(f.low("foo")).expect("fresh");
    fs::write(f.low("foo/bar"), "first").expect("fresh");
    fs::create_dir(f.up("foo")).expect("fresh");
    f.whiteout("foo/bar");
    assert_eq!(f.names(), ["foo/", "foo/.wh.bar"]);
}

#[test]
fn a_moved_directory_is_a_removal_and_its_new_content() {
    let Some(f) = Fixture::new() else { return };
    fs::create_dir(f.low("foo")).expect("fresh");
    fs::write(f.low("foo/bar"), "first").expect("fresh");
    fs::create_dir(f.up("foo2")).expect("fresh");
    fs::write(f.up("foo2/bar"), "first").expect("fresh");
    f.whiteout("foo");
    assert_eq!(f.names(), [".wh.foo", "foo2/", "foo2/bar"]);
}

#[test]
fn removals_are_not_repeated_inside_and_not_made_up() {
    let Some(f) = Fixture::new() else { return };
    fs::create_dir_all(f.low("d0")).expect("fresh");
    fs::create_dir_all(f.low("d1")).expect("fresh");
    fs::write(f.low("d1/bar"), "first").expect("fresh");
    f.whiteout("d0");
    f.whiteout("d1");
    f.whiteout("never-was");
    assert_eq!(f.names(), [".wh.d0", ".wh.d1"]);
}

#[test]
fn an_opaque_directory_is_written_as_what_it_removes() {
    let Some(f) = Fixture::new() else { return };
    fs::create_dir_all(f.low("d/sub")).expect("fresh");
    for name in ["d/a", "d/c", "d/sub/x", "d/sub/y"] {
        fs::write(f.low(name), "old").expect("fresh");
    }
    fs::create_dir_all(f.up("d/sub")).expect("fresh");
    for name in ["d/b", "d/c", "d/sub/y"] {
        fs::write(f.up(name), "new").expect("fresh");
    }
    overlay::set_opaque(fs::File::open(f.up("d")).expect("there").as_fd(), &Format::default())
        .expect("allowed");
    assert_eq!(f.names(), ["d/", "d/.wh.a", "d/b", "d/c", "d/sub/", "d/sub/.wh.x", "d/sub/y"]);
}

#[test]
fn unchanged_copies_are_left_out() {
    let Some(f) = Fixture::new() else { return };
    for side in ["low", "up"] {
        let at = f.root.path().join(side);
        fs::create_dir_all(at.join("only/parents")).expect("fresh");
        fs::create_dir_all(at.join("chmod")).expect("fresh");
        fs::write(at.join("same"), "content").expect("fresh");
        fs::write(at.join("differs"), side).expect("fresh");
    }
    fs::set_permissions(f.up("chmod"), fs::Permissions::from_mode(0o700)).expect("own");
    same_times(&[f.low("same"), f.up("same")]);
    assert_eq!(f.names(), ["chmod/", "differs"]);
    fs::write(f.up("only/parents/new"), "").expect("fresh");
    assert_eq!(f.names(), ["chmod/", "differs", "only/", "only/parents/", "only/parents/new"]);
}

#[test]
fn headers_say_what_files_are() {
    let Some(f) = Fixture::new() else { return };
    fs::write(f.up("a"), "text").expect("fresh");
    fs::hard_link(f.up("a"), f.up("b")).expect("fresh");
    symlink("somewhere/else", f.up("c")).expect("fresh");
    let dir = fs::File::open(f.up("")).expect("there");
    rustix::fs::mknodat(
        &dir,
        "d",
        rustix::fs::FileType::CharacterDevice,
        0o600.into(),
        rustix::fs::makedev(5, 1),
    )
    .expect("root");
    std::os::unix::net::UnixListener::bind(f.up("socket")).expect("fresh");
    let long = format!("{}/{}", "l".repeat(120), "ö".repeat(120));
    fs::create_dir(f.up(&"l".repeat(120))).expect("fresh");
    fs::write(f.up(&long), "").expect("fresh");
    std::os::unix::fs::chown(f.up(&long), Some(3_000_000), Some(4)).expect("root");
    for path in ["a", &"l".repeat(120), &long] {
        fs::File::open(f.up(path))
            .expect("there")
            .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_millis(86_400_500))
            .expect("own");
    }
    let epoch = DiffOptions { epoch: Some(86_400), ..DiffOptions::default() };
    let lines = tar_list(&f.archive(&epoch), &["-v", "--numeric-owner", "--full-time"]);
    let expected = [
        "-rw-r--r-- 0/0               4 1970-01-02 00:00:00 a".to_owned(),
        "hrw-r--r-- 0/0               0 1970-01-02 00:00:00 b link to a".to_owned(),
        "lrwxrwxrwx 0/0               0 1970-01-02 00:00:00 c -> somewhere/else".to_owned(),
        "crw------- 0/0             5,1 1970-01-02 00:00:00 d".to_owned(),
        format!("drwxr-xr-x 0/0               0 1970-01-02 00:00:00 {}/", "l".repeat(120)),
        format!("-rw-r--r-- 3000000/4         0 1970-01-02 00:00:00 {long}"),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_same_directory_gives_the_same_bytes() {
    let Some(f) = Fixture::new() else { return };
    for name in ["z", "y", "x"] {
        fs::write(f.up(name), name).expect("fresh");
    }
    assert_eq!(f.archive(&DiffOptions::default()), f.archive(&DiffOptions::default()));
}

#[test]
fn capabilities_travel_and_other_attributes_on_request() {
    let Some(f) = Fixture::new() else { return };
    fs::write(f.up("ping"), "x").expect("fresh");
    // Version 2, effective, permitted: net_raw.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(f.up("ping"), "security.capability", &capability, flags).expect("root");
    rustix::fs::lsetxattr(f.up("ping"), "user.note", b"n", flags).expect("own");
    for (user_xattrs, expected) in
        [(false, vec!["security.capability"]), (true, vec!["security.capability", "user.note"])]
    {
        let archive = f.archive(&DiffOptions { user_xattrs, ..DiffOptions::default() });
        let out = tempfile::tempdir().expect("a temporary directory");
        apply(&archive[..], out.path(), &ApplyOptions::default()).expect("our own");
        let found = crate::union::list_xattrs(&out.path().join("ping")).expect("readable");
        let keys: Vec<_> = found.iter().map(|(key, _)| key.to_str().expect("text")).collect();
        assert_eq!(keys, expected);
    }
}

#[test]
fn the_difference_of_two_unions_leads_from_one_to_the_other() {
    let Some(f) = Fixture::new() else { return };
    fs::create_dir_all(f.low("both/gone")).expect("fresh");
    fs::create_dir_all(f.low("file-later")).expect("fresh");
    fs::write(f.low("both/a"), "1").expect("fresh");
    fs::write(f.low("both/same"), "s").expect("fresh");
    fs::write(f.low("dir-later"), "").expect("fresh");
    fs::create_dir_all(f.up("both")).expect("fresh");
    fs::create_dir_all(f.up("dir-later/in")).expect("fresh");
    fs::write(f.up("both/a"), "2").expect("fresh");
    fs::write(f.up("both/same"), "s").expect("fresh");
    fs::write(f.up("file-later"), "").expect("fresh");
    same_times(&[f.low("both/same"), f.up("both/same")]);
    let upper = Union::open(&[f.up("")], &Format::default()).expect("opens");
    let dir = f.root.path().join("diff");
    fs::create_dir(&dir).expect("fresh");
    write_diff(&f.lower(), &upper, &dir, CopyHow::Link).expect("compares");
    assert!(!dir.join("both/same").exists(), "unchanged");
    let view = Union::open(&[f.low(""), dir], &Format::default()).expect("opens");
    assert_eq!(everything(&view), everything(&upper));
}

fn everything(union: &Union) -> Vec<(PathBuf, u32, String)> {
    let walk = union.walk("").expect("a walk").skip(1);
    walk.map(|node| {
        let node = node.expect("readable");
        let mut text = String::new();
        if node.meta.is_file() {
            node.open().expect("there").read_to_string(&mut text).expect("text");
        }
        (node.path.clone(), node.meta.mode, text)
    })
    .collect()
}

#[test]
fn a_whole_union_goes_into_one_archive() {
    let Some(f) = Fixture::new() else { return };
    fs::write(f.low("gone"), "").expect("fresh");
    fs::write(f.low("kept"), "").expect("fresh");
    f.whiteout("gone");
    fs::write(f.up("new"), "").expect("fresh");
    let union = Union::open(&[f.low(""), f.up("")], &Format::default()).expect("opens");
    let mut out = Vec::new();
    write_union(&union, &mut out, &DiffOptions::default()).expect("archives");
    assert_eq!(tar_list(&out, &[]), ["kept", "new"]);
}
