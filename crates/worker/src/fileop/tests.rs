//! Against real directories in overlay format, as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kiln_layer::overlay::Format;
use kiln_layer::threads::Budget;
use kiln_layer::union::Union;
use kiln_llb::{
    ActionInput, ChownOpt, CopyAction, MkdirAction, MkfileAction, RmAction, SymlinkAction, UserOpt,
};

use super::*;

/// A ref being made: layers below, the new one, and what is copied from.
struct Scene {
    place: tempfile::TempDir,
    lower: Vec<PathBuf>,
    source: Vec<PathBuf>,
    linkable: bool,
}

impl Scene {
    fn new() -> Scene {
        let place = tempfile::tempdir().unwrap();
        let dir = |name: &str| {
            let dir = place.path().join(name);
            fs::create_dir(&dir).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
            dir
        };
        let (lower, source) = (vec![dir("lower")], vec![dir("source")]);
        dir("new");
        Scene { place, lower, source, linkable: true }
    }

    fn layer(&self) -> PathBuf {
        self.place.path().join("new")
    }

    fn target(&self) -> Target {
        Target::open(&self.layer(), self.lower.clone(), Format::default()).unwrap()
    }

    fn view(&self) -> Union {
        let mut dirs = self.lower.clone();
        dirs.push(self.layer());
        Union::open(&dirs, &Format::default()).unwrap()
    }

    fn lower_file(&self, path: &str, content: &str) {
        write(&self.lower[0].join(path), content);
    }

    fn source_file(&self, path: &str, content: &str) {
        write(&self.source[0].join(path), content);
    }

    fn copy(&self, action: &CopyAction) -> Result<(), String> {
        self.copy_round(&self.target(), action, None, None)
    }

    fn copy_round(
        &self,
        target: &Target,
        action: &CopyAction,
        owner: Option<Owner>,
        round: Option<usize>,
    ) -> Result<(), String> {
        let union = Union::open(&self.source, &Format::default()).unwrap();
        let linkable = vec![self.linkable; self.source.len()];
        let with = Copying {
            source: Source { union: &union, linkable: &linkable },
            round,
            budget: &Budget::new(2),
            cancel: &Arc::new(AtomicBool::new(false)),
        };
        copy(target, action, owner, &with).map_err(|error| chain(&error))
    }

    /// Every path with what it is.
    fn listing(&self) -> Vec<String> {
        let mut lines = Vec::new();
        list(&self.view(), "", &mut lines);
        lines
    }

    fn read(&self, path: &str) -> String {
        let node =
            self.view().resolve(path, true).unwrap().node.unwrap_or_else(|| panic!("{path} is not there"));
        std::io::read_to_string(node.open().unwrap()).unwrap()
    }

