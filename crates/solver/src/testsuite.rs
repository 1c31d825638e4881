//! What every [`KeyStore`] has to do. Call [`key_store`] from a test of each implementation.

use crate::{Backlink, Digest, KeyId, KeyStore, Link, Record, RecordId};
use std::time::{Duration, SystemTime};

fn key(name: &str) -> KeyId {
    KeyId::new(name)
}

fn link(input: usize, op: &str) -> Link {
    Link { input, output: 0, digest: Digest::new(op), selector: None }
}

fn record(name: &str, second: u64) -> Record {
    Record { id: RecordId::new(name), created: SystemTime::UNIX_EPOCH + Duration::from_secs(second) }
}

/// Runs all checks; `make` gives a new empty store each time.
///
/// # Panics
/// When the store does not keep its promises.
pub fn key_store<S: KeyStore>(make: impl Fn() -> S) {
    results(&make());
    links(&make());
    backlinks(&make());
    release_takes_empty_branches_along(&make());
    release_spares_what_is_used(&make());
    many(&make());
}

fn results(store: &dyn KeyStore) {
    assert!(!store.exists(&key("a")).expect("exists"));
    assert_eq!(store.records(&key("a")).expect("records"), []);
    store.add_record(&key("a"), &record("r1", 1)).expect("add");
    store.add_record(&key("a"), &record("r2", 2)).expect("add");
    store.add_record(&key("b"), &record("r1", 1)).expect("add");
    assert!(store.exists(&key("a")).expect("exists"));
    let mut found = store.records(&key("a")).expect("records");
    found.sort_by(|one, two| one.id.cmp(&two.id));
    assert_eq!(found, [record("r1", 1), record("r2", 2)]);
    let mut keys = store.keys_of_record(&RecordId::new("r1")).expect("keys");
    keys.sort();
    assert_eq!(keys, [key("a"), key("b")]);
    // The same record again renews its time.
    store.add_record(&key("b"), &record("r1", 9)).expect("add");
    assert_eq!(store.records(&key("b")).expect("records"), [record("r1", 9)]);
    store.save(&[(key("c"), link(0, "op"), key("b"))], &key("b"), &record("r2", 3)).expect("save");
    assert_eq!(store.links(&key("c"), &link(0, "op")).expect("links"), [key("b")]);
    assert!(store.records(&key("b")).expect("records").contains(&record("r2", 3)));
    let mut all = store.all_records().expect("all");
    all.sort();
    assert_eq!(all, [RecordId::new("r1"), RecordId::new("r2")]);
}

fn links(store: &dyn KeyStore) {
    let selected = Link { selector: Some(Digest::new("sha256:sel")), ..link(0, "op") };
    let second = Link { output: 1, ..link(0, "op") };
    let all = [
        (key("a"), link(0, "op"), key("x")),
        (key("a"), link(0, "op"), key("y")),
        (key("a"), link(0, "op"), key("x")),
        (key("b"), link(1, "op"), key("x")),
        (key("a"), selected.clone(), key("z")),
        (key("a"), second.clone(), key("w")),
    ];
    store.add_links(&all).expect("add");
    let to = |from: &str, link: &Link| store.links(&key(from), link).expect("links");
    assert_eq!(to("a", &link(0, "op")), [key("x"), key("y")]);
    assert_eq!(to("a", &link(0, "op")), to("a", &link(0, "op")), "the order is stable");
    assert_eq!(to("b", &link(1, "op")), [key("x")]);
    assert_eq!(to("a", &selected), [key("z")]);
    assert_eq!(to("a", &second), [key("w")]);
    assert_eq!(to("a", &link(1, "op")), []);
    assert_eq!(to("a", &link(0, "other")), []);
    assert_eq!(to("nobody", &link(0, "op")), []);
    assert!(store.exists(&key("a")).expect("exists"), "a key with a link away exists");
    assert!(!store.exists(&key("x")).expect("exists"), "a key with links to it only does not");
}

fn backlinks(store: &dyn KeyStore) {
    store
        .add_links(&[(key("a"), link(0, "op"), key("x")), (key("b"), link(1, "op"), key("x"))])
        .expect("add");
    let mut found = store.backlinks(&key("x")).expect("backlinks");
    found.sort_by(|one, two| one.from.cmp(&two.from));
    let back = |from: &str, link| Backlink { from: key(from), link };
    assert_eq!(found, [back("a", link(0, "op")), back("b", link(1, "op"))]);
    assert_eq!(store.backlinks(&key("a")).expect("backlinks"), []);
}

fn release_takes_empty_branches_along(store: &dyn KeyStore) {
    store
        .add_links(&[(key("a"), link(0, "op1"), key("b")), (key("b"), link(0, "op2"), key("c"))])
        .expect("add");
    store.add_record(&key("c"), &record("r", 1)).expect("add");
    store.release(&RecordId::new("r")).expect("release");
    for name in ["a", "b", "c"] {
        assert!(!store.exists(&key(name)).expect("exists"), "{name} led to nothing else");
    }
    assert_eq!(store.links(&key("a"), &link(0, "op1")).expect("links"), []);
    assert_eq!(store.all_records().expect("all"), []);
    store.release(&RecordId::new("r")).expect("a second release is no error");
}

fn release_spares_what_is_used(store: &dyn KeyStore) {
    store
        .add_links(&[
            (key("a"), link(0, "op1"), key("b")),
            (key("a"), link(0, "op1"), key("d")),
            (key("b"), link(0, "op2"), key("c")),
        ])
        .expect("add");
    store.add_record(&key("b"), &record("rb", 1)).expect("add");
    store.add_record(&key("c"), &record("rc", 1)).expect("add");
    store.add_record(&key("d"), &record("rd", 1)).expect("add");
    store.release(&RecordId::new("rb")).expect("release");
    assert_eq!(store.links(&key("a"), &link(0, "op1")).expect("links"), [key("b"), key("d")], "b leads on");
    store.release(&RecordId::new("rc")).expect("release");
    assert_eq!(store.links(&key("a"), &link(0, "op1")).expect("links"), [key("d")]);
    assert_eq!(store.records(&key("d")).expect("records"), [record("rd", 1)]);
}

fn many(store: &dyn KeyStore) {
    let name = |index: usize| KeyId::new(format!("key{index:05}"));
    let count = 2_000;
    for index in 0..count {
        store.add_links(&[(name(index), link(0, "op"), name(index + 1))]).expect("add");
    }
    store.add_record(&name(count), &record("last", 1)).expect("add");
    for index in 0..count {
        assert_eq!(store.links(&name(index), &link(0, "op")).expect("links"), [name(index + 1)]);
    }
    // The whole chain leads to this record only; taking it apart must not recurse.
    store.release(&RecordId::new("last")).expect("release");
    assert!(!store.exists(&name(0)).expect("exists"));
}
