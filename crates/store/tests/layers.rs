//! Making, listing, mounting and keeping layers.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{TestStore, is_root, layer, text, write};
use kiln_spool::{Bounds, Spools};
use kiln_store::{
    Backend, BlobOptions, CommitInfo, Error, LayerMeta, NamedSpec, NoObserver, PruneOptions, RecordId,
    RecordType, Ref, Sharing, Store, StoreOptions,
};

#[test]
fn lists_of_layers_are_the_same_if_their_layers_are() {
    let t = TestStore::new();
    let a = layer(&t.store, &Ref::scratch(), &[("a", "1")]);
    let ab = layer(&t.store, &a, &[("b", "2")]);
    let again = t.store.append(&a, ab.top().expect("has one")).expect("found");
    assert_eq!(again, ab);
    assert_eq!(t.store.get_ref(ab.id().expect("has one")).expect("read"), Some(ab.clone()));
    assert_eq!((ab.depth(), ab.parent(), ab.prefix(1)), (2, a.clone(), a.clone()));
    assert!(ab.starts_with(&a) && ab.starts_with(&Ref::scratch()) && !a.starts_with(&ab));
    assert_eq!(text(&t.store, &ab, "a").as_deref(), Some("1"));
}

#[test]
fn merging_copies_nothing_and_the_upper_one_wins() {
    let t = TestStore::new();
    let a = layer(&t.store, &Ref::scratch(), &[("x", "a"), ("a", "")]);
    let b = layer(&t.store, &Ref::scratch(), &[("x", "b"), ("b", "")]);
    let merged = t.store.merge(&[a.clone(), b.clone()]).expect("merges");
    assert_eq!(merged.layers(), [a.top().cloned().expect("one"), b.top().cloned().expect("one")]);
    assert_eq!(text(&t.store, &merged, "x").as_deref(), Some("b"));
    assert_eq!(
        t.store.merge(&[a.clone(), merged.clone()]).expect("merges"),
        merged,
        "its beginning adds nothing"
    );
    assert_eq!(t.store.merge(&[]).expect("merges"), Ref::scratch());
}

#[test]
fn a_list_that_has_a_layer_twice_can_be_mounted() {
    if !is_root() {
        return;
    }
    let t = TestStore::new();
    let a = layer(&t.store, &Ref::scratch(), &[("x", "a"), ("d/a", "")]);
    let b = layer(&t.store, &Ref::scratch(), &[("x", "b"), ("d/b", "")]);
    let twice = t.store.merge(&[a.clone(), b, a]).expect("merges");
    let mounted = t.store.mount_read_only(&twice).expect("mounts");
    assert_eq!(std::fs::read_to_string(mounted.path().join("x")).expect("there"), "a");
    assert!(mounted.path().join("d/a").exists() && mounted.path().join("d/b").exists());
}

#[test]
fn the_difference_is_the_layers_above_or_found_by_comparing() {
    if !is_root() {
        return;
    }
    let t = TestStore::new();
    let a = layer(&t.store, &Ref::scratch(), &[("a", "1"), ("gone", "")]);
    let ab = layer(&t.store, &a, &[("b", "2")]);
    let above = t.store.diff(&a, &ab, LayerMeta::default()).expect("a difference");
    assert_eq!(above.layers(), [ab.top().cloned().expect("one")]);
    let other = layer(&t.store, &Ref::scratch(), &[("a", "other"), ("c", "3")]);
    let computed = t.store.diff(&a, &other, LayerMeta::default()).expect("a difference");
    let on_top = t.store.merge(&[a, computed]).expect("merges");
    let texts = ["a", "c", "gone"].map(|path| text(&t.store, &on_top, path));
    assert_eq!(texts, [Some("other".into()), Some("3".into()), None]);
}

#[test]
fn what_is_dropped_uncommitted_leaves_nothing() {
    let t = TestStore::new();
    let new = t.store.new_layer(&Ref::scratch(), LayerMeta::default()).expect("begins");
    let dir = new.dir().to_owned();
    write(&dir, "x", "");
    drop(new);
    assert!(!dir.exists());
    assert!(t.store.disk_usage(&Default::default()).expect("listed").is_empty());
}