    fn meta(&self, path: &str) -> kiln_layer::Meta {
        self.view().lookup(path).unwrap().unwrap_or_else(|| panic!("{path} is not there")).meta
    }
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn list(union: &Union, dir: &str, lines: &mut Vec<String>) {
    for node in union.read_dir(dir).unwrap() {
        let path = node.path.to_str().unwrap();
        if node.meta.is_dir() {
            lines.push(format!("{path}/"));
            list(union, path, lines);
        } else if node.meta.is_symlink() {
            lines.push(format!("{path} -> {}", node.read_link().unwrap().display()));
        } else {
            lines.push(path.to_owned());
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn copying(src: &str, dest: &str) -> CopyAction {
    CopyAction { src: src.into(), dest: dest.into(), create_dest_path: true, ..Default::default() }
}

/// What `COPY src dest` of a Dockerfile becomes.
fn docker_copy(src: &str, dest: &str) -> CopyAction {
    CopyAction {
        follow_symlink: true,
        dir_copy_contents: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..copying(src, dest)
    }
}

#[test]
fn copies_to_the_names_that_cp_would_choose() {
    let scene = Scene::new();
    scene.source_file("file", "1");
    scene.source_file("dir/sub/x", "2");
    scene.lower_file("there/old", "old");
    for action in [
        copying("file", "/a"),
        copying("file", "/b/"),
        copying("file", "/there"),
        copying("dir", "/c"),
        copying("dir", "/there"),
        docker_copy("dir", "/d"),
        docker_copy("dir", "/there/"),
        docker_copy("dir/.", "/e/f"),
    ] {
        scene.copy(&action).unwrap();
    }
    assert_eq!(
        scene.listing(),
        [
            "a",
            "b/",
            "b/file",
            "c/",
            "c/sub/",
            "c/sub/x",
            "d/",
            "d/sub/",
            "d/sub/x",
            "e/",
            "e/f/",
            "e/f/sub/",
            "e/f/sub/x",
            "there/",
            "there/dir/",
            "there/dir/sub/",
            "there/dir/sub/x",
            "there/file",
            "there/old",
            "there/sub/",
            "there/sub/x",
        ]
    );
}

#[test]
fn unchanged_files_are_links_and_changed_ones_copies() {
    let scene = Scene::new();
    scene.source_file("file", "1");
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    scene.copy(&copying("file", "/linked")).unwrap();
    assert_eq!(inode(&scene.layer().join("linked")), inode(&scene.source[0].join("file")));
    scene.copy(&CopyAction { mode: Some(0o600), ..copying("file", "/mode") }).unwrap();
    scene.copy(&CopyAction { timestamp: Some(5_000_000_007), ..copying("file", "/time") }).unwrap();
    scene
        .copy_round(&scene.target(), &copying("file", "/owner"), Some(Owner { uid: 5, gid: 6 }), None)
        .unwrap();
    for path in ["mode", "time", "owner"] {
        assert_ne!(inode(&scene.layer().join(path)), inode(&scene.source[0].join("file")), "{path}");
        assert_eq!(scene.read(path), "1");
    }
    assert_eq!(scene.meta("mode").mode, 0o600);
    assert_eq!((scene.meta("time").mtime_s, scene.meta("time").mtime_ns), (5, 7));
    assert_eq!((scene.meta("owner").uid, scene.meta("owner").gid), (5, 6));
    let source = fs::metadata(scene.source[0].join("file")).unwrap();
    assert_eq!((source.mode() & 0o7777, source.uid()), (0o644, 0));
}

#[test]
fn two_copies_of_a_file_in_one_layer_stay_two_files() {
    let scene = Scene::new();
    scene.source_file("file", "1");
    let target = scene.target();
    scene.copy_round(&target, &copying("file", "/x"), None, Some(0)).unwrap();
    scene.copy_round(&target, &copying("file", "/y"), None, Some(1)).unwrap();
    assert_ne!(scene.meta("x").ino, scene.meta("y").ino);
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let mut scene = Scene::new();
    scene.source_file("tree/a", "1");
    fs::hard_link(scene.source[0].join("tree/a"), scene.source[0].join("tree/b")).unwrap();
    for linkable in [true, false] {
        scene.linkable = linkable;
        let dest = format!("/{linkable}");
        scene.copy(&copying("tree", &dest)).unwrap();
        let ino = |name: &str| scene.meta(&format!("{dest}/{name}")).ino;
        assert_eq!(ino("a"), ino("b"), "{linkable}");
    }
}

#[test]
fn folders_keep_their_attributes_and_those_made_on_the_way_get_defaults() {
    let scene = Scene::new();
    scene.source_file("dir/x", "1");
    let dir = scene.source[0].join("dir");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o2750)).unwrap();
    std::os::unix::fs::chown(&dir, Some(3), Some(4)).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o2750)).unwrap();
    fs::File::open(&dir)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(9))
        .unwrap();
    scene.copy(&copying("dir", "/p/q/r")).unwrap();
    let copied = scene.meta("p/q/r");
    assert_eq!((copied.mode, copied.uid, copied.gid, copied.mtime_s), (0o2750, 3, 4, 9));
    let parent = scene.meta("p/q");
    assert_eq!((parent.mode, parent.uid, parent.gid), (0o755, 0, 0));
}

#[test]
fn a_folder_below_is_copied_up_with_its_attributes() {
    let scene = Scene::new();
    scene.lower_file("etc/old", "old");
    scene.source_file("new", "1");
    let etc = scene.lower[0].join("etc");
    std::os::unix::fs::chown(&etc, Some(8), Some(9)).unwrap();
    fs::set_permissions(&etc, fs::Permissions::from_mode(0o1777)).unwrap();
    scene.copy(&copying("new", "/etc/new")).unwrap();
    let (up, own) = (scene.meta("etc"), fs::metadata(scene.layer().join("etc")).unwrap());
    assert_eq!((up.mode, up.uid, up.gid), (0o1777, 8, 9));
    assert_eq!((own.mode() & 0o7777, own.uid()), (0o1777, 8));
    assert!(!scene.layer().join("etc/old").exists());
}

