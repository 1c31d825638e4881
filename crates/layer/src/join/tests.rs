use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::write_join;
use crate::meta::FileKind;
use crate::overlay::{self, Format};
use crate::union::Union;

/// What a layer says of a name.
#[derive(Clone, Debug)]
enum Says {
    File,
    Removed,
    Link,
    Dir { opaque: bool, mode: u32, below: Vec<(usize, Says)> },
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn says() -> impl Strategy<Value = Says> {
    let leaf = prop_oneof![Just(Says::File), Just(Says::Removed), Just(Says::Link)];
    leaf.prop_recursive(3, 12, 3, |below| {
        (any::<bool>(), 0o700_u32..0o1000, prop::collection::vec((0..NAMES.len(), below), 0..4))
            .prop_map(|(opaque, mode, below)| Says::Dir { opaque, mode, below })
    })
}

fn write(dir: &Path, below: &[(usize, Says)], layer: usize) {
    for (name, says) in below {
        let path = dir.join(NAMES[*name]);
        if fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match says {
            Says::File => fs::write(&path, format!("{layer}{}", path.display())).unwrap(),
            Says::Removed => {
                let dir = fs::File::open(dir).unwrap();
                overlay::make_whiteout(dir.as_fd(), NAMES[*name].as_ref()).unwrap();
            }
            Says::Link => symlink(format!("to-{layer}"), &path).unwrap(),
            Says::Dir { opaque, mode, below } => {
                fs::create_dir(&path).unwrap();
                if *opaque {
                    overlay::set_opaque(fs::File::open(&path).unwrap().as_fd(), &Format::default()).unwrap();
                }
                // What one layer has and the next one has not must not stay.
                if layer.is_multiple_of(2) {
                    let value = [layer as u8];
                    rustix::fs::setxattr(&path, "user.of", &value, rustix::fs::XattrFlags::empty()).unwrap();
                }
                write(&path, below, layer);
                std::os::unix::fs::chown(&path, Some(layer as u32), Some(7)).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000 + layer as u64);
                fs::File::open(&path).unwrap().set_modified(time).unwrap();
            }
        }
    }
}

/// All that there is to see.
fn seen(dirs: &[PathBuf]) -> Vec<String> {
    let union = Union::open(dirs, &Format::default()).unwrap();
    let mut lines = Vec::new();
    for node in union.walk("").unwrap() {
        let node = node.unwrap();
        let content = match node.meta.kind {
            FileKind::File => std::io::read_to_string(node.open().unwrap()).unwrap(),
            FileKind::Symlink => node.read_link().unwrap().display().to_string(),
            _ => format!("{:?}", node.xattrs().unwrap()),
        };
        let meta = &node.meta;
        let root = node.path.as_os_str().is_empty();
        let time = if meta.is_dir() && !root { meta.mtime_s } else { 0 };
        let path = node.path.display();
        lines.push(format!(
            "{path} {:?} {:o} {}:{} {time} {content}",
            meta.kind, meta.mode, meta.uid, meta.gid
        ));
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_shows_what_its_layers_show(
        layers in prop::collection::vec(prop::collection::vec((0..NAMES.len(), says()), 0..4), 5),
    ) {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: making whiteouts needs root");
            return Ok(());
        }
        let place = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let dirs: Vec<PathBuf> = (0..5).map(|layer| place.path().join(layer.to_string())).collect();
        for (layer, below) in layers.iter().enumerate() {
            fs::create_dir(&dirs[layer]).unwrap();
            write(&dirs[layer], below, layer);
        }
        let joined = place.path().join("joined");
        fs::create_dir(&joined).unwrap();
        write_join(&dirs[1..4], &joined, &Format::default()).unwrap();
        let inside = [dirs[0].clone(), joined.clone(), dirs[4].clone()];
        prop_assert_eq!(seen(&inside), seen(&dirs));
        prop_assert_eq!(seen(&inside[..2]), seen(&dirs[..4]));
        prop_assert_eq!(seen(&inside[1..2]), seen(&dirs[1..4]));
    }
}

#[test]
fn files_are_the_same_files() {
    let place = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let dirs = ["0", "1", "joined"].map(|name| place.path().join(name));
    for dir in &dirs {
        fs::create_dir(dir).unwrap();
    }
    fs::write(dirs[0].join("file"), "low").unwrap();
    fs::write(dirs[0].join("other"), "low").unwrap();
    fs::write(dirs[1].join("file"), "high").unwrap();
    write_join(&dirs[..2], &dirs[2], &Format::default()).unwrap();
    for (layer, name) in [(1, "file"), (0, "other")] {
        let inode = |dir: &Path| fs::metadata(dir.join(name)).unwrap().ino();
        assert_eq!(inode(&dirs[layer]), inode(&dirs[2]), "{name}");
    }
}