#[tokio::test]
async fn a_kept_result_has_one_name_and_says_whether_there_is_a_blob_of_it() {
    let t = TestStore::new();
    let records = t.store.records();
    let a = layer(&t.store, &Ref::scratch(), &[("a", "1")]);
    let ab = layer(&t.store, &a, &[("b", "2")]);
    let (below, above) = (records.keep(&a).expect("kept"), records.keep(&ab).expect("kept"));
    assert_eq!(records.keep(&a).expect("known"), below);
    assert_eq!(records.get(&above).expect("read").expect("there").reference, ab);
    t.store.layer_blob(a.top().expect("one"), &BlobOptions::default(), &NoObserver).await.expect("archives");
    let has = |id: &RecordId| records.has_blob(id).expect("read");
    assert_eq!((has(&below), has(&above), has(&RecordId::new("unknown"))), (true, false, false));
    let scratch = records.keep(&Ref::scratch()).expect("kept");
    assert!(!has(&scratch) && records.get(&scratch).expect("read").expect("there").reference.is_scratch());
}

#[test]
fn everything_committed_survives_a_restart() {
    let t = TestStore::new();
    let a = layer(&t.store, &Ref::scratch(), &[("a", "1")]);
    let ab = layer(&t.store, &a, &[("b", "2")]);
    let (name, id) = (RecordId::new("r1"), ab.id().expect("has one"));
    t.store.records().put(&name, &ab, b"payload").expect("kept");
    t.store.keys().add_record("key", &name, 5).expect("kept");
    t.store.values().set(ab.top().expect("one"), "etag", b"abc", Some("http:x")).expect("kept");
    drop((a, ab));
    let t = t.reopen();
    let record = t.store.records().get(&name).expect("read").expect("there");
    assert_eq!((record.reference.id(), &record.payload[..]), (Some(id), &b"payload"[..]));
    assert_eq!(text(&t.store, &record.reference, "b").as_deref(), Some("2"));
    let found = t.store.values().layers("http:x").expect("read");
    assert_eq!(found, [record.reference.top().cloned().expect("one")]);
    assert_eq!(t.store.values().get(&found[0], "etag").expect("read").as_deref(), Some(&b"abc"[..]));
    // A value that is written in place, in place of one of another size.
    for length in [300_000, 2_000_000, 300_001, 3] {
        let value: Vec<u8> = (0..length).map(|i| (i * 7 + length) as u8).collect();
        t.store.values().set(&found[0], "etag", &value, Some("http:x")).expect("kept");
        assert!(t.store.values().get(&found[0], "etag").expect("read") == Some(value), "{length} bytes");
        assert_eq!(t.store.values().layers("http:x").expect("read").len(), 1);
    }
    assert_eq!(t.store.keys().records("key").expect("read")[0].record, name);
}

#[test]
fn values_may_be_too_long_for_memory() {
    let t = TestStore::new();
    let layer = layer(&t.store, &Ref::scratch(), &[("a", "1")]);
    let layer = layer.top().expect("one");
    let values = t.store.values();
    let memory = Spools::new(t.store.scratch_dir());
    let tiny = memory.clone().with_bounds(Bounds { short_bytes_max: 1000, tail_bytes_max: 100 });
    assert!(values.get_spool(layer, "list", &tiny).expect("read").is_none());
    for length in [0, 3, 1000, 1001, 300_000, 2_000_000, 70_000, 5_000_000] {
        let value: Vec<u8> = (0..length).map(|i| (i * 7 + length) as u8).collect();
        for (from, to) in [(&memory, &tiny), (&tiny, &memory), (&tiny, &tiny)] {
            let mut spool = from.spool();
            value.chunks(999).for_each(|piece| spool.append(piece).expect("has room"));
            values.set_spool(layer, "list", &spool, None).expect("kept");
            assert!(values.get(layer, "list").expect("read").as_ref() == Some(&value), "{length} bytes");
            let read = values.get_spool(layer, "list", to).expect("read").expect("is there");
            let mut bytes = Vec::new();
            read.write_to(&mut bytes).expect("read");
            assert!(bytes == value, "{length} bytes");
        }
    }
    // Nowhere to put it: what is stored stays.
    let nowhere = Spools::new(t.dir.path().join("not/there"));
    let error = values.get_spool(layer, "list", &nowhere).expect_err("is too long");
    let folder = nowhere.dir().display();
    assert_eq!(error.to_string(), format!("failed to write a file in `{folder}`"));
    assert!(values.get_spool(layer, "list", &tiny).expect("read").is_some());
}