#[test]
fn patterns_make_only_the_folders_they_need() {
    let scene = Scene::new();
    for path in ["a/b/c.txt", "a/b/d.bin", "a/e/f.bin", "g.txt"] {
        scene.source_file(path, path);
    }
    let include = CopyAction { include_patterns: vec!["**/*.txt".into()], ..docker_copy("/", "/in") };
    scene.copy(&include).unwrap();
    let exclude =
        CopyAction { exclude_patterns: vec!["a".into(), "!a/e".into()], ..docker_copy("/", "/out") };
    scene.copy(&exclude).unwrap();
    assert_eq!(
        scene.listing(),
        [
            "in/",
            "in/a/",
            "in/a/b/",
            "in/a/b/c.txt",
            "in/g.txt",
            "out/",
            "out/a/",
            "out/a/e/",
            "out/a/e/f.bin",
            "out/g.txt"
        ]
    );
}

#[test]
fn wildcards_pick_and_may_find_nothing() {
    let scene = Scene::new();
    for path in ["a1", "a2", "b1", "d/a3"] {
        scene.source_file(path, path);
    }
    scene.copy(&docker_copy("/a*", "/to/")).unwrap();
    scene.copy(&docker_copy("/?/a*", "/to/")).unwrap();
    assert_eq!(scene.listing(), ["to/", "to/a1", "to/a2", "to/a3"]);
    scene.copy(&docker_copy("/z*", "/to/")).unwrap();
    let strict = CopyAction { allow_empty_wildcard: false, ..docker_copy("/z*", "/to/") };
    assert_eq!(scene.copy(&strict).unwrap_err(), "/z* not found");
}

#[test]
fn what_is_in_the_way() {
    let scene = Scene::new();
    scene.lower_file("dir/x", "1");
    scene.lower_file("file", "2");
    scene.source_file("file", "new");
    scene.source_file("tree/file/y", "new");
    scene.source_file("tree2/dir", "new");
    assert_eq!(scene.copy(&copying("tree/file", "/file")).unwrap_err(), "mkdir /file: not a directory");
    assert_eq!(scene.copy(&docker_copy("tree", "/")).unwrap_err(), "cannot copy to non-directory: /file");
    assert_eq!(
        scene.copy(&docker_copy("tree2", "/")).unwrap_err(),
        "cannot replace to directory /dir with file"
    );
    scene.copy(&copying("file", "/file")).unwrap();
    assert_eq!(scene.read("file"), "new");
    let replace =
        |src: &str| CopyAction { always_replace_existing_dest_paths: true, ..docker_copy(src, "/") };
    scene.copy(&replace("tree")).unwrap();
    scene.copy(&replace("tree2")).unwrap();
    assert_eq!(scene.listing(), ["dir", "file/", "file/y"]);
}

#[test]
fn no_path_leads_out_of_the_ref() {
    let scene = Scene::new();
    let outside = scene.place.path().join("outside");
    write(&outside.join("secret"), "secret");
    symlink(&outside, scene.lower[0].join("absolute")).unwrap();
    symlink("../../../../../../..", scene.lower[0].join("up")).unwrap();
    symlink(&outside, scene.source[0].join("from")).unwrap();
    scene.source_file("file", "1");
    let tail = outside.strip_prefix("/").unwrap().display().to_string();
    scene.copy(&copying("file", "/absolute/made")).unwrap();
    scene.copy(&copying("file", &format!("/up/{tail}/up-made"))).unwrap();
    scene.copy(&copying("file", &format!("/../../{tail}/dots"))).unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "something was written outside");
    for made in ["made", "up-made", "dots"] {
        assert_eq!(scene.read(&format!("{tail}/{made}")), "1");
    }
    let stolen = scene.copy(&docker_copy("/from/secret", "/stolen")).unwrap_err();
    assert!(stolen.contains("no such file or directory"), "{stolen}");
}

