//! Killed at any moment, the store comes up whole: what is recorded has its data, what has a digest's name has its
//! bytes, and nothing is left that pruning would not see.

mod common;

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Memory, lazy, tar};
use kiln_layer::compress::CompressOptions;
use kiln_oci::{Compression, Digest};
use kiln_store::{
    BlobOptions, LayerState, NamedSpec, NoObserver, PruneOptions, RecordId, Ref, Sharing, Store, StoreOptions,
};

/// Set in the process that is going to be killed.
const VICTIM: &str = "KILN_STORE_CRASH_VICTIM";
const ROUNDS: u64 = 30;

#[test]
fn killed_at_any_moment_it_comes_up_whole() {
    if let Some(root) = std::env::var_os(VICTIM) {
        work_until_killed(Path::new(&root));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut seen = HashSet::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "killed_at_any_moment_it_comes_up_whole", "--nocapture"])
            .env(VICTIM, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        // Its first line comes when the store is open.
        let mut stdout = child.stdout.take().expect("piped");
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"open\n") && stdout.read(&mut byte).expect("readable") == 1 {
            text.push(byte[0]);
        }
        std::thread::sleep(Duration::from_micros(round * 7_919 % 60_000));
        child.kill().expect("runs");
        child.wait().expect("ends");
        seen.extend(check(dir.path()));
    }
    assert!(seen.len() > 20, "the victims have done something: {}", seen.len());
}

fn work_until_killed(root: &Path) -> ! {
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    runtime.block_on(async {
        let store = Store::open(root, StoreOptions::default()).expect("opens");
        println!("open");
        let tasks = (0..3).map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for step in 0u64.. {
                    work(&store, task, step).await;
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("never ends");
        }
    });
    unreachable!("killed before")
}

async fn work(store: &Store, task: u64, step: u64) {
    let unique = format!("{task}-{step}-{}", RecordId::random());
    let plain = tar(&[("d/", ""), ("d/file", &unique.repeat(2_000))]);
    let layer =
        store.lazy_layer(&Ref::scratch(), lazy(&plain, Memory::new(plain.clone()))).expect("recorded");
    let base = store.append(&Ref::scratch(), &layer).expect("recorded");
    store.ensure_unpacked(&base, &NoObserver).await.expect("unpacks");
    let made = common::layer(store, &base, &[("made", &unique)]);
    store.records().put(&RecordId::new(format!("r-{unique}")), &made, unique.as_bytes()).expect("kept");
    store.keys().add_record(&unique, &RecordId::new(format!("r-{unique}")), 1).expect("kept");
    let options =
        BlobOptions { compression: CompressOptions::new(Compression::Gzip), force: true, epoch: None };
    let (blob, _pin) =
        store.layer_blob(made.top().expect("one"), &options, &NoObserver).await.expect("archives");
    store.images().put(&format!("i-{task}"), &blob.descriptor).expect("named");
    let spec = NamedSpec {
        key: format!("cache-{task}"),
        base: Ref::scratch(),
        sharing: Sharing::Locked,
        meta: Default::default(),
    };
    let named = store.named(&spec).await.expect("taken");
    common::write(named.dir(), &format!("f{}", step % 10), &unique);
    drop((named, made, base, layer));
    if step % 5 == 4 {
        let store = store.clone();
        let options = PruneOptions { max_used_space: 200_000, all: true, ..PruneOptions::default() };
        let prune = move || store.prune(&options, &mut |_| {});
        tokio::task::spawn_blocking(prune).await.expect("runs").expect("prunes");
    }
}