#[test]
fn a_state_directory_is_used_by_one_at_a_time() {
    let t = TestStore::new();
    let error = Store::open(t.dir.path(), StoreOptions::default()).expect_err("is locked");
    assert!(matches!(error, Error::Locked { .. }) && error.hint().is_some(), "{error}");
    let t = t.reopen();
    drop(t.store);
    let db = rusqlite::Connection::open(t.dir.path().join("kiln.db")).expect("opens");
    db.pragma_update(None, "user_version", 99).expect("written");
    drop(db);
    let error = Store::open(t.dir.path(), StoreOptions::default()).expect_err("is newer");
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
}

#[test]
fn what_a_step_writes_through_a_mount_becomes_its_layer() {
    if !is_root() {
        return;
    }
    for backend in [Backend::Overlay, Backend::Native] {
        let t = TestStore::with(StoreOptions { backend, ..StoreOptions::default() });
        let base = layer(&t.store, &Ref::scratch(), &[("dir/old", "1"), ("dir/gone", ""), ("kept", "k")]);
        let new = t.store.new_layer(&base, LayerMeta::regular("RUN")).expect("begins");
        write(new.dir(), "placed", "before the mount");
        let mounted = t.store.mount_somewhere(&new.mount_source().expect("a source")).expect("mounts");
        let at = |path: &str| mounted.path().join(path);
        assert_eq!(fs::read_to_string(at("kept")).expect("there"), "k");
        assert_eq!(fs::read_to_string(at("placed")).expect("there"), "before the mount");
        fs::write(at("dir/old"), "2").expect("written");
        fs::remove_file(at("dir/gone")).expect("removed");
        fs::write(at("new"), "n").expect("written");
        drop(mounted);
        let done = new.commit(CommitInfo::default()).expect("commits");
        let texts = ["dir/old", "dir/gone", "kept", "new", "placed"].map(|path| text(&t.store, &done, path));
        let expected = [Some("2"), None, Some("k"), Some("n"), Some("before the mount")];
        assert_eq!(texts, expected.map(|text| text.map(str::to_owned)), "{backend:?}");
        assert_eq!(text(&t.store, &base, "dir/old").as_deref(), Some("1"), "{backend:?}");
        let mut names: Vec<_> = fs::read_dir(done.top().expect("one").dir().expect("ready"))
            .expect("there")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        assert_eq!(names, ["dir", "new", "placed"], "{backend:?}: only what changed");
        let read_only = t.store.mount_read_only(&done).expect("mounts");
        assert_eq!(fs::read_to_string(read_only.path().join("new")).expect("there"), "n");
        assert_eq!(fs::write(read_only.path().join("x"), "").is_err(), backend == Backend::Overlay);
    }
}

