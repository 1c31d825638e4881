//! What takes how much, and what goes when.

mod common;

use std::time::Duration;

use common::{TestStore, layer};
use kiln_layer::compress::CompressOptions;
use kiln_oci::{Compression, Descriptor, Manifest, media_type};
use kiln_store::{
    BlobOptions, HistoryEntry, KeyLink, LayerMeta, NoObserver, PruneOptions, RecordId, RecordType, Ref, Store,
};

fn prune(store: &Store, options: &PruneOptions) -> Vec<String> {
    let mut removed = Vec::new();
    store.prune(options, &mut |record| removed.push(record.description)).expect("prunes");
    removed
}

fn named(store: &Store, parent: &Ref, name: &str, kind: RecordType) -> Ref {
    let meta = LayerMeta { record_type: kind, ..LayerMeta::regular(name) };
    let new = store.new_layer(parent, meta).expect("begins");
    std::fs::write(new.dir().join(name), vec![b'x'; 100_000]).expect("written");
    new.commit(Default::default()).expect("commits")
}

fn all() -> PruneOptions {
    PruneOptions { all: true, ..PruneOptions::default() }
}

#[test]
fn what_is_used_or_built_upon_stays() {
    let t = TestStore::new();
    let a = named(&t.store, &Ref::scratch(), "a", RecordType::Regular);
    let ab = named(&t.store, &a, "ab", RecordType::Regular);
    let other = named(&t.store, &Ref::scratch(), "other", RecordType::Regular);
    let records = t.store.disk_usage(&Default::default()).expect("listed");
    assert!(records.iter().all(|record| record.in_use && record.size >= 100_000), "{records:?}");
    assert_eq!(records[1].parents, [a.top().expect("one").id().clone()]);
    assert!(prune(&t.store, &all()).is_empty(), "all in use");
    drop((a, other));
    assert_eq!(prune(&t.store, &all()), ["other"], "`a` is below `ab`");
    drop(ab);
    assert_eq!(prune(&t.store, &all()), ["ab", "a"], "what is built upon goes last");
    assert_eq!(std::fs::read_dir(t.dir.path().join("layers")).expect("there").count(), 0);
}

#[test]
fn what_several_lists_share_stays_until_the_last_of_them_goes() {
    let t = TestStore::new();
    let a = named(&t.store, &Ref::scratch(), "a", RecordType::Regular);
    let b = named(&t.store, &Ref::scratch(), "b", RecordType::Regular);
    let both = t.store.merge(&[a.clone(), b.clone()]).expect("merges");
    let reversed = t.store.merge(&[b.clone(), a.clone()]).expect("merges");
    for (list, name) in [(&both, "c"), (&both, "d"), (&reversed, "e")] {
        drop(named(&t.store, list, name, RecordType::Regular));
    }
    drop((a, b, both, reversed));
    let go = |name: &str| {
        prune(&t.store, &PruneOptions { filters: vec![format!("description=={name}")], ..all() })
    };
    for (name, goes) in [
        ("a", false),
        ("b", false),
        ("c", true),
        ("a", false),
        ("e", true),
        ("b", false),
        ("d", true),
        ("b", true),
    ] {
        assert_eq!(go(name), if goes { vec![name] } else { vec![] }, "{name}");
    }
    assert_eq!(prune(&t.store, &all()), ["a"]);
}

#[test]
fn records_and_keys_go_with_their_layers() {
    let t = TestStore::new();
    let a = named(&t.store, &Ref::scratch(), "a", RecordType::Regular);
    let b = named(&t.store, &Ref::scratch(), "b", RecordType::Regular);
    let merged = t.store.merge(&[a.clone(), b.clone()]).expect("merges");
    let link = |digest: &str| KeyLink { input: 0, output: 0, digest: digest.into(), selector: None };
    let keys = t.store.keys();
    for (name, reference, key) in [("r-a", &a, "k-a"), ("r-m", &merged, "k-m")] {
        t.store.records().put(&RecordId::new(name), reference, b"").expect("kept");
        keys.add_links(&[("root".into(), link(key), key.into())]).expect("kept");
        keys.add_record(key, &RecordId::new(name), 1).expect("kept");
    }
    t.store.records().put(&RecordId::new("scratch"), &Ref::scratch(), b"s").expect("kept");
    keys.add_record("nowhere", &RecordId::new("unknown"), 1).expect("left out");
    assert!(!keys.exists("nowhere").expect("read"));
    let only_b = PruneOptions { filters: vec!["description==b".into()], ..all() };
    drop((b, merged));
    assert_eq!(prune(&t.store, &only_b), ["b"]);
    assert!(t.store.records().get(&RecordId::new("r-m")).expect("read").is_none());
    assert!(keys.links("root", &link("k-m")).expect("read").is_empty(), "leads nowhere any more");
    assert_eq!(keys.links("root", &link("k-a")).expect("read"), ["k-a"]);
    assert_eq!(keys.backlinks("k-a").expect("read"), [("root".to_owned(), link("k-a"))]);
    drop(a);
    prune(&t.store, &all());
    assert!(!keys.exists("root").expect("read"), "upwards too");
    assert!(keys.all_records().expect("read").is_empty());
    assert!(t.store.records().exists(&RecordId::new("scratch")).expect("read"));
}