#[test]
fn missing_sources_and_parents_are_named() {
    let scene = Scene::new();
    assert_eq!(
        scene.copy(&copying("/no/such", "/x")).unwrap_err(),
        "lstat /no/such: no such file or directory"
    );
    scene.source_file("file", "1");
    let strict = CopyAction { create_dest_path: false, ..copying("file", "/no/x") };
    assert_eq!(
        scene.copy(&strict).unwrap_err(),
        "failed to stat /no/x: lstat /no: no such file or directory"
    );
}

#[test]
fn modes_in_letters() {
    let scene = Scene::new();
    scene.source_file("d/file", "1");
    let chmod = |text: &str| CopyAction { mode_str: text.into(), ..docker_copy("/d", &format!("/{text}")) };
    scene.copy(&chmod("u=rwX,go=rX")).unwrap();
    scene.copy(&chmod("go-r")).unwrap();
    assert_eq!(scene.meta("u=rwX,go=rX/file").mode, 0o644);
    assert_eq!(scene.meta("go-r/file").mode, 0o600);
    assert_eq!(scene.copy(&chmod("u+q")).unwrap_err(), "invalid syntax");
}

#[test]
fn removed_names_become_whiteouts_and_folders_in_their_place_hide_them() {
    let scene = Scene::new();
    scene.lower_file("dir/old", "old");
    scene.lower_file("file", "old");
    let target = scene.target();
    let rm_one = |path: &str| rm(&target, &RmAction { path: path.into(), ..Default::default() });
    rm_one("/dir").unwrap();
    rm_one("/file").unwrap();
    assert!(scene.listing().is_empty());
    let make = MkdirAction { path: "/dir".into(), mode: 0o700, ..Default::default() };
    mkdir(&target, &make, None).unwrap();
    assert_eq!(scene.listing(), ["dir/"]);
    assert_eq!(scene.meta("dir").mode, 0o700);
    assert_eq!(chain(&rm_one("/nothing").unwrap_err()), "stat /nothing: no such file or directory");
    assert_eq!(chain(&rm_one("/").unwrap_err()), "rmPath: invalid empty path");
}

#[test]
fn removes_by_wildcard() {
    let scene = Scene::new();
    for path in ["foo/target", "bar/target", "bar/keep", "target"] {
        scene.lower_file(path, path);
    }
    let target = scene.target();
    rm(&target, &RmAction { path: "/*/target".into(), allow_wildcard: true, ..Default::default() }).unwrap();
    assert_eq!(scene.listing(), ["bar/", "bar/keep", "foo/", "target"]);
}

#[test]
fn makes_files_folders_and_links() {
    let scene = Scene::new();
    scene.lower_file("there", "long old content");
    fs::set_permissions(scene.lower[0].join("there"), fs::Permissions::from_mode(0o711)).unwrap();
    let target = scene.target();
    let file = |path: &str, data: &'static str| MkfileAction {
        path: path.into(),
        mode: 0o640,
        data: data.into(),
        timestamp: Some(7_000_000_000),
        ..Default::default()
    };
    mkfile(&target, &file("/new", "1"), Some(Owner { uid: 1, gid: 2 })).unwrap();
    mkfile(&target, &file("/there", "2"), None).unwrap();
    let made = scene.meta("new");
    assert_eq!((made.mode, made.uid, made.gid, made.mtime_s), (0o640, 1, 2, 7));
    assert_eq!((scene.read("there"), scene.meta("there").mode), ("2".into(), 0o711));
    assert_eq!(
        chain(&mkfile(&target, &file("/no/x", ""), None).unwrap_err()),
        "open /no/x: no such file or directory"
    );
    let dir = |path: &str, make_parents| MkdirAction {
        path: path.into(),
        mode: 0o711,
        make_parents,
        timestamp: Some(8_000_000_000),
        ..Default::default()
    };
    mkdir(&target, &dir("/a/b", true), None).unwrap();
    mkdir(&target, &dir("/a/b", false), None).unwrap();
    assert_eq!((scene.meta("a").mode, scene.meta("a/b").mtime_s), (0o711, 8));
    assert_eq!(
        chain(&mkdir(&target, &dir("/x/y", false), None).unwrap_err()),
        "mkdir /x/y: no such file or directory"
    );
    assert_eq!(
        chain(&mkdir(&target, &dir("/new/y", true), None).unwrap_err()),
        "lstat /new: not a directory"
    );
    let link = SymlinkAction { target: "a/b".into(), path: "/l".into(), ..Default::default() };
    symlink_action(&target, &link).unwrap();
    assert_eq!(scene.view().lookup("l").unwrap().unwrap().read_link().unwrap(), Path::new("a/b"));
    let taken = SymlinkAction { path: "/new".into(), ..link };
    assert_eq!(chain(&symlink_action(&target, &taken).unwrap_err()), "symlink a/b /new: file exists");
}