#[test]
fn long_lists_are_mounted_in_blocks_and_show_the_same() {
    if !is_root() {
        return;
    }
    let t = TestStore::new();
    let mut chain = Ref::scratch();
    let mut files = std::collections::BTreeMap::new();
    for step in 0..2100 {
        let new = t.store.new_layer(&chain, LayerMeta::regular("RUN")).expect("begins");
        let file = format!("f{}", step % 700);
        write(new.dir(), &file, &step.to_string());
        files.insert(file, step.to_string());
        // Some go again, in the same block and in a later one.
        if step > 50 && step % 7 == 3 {
            let gone = format!("f{}", (step - if step % 2 == 0 { 2 } else { 50 }) % 700);
            if files.remove(&gone).is_some() {
                let dir = fs::File::open(new.dir()).expect("there");
                kiln_layer::overlay::make_whiteout(std::os::fd::AsFd::as_fd(&dir), gone.as_ref())
                    .expect("made");
            }
        }
        chain = new.commit(CommitInfo::default()).expect("commits");
        if ![64, 65, 96, 97, 500, 1055, 1056, 1057, 2100].contains(&(step + 1)) {
            continue;
        }
        let source = t.store.readable_source(&chain).expect("a source");
        let mounted = t.store.mount_somewhere(&source).expect("mounts");
        let shown: std::collections::BTreeMap<String, String> = fs::read_dir(mounted.path())
            .expect("readable")
            .map(|entry| entry.expect("readable").path())
            .map(|path| {
                (
                    path.file_name().expect("one").display().to_string(),
                    fs::read_to_string(&path).expect("text"),
                )
            })
            .collect();
        assert_eq!(shown, files, "after {step}");
        let lower = source.overlay().expect("overlayfs").lower.len();
        assert!(lower <= 126 && (step < 64 || lower <= step), "{lower} of {step}");
    }
    let blocks = || fs::read_dir(t.dir.path().join("flat")).expect("there").count();
    assert!(blocks() > 60);
    let options = PruneOptions { all: true, ..PruneOptions::default() };
    let other = layer(&t.store, &Ref::scratch(), &[("other", "")]);
    drop(other);
    t.store.prune(&options, &mut drop).expect("prunes");
    assert_eq!(blocks(), 0, "what holds files that nothing else has goes with the rest");
}

fn spec(key: &str, sharing: Sharing) -> NamedSpec {
    let meta = LayerMeta { record_type: RecordType::ExecCacheMount, ..LayerMeta::regular("cache") };
    NamedSpec { key: key.into(), base: Ref::scratch(), sharing, meta }
}

#[tokio::test]
async fn kept_layers_are_shared_as_asked() {
    let t = TestStore::new();
    let shared = t.store.named(&spec("s", Sharing::Shared)).await.expect("taken");
    let same = t.store.named(&spec("s", Sharing::Shared)).await.expect("taken");
    assert_eq!(shared.id(), same.id());
    let other = t.store.named(&spec("other", Sharing::Shared)).await.expect("taken");
    assert_ne!(shared.id(), other.id());

    let one = t.store.named(&spec("p", Sharing::Private)).await.expect("taken");
    let two = t.store.named(&spec("p", Sharing::Private)).await.expect("taken");
    assert_ne!(one.id(), two.id());
    let id = one.id().clone();
    drop(one);
    let three = t.store.named(&spec("p", Sharing::Private)).await.expect("taken");
    assert_eq!((three.id(), three.is_fresh()), (&id, false));

    let first = t.store.named(&spec("l", Sharing::Locked)).await.expect("taken");
    let id = first.id().clone();
    let store = t.store.clone();
    let waiting = tokio::spawn(async move { store.named(&spec("l", Sharing::Locked)).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(first);
    let second = waiting.await.expect("runs").expect("taken");
    assert_eq!(second.id(), &id);
}

#[tokio::test]
async fn all_who_share_a_kept_layer_write_into_one_file_system() {
    if !is_root() {
        return;
    }
    let t = TestStore::new();
    let base = layer(&t.store, &Ref::scratch(), &[("below", "1")]);
    for base in [Ref::scratch(), base] {
        let spec = NamedSpec { base: base.clone(), ..spec("s", Sharing::Shared) };
        let (one, two) =
            (t.store.named(&spec).await.expect("taken"), t.store.named(&spec).await.expect("taken"));
        let sources = [one.mount_source().expect("mounts"), two.mount_source().expect("mounts")];
        let dirs = sources.each_ref().map(|source| source.directory().expect("a directory").0.to_owned());
        fs::write(dirs[0].join("new"), "2").expect("written");
        assert_eq!(fs::read_to_string(dirs[1].join("new")).expect("there"), "2");
        assert_eq!(dirs[1].join("below").exists(), !base.is_scratch());
        drop((one, two));
        let again = t.store.named(&spec).await.expect("taken");
        let source = again.mount_source().expect("mounts");
        assert_eq!(
            fs::read_to_string(source.directory().expect("a directory").0.join("new")).expect("there"),
            "2"
        );
    }
}

#[tokio::test]
async fn a_forgotten_kept_layer_makes_room_for_a_fresh_one() {
    let t = TestStore::new();
    let held = t.store.named(&spec("cache:a", Sharing::Shared)).await.expect("taken");
    let other = t.store.named(&spec("cache:ab", Sharing::Shared)).await.expect("taken").id().clone();
    t.store.forget_named(|key| key == "cache:a").expect("forgotten");
    let fresh = t.store.named(&spec("cache:a", Sharing::Shared)).await.expect("taken");
    assert!(fresh.is_fresh() && fresh.id() != held.id());
    drop(held);
    assert_eq!(t.store.named(&spec("cache:a", Sharing::Shared)).await.expect("taken").id(), fresh.id());
    assert_eq!(t.store.named(&spec("cache:ab", Sharing::Shared)).await.expect("taken").id(), &other);
}

#[tokio::test]
async fn kept_layers_survive_restarts_and_are_seen() {
    let t = TestStore::new();
    let named = t.store.named(&spec("s", Sharing::Shared)).await.expect("taken");
    write(named.dir(), "x", "kept");
    let id = named.id().clone();
    drop(named);
    let t = t.reopen();
    let named = t.store.named(&spec("s", Sharing::Locked)).await.expect("taken");
    assert_eq!((named.id(), named.is_fresh()), (&id, false));
    assert_eq!(fs::read_to_string(named.dir().join("x")).expect("there"), "kept");
    let records = t.store.disk_usage(&Default::default()).expect("listed");
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.mutable, record.in_use, record.record_type), (true, true, RecordType::ExecCacheMount));
    assert!(record.size > 0);
}

