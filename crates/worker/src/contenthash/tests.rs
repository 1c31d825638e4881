//! Against real directories in overlay format; making whiteouts needs root.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use kiln_layer::overlay::{Format, make_whiteout, set_opaque};
use kiln_layer::union::Union;
use proptest::prelude::*;

use super::same::tiny;
use super::*;

/// Something in a layer. Paths are chosen so that they often collide.
#[derive(Clone, Debug)]
enum Item {
    File { content: u8, mode: u32 },
    Dir { opaque: bool },
    Link(String),
    Whiteout,
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        4 => (0_u8..3, prop_oneof![Just(0o644_u32), Just(0o755)]).prop_map(|(content, mode)| Item::File { content, mode }),
        3 => prop::bool::weighted(0.2).prop_map(|opaque| Item::Dir { opaque }),
        1 => prop_oneof!["/[ab]", "\\.\\./[ab]", "[ab]", "/[ab]/[ab]"].prop_map(Item::Link),
        1 => Just(Item::Whiteout),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]", 1..4).prop_map(|parts| parts.join("/"))
}

fn put(root: &Path, name: &str, item: &Item) {
    let path = root.join(name);
    let Some(parent) = path.parent() else { return };
    // What can't be there (below a file, where something else is) is left out.
    if fs::create_dir_all(parent).is_err()
        || path.symlink_metadata().is_ok()
        || parent.symlink_metadata().unwrap().is_symlink()
    {
        return;
    }
    let parent_fd = || fs::File::open(parent).unwrap();
    match item {
        Item::File { content, mode } => {
            fs::write(&path, vec![*content; usize::from(*content) * 100]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        Item::Dir { opaque } => {
            fs::create_dir(&path).unwrap();
            if *opaque {
                set_opaque(std::os::fd::AsFd::as_fd(&fs::File::open(&path).unwrap()), &Format::default())
                    .unwrap();
            }
        }
        Item::Link(target) => symlink(target, &path).unwrap(),
        Item::Whiteout => {
            make_whiteout(std::os::fd::AsFd::as_fd(&parent_fd()), path.file_name().unwrap()).unwrap()
        }
    }
}

/// One layer with what `union` shows.
fn flatten(union: &Union, dir: &str, to: &Path) {
    for node in union.read_dir(dir).unwrap() {
        let path = to.join(&node.path);
        if node.meta.is_dir() {
            fs::create_dir(&path).unwrap();
            flatten(union, node.path.to_str().unwrap(), to);
        } else if node.meta.is_symlink() {
            symlink(node.read_link().unwrap(), &path).unwrap();
        } else {
            std::io::copy(&mut node.open().unwrap(), &mut fs::File::create(&path).unwrap()).unwrap();
        }
        if !node.meta.is_symlink() {
            fs::set_permissions(&path, fs::Permissions::from_mode(node.meta.mode)).unwrap();
        }
    }
}

fn tree_of(dirs: &[PathBuf]) -> Tree {
    tree_in(dirs, &short())
}

/// Nothing here is long.
pub(super) fn short() -> Scratch {
    Scratch::new(Path::new("/nowhere"))
}

fn tree_in(dirs: &[PathBuf], scratch: &Scratch) -> Tree {
    let table = |dir: &PathBuf| Arc::new(scan(dir, &Format::default(), &Budget::new(1), scratch).unwrap());
    Tree::new(dirs.iter().map(table).collect())
}

/// The digest, which is the same if nothing fits into memory.
fn sum(dirs: &[PathBuf], selector: Selector) -> Result<Hash, String> {
    let place = tempfile::tempdir().unwrap();
    let long = Scratch::bounded(place.path(), tiny());
    let [short, long] = [short(), long].map(|scratch| {
        let tree = tree_in(dirs, &scratch);
        checksum(&tree, dirs, std::slice::from_ref(&selector), &Budget::new(1), &scratch)
            .map_err(|error| error.to_string())
    });
    assert_eq!(short, long);
    short
}

pub(super) fn selectors() -> Vec<Selector> {
    let filter = |path: &str, include: &[&str], exclude: &[&str]| Selector {
        path: path.into(),
        include: include.iter().map(ToString::to_string).collect(),
        exclude: exclude.iter().map(ToString::to_string).collect(),
        ..Selector::default()
    };
    let wildcard = |path: &str| Selector { path: path.into(), wildcard: true, ..Selector::default() };
    vec![
        Selector::default(),
        Selector::path("/a"),
        Selector::path("/a/b"),
        Selector { follow_links: true, ..Selector::path("/b") },
        wildcard("/*"),
        wildcard("/a*/[ab]"),
        Selector { follow_links: true, ..wildcard("/?") },
        filter("/", &["**/a"], &[]),
        filter("/", &[], &["a/b", "!a/b/c"]),
        filter("/a", &["b"], &["**/c"]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Layers have the digests of what they show, whichever layer it stands in.
    #[test]
    fn layers_count_as_what_they_show(
        layers in prop::collection::vec(prop::collection::vec((name(), item()), 0..12), 1..4),
    ) {
        let place = tempfile::tempdir().unwrap();
        let mut dirs = Vec::new();
        for (index, items) in layers.iter().enumerate() {
            let dir = place.path().join(index.to_string());
            fs::create_dir(&dir).unwrap();
            items.iter().for_each(|(name, item)| put(&dir, name, item));
            dirs.push(dir);
        }
        let flat = place.path().join("flat");
        fs::create_dir(&flat).unwrap();
        flatten(&Union::open(&dirs, &Format::default()).unwrap(), "", &flat);
        for selector in selectors() {
            let (stacked, flat) = (sum(&dirs, selector.clone()), sum(std::slice::from_ref(&flat), selector.clone()));
            prop_assert_eq!(stacked, flat, "{:?}", selector);
        }
    }
}

fn sample(place: &Path) -> Vec<PathBuf> {
    let dir = place.join("layer");
    for (path, content) in [("a/x", "1"), ("a/y", "22"), ("a/sub/z", "333"), ("b", "4"), ("c.txt", "5")] {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), content).unwrap();
    }
    symlink("a", dir.join("link")).unwrap();
    symlink("/nowhere", dir.join("dangling")).unwrap();
    symlink("loop", dir.join("loop")).unwrap();
    vec![dir]
}

#[test]
fn times_do_not_count_but_everything_else_does() {
    let place = tempfile::tempdir().unwrap();
    let dirs = sample(place.path());
    let all = || sum(&dirs, Selector::default()).unwrap();
    let first = all();
    let touch = |path: &str| {
        let file = fs::File::open(dirs[0].join(path)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    };
    touch("a/x");
    touch("a");
    assert_eq!(all(), first);
    fs::set_permissions(dirs[0].join("a/x"), fs::Permissions::from_mode(0o600)).unwrap();
    let after_mode = all();
    assert_ne!(after_mode, first);
    fs::write(dirs[0].join("a/y"), "23").unwrap();
    let after_content = all();
    assert_ne!(after_content, after_mode);
    fs::rename(dirs[0].join("b"), dirs[0].join("bb")).unwrap();
    let after_name = all();
    assert_ne!(after_name, after_content);
    std::os::unix::fs::lchown(dirs[0].join("c.txt"), Some(7), None).unwrap();
    assert_ne!(all(), after_name);
}

#[test]
fn a_file_counts_the_same_under_any_name_when_it_is_picked_alone() {
    let place = tempfile::tempdir().unwrap();
    let dirs = sample(place.path());
    let alone = sum(&dirs, Selector::path("b")).unwrap();
    fs::rename(dirs[0].join("b"), dirs[0].join("bb")).unwrap();
    assert_eq!(sum(&dirs, Selector::path("/bb")).unwrap(), alone);
    let wildcard = Selector { path: "/b*".into(), wildcard: true, ..Selector::default() };
    assert_ne!(sum(&dirs, wildcard).unwrap(), alone);
}

#[test]
fn links_are_followed_on_the_way_and_at_the_end_when_asked() {
    let place = tempfile::tempdir().unwrap();
    let dirs = sample(place.path());
    let of = |path: &str, follow_links| sum(&dirs, Selector { follow_links, ..Selector::path(path) });
    assert_eq!(of("/link/x", false), of("/a/x", false));
    assert_eq!(of("/link", true), of("/a", false));
    assert_ne!(of("/link", false), of("/a", false));
    assert_eq!(of("/dangling", true).unwrap_err(), "\"/dangling\": not found");
    assert_eq!(of("/loop", true).unwrap_err(), "too many links");
}

#[test]
fn what_is_missing_is_named() {
    let place = tempfile::tempdir().unwrap();
    let dirs = sample(place.path());
    assert_eq!(sum(&dirs, Selector::path("no/such")).unwrap_err(), "\"/no/such\": not found");
    let required = |path: &str| Selector {
        path: "/".into(),
        include: vec!["a/*".into()],
        required: vec![path.into()],
        ..Selector::default()
    };
    assert!(sum(&dirs, required("/a/x")).is_ok());
    assert_eq!(sum(&dirs, required("/b")).unwrap_err(), "\"/b\": not found");
}

#[test]
fn filters_leave_out_what_others_change() {
    let place = tempfile::tempdir().unwrap();
    let dirs = sample(place.path());
    let pick =
        |include: &str| Selector { path: "/".into(), include: vec![include.into()], ..Selector::default() };
    let (in_sub, outside) = (sum(&dirs, pick("a/sub")).unwrap(), sum(&dirs, pick("**/*.txt")).unwrap());
    fs::write(dirs[0].join("a/sub/z"), "changed").unwrap();
    assert_ne!(sum(&dirs, pick("a/sub")).unwrap(), in_sub);
    assert_eq!(sum(&dirs, pick("**/*.txt")).unwrap(), outside);
}

#[test]
fn tables_keep_what_was_read() {
    let place = tempfile::tempdir().unwrap();
    let dirs = sample(place.path());
    let tree = tree_of(&dirs);
    let first = checksum(&tree, &dirs, &[], &Budget::new(0), &short()).unwrap();
    let saved = tree.tables()[0].encode(&short()).unwrap();
    fs::remove_dir_all(&dirs[0]).unwrap();
    let again = Tree::new(vec![Arc::new(LayerTable::decode(&saved, &short()).unwrap())]);
    assert_eq!(checksum(&again, &dirs, &[], &Budget::new(0), &short()).unwrap(), first);
    assert!(!again.tables()[0].take_unsaved());
    assert!(tree.tables()[0].take_unsaved());
}

#[test]
fn redundant_selectors_go() {
    let path = |path: &str| Selector::path(path);
    let filter = Selector { path: "/a".into(), include: vec!["x".into()], ..Selector::default() };
    let kept = without_redundant(&[path("/a/b"), path("/a"), path("/ab"), path("/a"), filter.clone()]);
    assert_eq!(kept, [path("/a"), filter, path("/ab")]);
}

#[test]
fn attributes_of_the_machine_do_not_count() {
    let place = tempfile::tempdir().unwrap();
    let dirs = sample(place.path());
    let first = sum(&dirs, Selector::default()).unwrap();
    let set = |key: &str| {
        let path = dirs[0].join("b");
        rustix::fs::setxattr(path.as_os_str().as_bytes(), key, b"v", rustix::fs::XattrFlags::empty())
            .unwrap();
    };
    set("trusted.overlay.origin");
    assert_eq!(sum(&dirs, Selector::default()).unwrap(), first);
    set("user.note");
    assert_ne!(sum(&dirs, Selector::default()).unwrap(), first);
}