fn symlink_action(target: &Target, action: &SymlinkAction) -> Result<(), FileError> {
    super::symlink(target, action, None)
}

#[test]
fn owners_by_name_come_from_the_ref() {
    let scene = Scene::new();
    scene.lower_file("etc/passwd", "# users\nroot:x:0:0::/:/bin/sh\nbuild:x:1000:1001::/:/bin/sh\n");
    scene.lower_file("etc/group", "wheel:x:10:\n");
    let named = |name: &str| UserOpt::Name { name: name.into(), input: ActionInput::Input(0) };
    let resolve = |user: Option<UserOpt>, group: Option<UserOpt>| {
        resolve_owner(Some(&ChownOpt { user, group }), |_| Ok(Some(scene.view()))).unwrap().unwrap()
    };
    assert_eq!(resolve(Some(named("build")), None), Owner { uid: 1000, gid: 1001 });
    assert_eq!(resolve(Some(named("build")), Some(named("wheel"))), Owner { uid: 1000, gid: 10 });
    assert_eq!(resolve(Some(named("nobody-here")), None), Owner { uid: 0, gid: 0 });
    assert_eq!(resolve(Some(UserOpt::Id(7)), None), Owner { uid: 7, gid: 7 });
}

/// The kernel's own overlay shows what we say the layer holds.
#[test]
fn overlayfs_agrees() {
    let mut scene = Scene::new();
    for path in ["keep/a", "gone/b", "swap/c", "swapped"] {
        scene.lower_file(path, path);
    }
    let second = scene.place.path().join("lower2");
    fs::create_dir(&second).unwrap();
    scene.lower.push(second);
    for path in ["swap", "swapped/d", "tree/e/f"] {
        scene.source_file(path, path);
    }
    let target = scene.target();
    rm(&target, &RmAction { path: "/gone".into(), ..Default::default() }).unwrap();
    let all = CopyAction { always_replace_existing_dest_paths: true, ..docker_copy("/", "/") };
    scene.copy_round(&target, &all, None, None).unwrap();
    rm(&target, &RmAction { path: "/tree/e".into(), ..Default::default() }).unwrap();
    drop(target);

    let mounted = mount_overlay(&[&scene.layer(), &scene.lower[1], &scene.lower[0]]);
    let seen = Union::open(&[mounted], &Format::default()).unwrap();
    let mut lines = Vec::new();
    list(&seen, "", &mut lines);
    assert_eq!(lines, scene.listing());
    assert_eq!(lines, ["keep/", "keep/a", "swap", "swapped/", "swapped/d", "tree/"]);
}

/// A mount that no path leads to; it goes with the handle, which the returned path holds open.
fn mount_overlay(layers: &[&Path]) -> PathBuf {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    use std::os::fd::IntoRawFd;
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for layer in layers {
        rustix::mount::fsconfig_set_string(&fs, "lowerdir+", layer.to_str().unwrap()).unwrap();
    }
    rustix::mount::fsconfig_create(&fs).unwrap();
    let mount = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
        .unwrap();
    PathBuf::from(format!("/proc/self/fd/{}/.", mount.into_raw_fd()))
}

/// Many small files: what the design is for. No time is asserted, it is printed.
#[test]
fn many_files_are_linked() {
    let scene = Scene::new();
    for dir in 0..100 {
        let dir = scene.source[0].join(format!("d{dir}"));
        fs::create_dir(&dir).unwrap();
        for file in 0..20 {
            fs::write(dir.join(format!("f{file}")), [7; 4096]).unwrap();
        }
    }
    let start = std::time::Instant::now();
    scene.copy(&docker_copy("/", "/app/")).unwrap();
    println!("2000 files in {:?}", start.elapsed());
    assert_eq!(scene.listing().len(), 1 + 100 + 2000);
    assert_eq!(fs::metadata(scene.layer().join("app/d7/f7")).unwrap().nlink(), 2);
}