#[test]
fn filters_kinds_and_ages_are_kept_to() {
    let t = TestStore::new();
    for (name, kind) in [
        ("regular", RecordType::Regular),
        ("frontend", RecordType::Frontend),
        ("internal", RecordType::Internal),
        ("cache", RecordType::ExecCacheMount),
    ] {
        named(&t.store, &Ref::scratch(), name, kind);
    }
    let young = PruneOptions { keep_duration: Duration::from_secs(60), ..all() };
    assert!(prune(&t.store, &young).is_empty());
    let filtered = PruneOptions { filters: vec!["type==exec.cachemount".into()], ..PruneOptions::default() };
    assert_eq!(prune(&t.store, &filtered), ["cache"]);
    assert_eq!(prune(&t.store, &PruneOptions::default()), ["regular"]);
    assert_eq!(prune(&t.store, &all()), ["internal", "frontend"]);
    let nonsense = PruneOptions { filters: vec!["id=x".into()], ..all() };
    assert!(t.store.prune(&nonsense, &mut |_| {}).is_err());
}

#[test]
fn bounds_remove_the_least_used_first_and_no_more_than_needed() {
    let t = TestStore::new();
    for name in ["a", "b", "c", "d"] {
        let made = named(&t.store, &Ref::scratch(), name, RecordType::Regular);
        std::thread::sleep(Duration::from_millis(5));
        if name == "a" {
            // Used again and again.
            for _ in 0..5 {
                made.top().expect("one").touch();
            }
        }
    }
    let size: i64 =
        t.store.disk_usage(&Default::default()).expect("listed").iter().map(|record| record.size).sum();
    let bound = |max_used_space| PruneOptions { max_used_space, ..all() };
    assert!(prune(&t.store, &bound(size + 1)).is_empty());
    assert_eq!(prune(&t.store, &bound(size / 2 + 1_000)), ["b", "c"]);
    let reserved = PruneOptions { reserved_space: size, ..bound(1) };
    assert!(prune(&t.store, &reserved).is_empty());
    let free = PruneOptions { min_free_space: 1, ..all() };
    assert!(prune(&t.store, &free).is_empty(), "enough is free");
    let never_enough = PruneOptions { min_free_space: i64::MAX / 2, ..all() };
    assert_eq!(prune(&t.store, &never_enough).len(), 2);
}

#[tokio::test]
async fn blobs_stay_as_long_as_something_refers_to_them() {
    let t = TestStore::new();
    let content = t.store.content();
    let made = layer(&t.store, &Ref::scratch(), &[("a", "1")]);
    let options =
        BlobOptions { compression: CompressOptions::new(Compression::Gzip), force: true, epoch: None };
    let (blob, pin) =
        t.store.layer_blob(made.top().expect("one"), &options, &NoObserver).await.expect("archives");
    let config = content.put(b"{}").expect("put");
    let manifest = Manifest::new(
        media_type::OCI_MANIFEST,
        config.descriptor(media_type::OCI_CONFIG),
        vec![blob.descriptor.clone()],
    );
    let bytes = serde_json::to_vec(&manifest).expect("json");
    let manifest = content.put(&bytes).expect("put").descriptor(media_type::OCI_MANIFEST);
    let (stray, held, logged) = (
        content.put(b"stray").expect("put"),
        content.put(b"held").expect("put"),
        content.put(b"log").expect("put"),
    );
    let [stray, logged] = [stray, logged].map(|blob| blob.digest().clone());
    let entry =
        HistoryEntry { id: "h".into(), created_ms: 1, completed_ms: None, pinned: false, payload: vec![1] };
    t.store.history().put(&entry, std::slice::from_ref(&logged)).expect("kept");
    t.store.images().put("docker.io/library/x:latest", &manifest).expect("named");
    t.store.images().tag("docker.io/library/x:latest", "docker.io/library/y:1").expect("named");
    drop((made, pin, config));
    let record = &t.store.disk_usage(&Default::default()).expect("listed")[0];
    assert!(record.shared);
    assert!(prune(&t.store, &PruneOptions::default()).is_empty(), "an image has it");
    assert_eq!(prune(&t.store, &all()).len(), 1);
    let there = |descriptor: &Descriptor| content.has(&descriptor.digest);
    assert!(
        there(&manifest) && there(&blob.descriptor) && content.has(held.digest()) && content.has(&logged)
    );
    assert!(!content.has(&stray));
    t.store.images().remove("docker.io/library/x:latest").expect("there");
    t.store.history().remove("h").expect("there");
    drop(held);
    prune(&t.store, &all());
    assert!(there(&manifest) && !content.has(&logged), "the other name still has it");
    t.store.images().remove("docker.io/library/y:1").expect("there");
    prune(&t.store, &all());
    assert_eq!(std::fs::read_dir(t.dir.path().join("content/blobs/sha256")).expect("there").count(), 0);
    assert!(t.store.images().remove("docker.io/library/y:1").expect_err("gone").is_not_found());
}
