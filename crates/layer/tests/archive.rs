//! Archives that nobody wrote on purpose: random ones must come through unchanged, random bytes must not harm.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_layer::apply::{ApplyOptions, apply};
use kiln_layer::diff::{DiffOptions, write_layer};
use kiln_layer::tar::{Chunks, Entry, EntryKind, Reader, Writer};
use kiln_layer::threads::Budget;
use kiln_layer::union::Union;
use proptest::prelude::*;

struct Whole(Option<bytes::Bytes>);

impl Chunks for Whole {
    fn next_chunk(&mut self) -> kiln_layer::Result<Option<bytes::Bytes>> {
        Ok(self.0.take().filter(|bytes| !bytes.is_empty()))
    }
}

fn name() -> impl Strategy<Value = PathBuf> {
    let part = prop_oneof![4 => "[a-d]{1,2}", 1 => "[a-zä-ü ]{100,180}", 1 => Just("..".to_owned()), 1 => Just(".wh.a".to_owned())];
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.iter().collect())
}

fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let kind = prop_oneof![
        6 => Just(EntryKind::File),
        3 => Just(EntryKind::Dir),
        2 => Just(EntryKind::Symlink),
        2 => Just(EntryKind::HardLink),
        1 => Just(EntryKind::Fifo),
    ];
    let numbers = (0u32..0o10000, any::<u32>(), any::<u32>(), -(1i64 << 33)..1i64 << 36, 0u32..1_000_000_000);
    let xattr = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    (kind, name(), name(), numbers, prop::collection::vec(any::<u8>(), 0..3000), xattr).prop_map(
        |(kind, path, link, (mode, uid, gid, mtime_s, mtime_ns), content, xattr)| {
            let content = if kind == EntryKind::File { content } else { Vec::new() };
            let link =
                if matches!(kind, EntryKind::Symlink | EntryKind::HardLink) { link } else { PathBuf::new() };
            let xattrs = xattr.map(|value| ("user.x".into(), value)).into_iter().collect();
            let size = content.len() as u64;
            (
                Entry { mode, uid, gid, mtime_s, mtime_ns, size, link, xattrs, ..Entry::new(kind, path) },
                content,
            )
        },
    )
}

fn archive(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for (entry, content) in entries {
        tar.start(entry).expect("memory");
        tar.write_data(content).expect("memory");
    }
    tar.finish().expect("memory")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// What is written is read back, field by field.
    #[test]
    fn writing_and_reading_are_inverse(entries in prop::collection::vec(entry(), 0..12)) {
        let bytes = archive(&entries);
        let mut reader = Reader::new(Whole(Some(bytes.into())));
        for (expected, content) in &entries {
            let mut read = reader.next_entry().expect("good").expect("as many as were written");
            if read.kind == EntryKind::Dir {
                // The slash that marks directories.
                read.path = PathBuf::from(read.path.to_str().expect("text").trim_end_matches('/'));
            }
            prop_assert_eq!(&read, expected);
            let mut data = Vec::new();
            while let Some(piece) = reader.next_data(1000).expect("good") {
                data.extend_from_slice(&piece);
            }
            prop_assert_eq!(&data, content);
        }
        prop_assert!(reader.next_entry().expect("good").is_none());
    }

    /// Whatever comes, nothing is written outside of the root, and helpers change nothing.
    #[test]
    fn unpacking_stays_inside(entries in prop::collection::vec(entry(), 0..40)) {
        let outer = tempfile::tempdir().expect("a temporary directory");
        fs::write(outer.path().join("a"), "untouched").expect("fresh");
        let bytes = archive(&entries);
        let mut done = Vec::new();
        for helpers in [0, 3] {
            let dir = outer.path().join(format!("root{helpers}"));
            fs::create_dir(&dir).expect("fresh");
            let options = ApplyOptions { budget: Budget::new(helpers), ..ApplyOptions::default() };
            let applied = apply(&bytes[..], &dir, &options);
            done.push((applied.map(|applied| (applied.diff_id, applied.leans)).map_err(|error| error.to_string()), dir));
        }
        prop_assert_eq!(&done[0].0, &done[1].0);
        if done[0].0.is_ok() {
            prop_assert_eq!(tar_of(&done[0].1), tar_of(&done[1].1));
        }
        prop_assert_eq!(fs::read_to_string(outer.path().join("a")).expect("there"), "untouched");
        prop_assert_eq!(fs::read_dir(outer.path()).expect("there").count(), 3);
    }

    /// A damaged archive gives an error or another archive, never a panic.
    #[test]
    fn damage_is_an_error(entries in prop::collection::vec(entry(), 1..5), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = archive(&entries);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut reader = Reader::new(Whole(Some(bytes.into())));
        while let Ok(Some(_)) = reader.next_entry() {}
    }

    /// So do bytes that never were one.
    #[test]
    fn noise_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let mut reader = Reader::new(Whole(Some(bytes.into())));
        while let Ok(Some(_)) = reader.next_entry() {}
    }
}

fn tar_of(dir: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    write_layer(dir, &Union::empty(), &mut out, &DiffOptions { epoch: Some(0), user_xattrs: true })
        .expect("archives");
    out
}

/// A file with holes, as GNU tar writes it in each of its ways.
#[test]
fn sparse_files_of_gnu_tar_come_through() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("holes");
    let file = fs::File::create(&path).expect("fresh");
    for (at, text) in [(0u64, "start"), (1 << 20, "middle"), (3 << 20, "later"), (9 << 20, "end")] {
        std::os::unix::fs::FileExt::write_all_at(&file, text.as_bytes(), at).expect("written");
    }
    file.set_len(10 << 20).expect("grows");
    let plain = fs::read(&path).expect("there");
    for format in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let out = std::process::Command::new("tar")
            .args(["--sparse", "-c", "-C"])
            .arg(dir.path())
            .args(format)
            .arg("holes")
            .output()
            .expect("GNU tar is installed");
        assert!(out.status.success() && out.stdout.len() < 1 << 20, "{format:?}");
        let to = tempfile::tempdir().expect("a temporary directory");
        apply(&out.stdout[..], to.path(), &ApplyOptions::default()).expect("good");
        assert!(fs::read(to.path().join("holes")).expect("there") == plain, "{format:?}");
    }
}