#[tokio::test]
async fn a_frozen_layer_is_not_changed_under_those_who_look_at_it() {
    let t = TestStore::new();
    let named = t.store.named(&spec("context", Sharing::Locked)).await.expect("taken");
    write(named.dir(), "f", "1");
    let first = named.id().clone();
    let frozen = named.freeze().expect("freezes");
    t.store.records().put(&RecordId::new("r"), &frozen, b"").expect("kept");
    let next = t.store.named(&spec("context", Sharing::Locked)).await.expect("taken");
    assert_ne!(next.id(), &first, "somebody looks at the first");
    drop(next);
    assert_eq!(text(&t.store, &frozen, "f").as_deref(), Some("1"));
    drop(frozen);

    let named = t.store.named(&spec("again", Sharing::Locked)).await.expect("taken");
    let id = named.id().clone();
    let frozen = named.freeze().expect("freezes");
    t.store.records().put(&RecordId::new("r2"), &frozen, b"").expect("kept");
    t.store.keys().add_record("k2", &RecordId::new("r2"), 1).expect("kept");
    drop(frozen);
    let named = t.store.named(&spec("again", Sharing::Locked)).await.expect("taken");
    assert_eq!(named.id(), &id, "nobody looks at it any more");
    assert!(!t.store.records().exists(&RecordId::new("r2")).expect("read"), "what it was is forgotten");
    assert!(!t.store.keys().exists("k2").expect("read"));
    assert!(t.store.records().exists(&RecordId::new("r")).expect("read"));
}

#[test]
fn a_layer_sees_the_root_of_the_topmost_layer_below() {
    let t = TestStore::new();
    let store = &t.store;
    let with_mode = |parent: &Ref, mode: u32| {
        let layer = store.new_layer(parent, LayerMeta::regular("step")).expect("makes");
        fs::set_permissions(layer.dir(), fs::Permissions::from_mode(mode)).expect("changes");
        layer.commit(CommitInfo::default()).expect("commits")
    };
    let scratch = store.new_layer(&Ref::scratch(), LayerMeta::regular("step")).expect("makes");
    assert!(scratch.lower_root().expect("looks").is_none());
    let below = with_mode(&with_mode(&Ref::scratch(), 0o700), 0o711);
    let layer = store.new_layer(&below, LayerMeta::regular("step")).expect("makes");
    let of_all = layer.lower().expect("opens").root().expect("looks").expect("is there").meta;
    let root = layer.lower_root().expect("looks").expect("is there").meta;
    assert_eq!((root.mode & 0o7777, root.mode), (0o711, of_all.mode));
}