/// Opens what a kill has left, checks it, and gives the names of the layers found.
fn check(root: &Path) -> Vec<String> {
    let store = Store::open(root, StoreOptions::default()).expect("comes up");
    let names = |dir: &str| -> HashSet<String> {
        std::fs::read_dir(root.join(dir))
            .expect("there")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
            .collect()
    };
    // No half blob under its digest's name, nothing half-written left.
    for hex in names("content/blobs/sha256") {
        let bytes = std::fs::read(root.join("content/blobs/sha256").join(&hex)).expect("there");
        assert_eq!(Digest::sha256_of(&bytes).hex(), hex);
    }
    for dir in ["ingest", "flat", "scratch", "mnt"] {
        assert!(names(dir).is_empty(), "{dir}");
    }
    // Every layer on record has its directory with all of its content, and there is no other directory.
    let usage = store.disk_usage(&Default::default()).expect("listed");
    let mut dirs = names("layers");
    for record in &usage {
        let layer = store.layer(&record.id).expect("read").expect("there");
        if layer.state() == LayerState::Lazy {
            continue;
        }
        assert!(dirs.remove(record.id.as_str()), "{record:?} has no directory");
        let dir = layer.dir().expect("not lazy");
        if record.description == "pulled" {
            assert!(std::fs::metadata(dir.join("d/file")).expect("there").len() > 50_000);
        }
        for blob in store.layer_blobs(&layer).expect("read").iter().filter(|blob| blob.local) {
            assert!(store.content().has(&blob.descriptor.digest), "{blob:?}");
        }
    }
    assert!(dirs.is_empty(), "not on record: {dirs:?}");
    // Every record has its layers, and says what they hold.
    for id in store.keys().all_records().expect("listed") {
        let record = store.records().get(&id).expect("read").expect("a key leads to it");
        assert_eq!(
            common::text(&store, &record.reference, "made").map(String::into_bytes),
            Some(record.payload.to_vec())
        );
        assert_eq!(record.reference.depth(), 2);
    }
    // Every image has its blob.
    for image in store.images().list().expect("readable") {
        assert!(store.content().has(&image.target.digest), "{image:?}");
    }
    usage.iter().map(|record| record.id.to_string()).collect()
}

/// After a power loss (told by another boot id) layers that were not synced go, with what needs them; the rest stays.
#[test]
fn after_a_power_loss_only_what_was_synced_is_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = || StoreOptions { sync_delay: Duration::from_secs(3_600), ..StoreOptions::default() };
    let store = Store::open(dir.path(), options()).expect("opens");
    let kept = common::layer(&store, &Ref::scratch(), &[("kept", "1")]);
    store.flush().expect("syncs");
    let lost = common::layer(&store, &kept, &[("lost", "2")]);
    for (name, reference) in [("kept", &kept), ("lost", &lost)] {
        store.records().put(&RecordId::new(name), reference, b"").expect("kept");
        store.keys().add_record(name, &RecordId::new(name), 1).expect("kept");
    }
    drop((kept, lost));
    // As the disk would look: copied while it runs, so that closing cannot tidy up.
    let copy = tempfile::tempdir().expect("a temporary directory");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(dir.path().join("."))
        .arg(copy.path())
        .status()
        .expect("cp is there");
    assert!(copied.success());
    let db = rusqlite::Connection::open(copy.path().join("kiln.db")).expect("opens");
    db.execute("UPDATE facts SET value = 'another' WHERE key = 'boot'", []).expect("written");
    drop(db);
    let after = Store::open(copy.path(), options()).expect("comes up");
    let record = |name: &str| after.records().get(&RecordId::new(name)).expect("read");
    assert!(record("kept").is_some() && record("lost").is_none());
    assert!(after.keys().exists("kept").expect("read") && !after.keys().exists("lost").expect("read"));
    assert_eq!(std::fs::read_dir(copy.path().join("layers")).expect("there").count(), 1);
}

#[test]
fn what_is_in_the_scratch_folder_does_not_outlast_a_process() {
    let t = common::TestStore::new();
    std::fs::write(
        t.store.scratch_dir().join("left"),
        "by a file system that cannot make files without a name",
    )
    .expect("written");
    let t = t.reopen();
    assert_eq!(std::fs::read_dir(t.store.scratch_dir()).expect("there").count(), 0);
}
