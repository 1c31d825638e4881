//! Lazy layers: fetching, checking, unpacking; archives of layers.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Memory, TestStore, is_root, layer, lazy, tar, text};
use kiln_layer::compress::CompressOptions;
use kiln_oci::{Compression, Digest};
use kiln_store::{Blob, BlobOptions, BlobSink, Error, LayerState, NoObserver, Ref};

#[tokio::test]
async fn layers_are_fetched_once_and_all_at_once() {
    let t = TestStore::new();
    let plain: Vec<Vec<u8>> = (0..6)
        .map(|number| tar(&[("d/", ""), (&format!("d/{number}"), "x"), ("same", &number.to_string())]))
        .collect();
    let providers: Vec<Arc<Memory>> = plain.iter().map(|bytes| Memory::new(bytes.clone())).collect();
    let mut image = Ref::scratch();
    for (plain, provider) in plain.iter().zip(&providers) {
        let layer = t.store.lazy_layer(&image, lazy(plain, Arc::clone(provider))).expect("recorded");
        assert_eq!(layer.state(), LayerState::Lazy);
        image = t.store.append(&image, &layer).expect("recorded");
    }
    assert!(matches!(t.store.union(&image), Err(Error::NotUnpacked(_))));
    let all = (0..4).map(|_| t.store.ensure_unpacked(&image, &NoObserver));
    futures::future::try_join_all(all).await.expect("unpacks");
    assert!(providers.iter().all(|provider| provider.opened() == 1));
    assert_eq!(text(&t.store, &image, "same").as_deref(), Some("5"));
    assert_eq!(text(&t.store, &image, "d/0").as_deref(), Some("x"));
    let blob = t.store.content().read(&Digest::sha256_of(&plain[0]), 1 << 20).expect("kept");
    assert_eq!(&blob[..], &plain[0][..]);

    // The same layer on top of something else, after a restart: nothing to fetch.
    drop(image);
    let t = t.reopen();
    let other = layer(&t.store, &Ref::scratch(), &[("z", "")]);
    let provider = Memory::new(plain[3].clone());
    let again = t.store.lazy_layer(&other, lazy(&plain[3], Arc::clone(&provider))).expect("found");
    assert_eq!((again.state(), provider.opened()), (LayerState::Ready, 0));
}

#[tokio::test]
async fn broken_connections_are_mended() {
    let t = TestStore::new();
    let plain = tar(&[("a", &"text ".repeat(100_000))]);
    let provider = Memory::breaking(plain.clone(), 300_000);
    let layer = t.store.lazy_layer(&Ref::scratch(), lazy(&plain, Arc::clone(&provider))).expect("recorded");
    let image = t.store.append(&Ref::scratch(), &layer).expect("recorded");
    t.store.ensure_unpacked(&image, &NoObserver).await.expect("gets there");
    assert_eq!(provider.opened(), plain.len().div_ceil(300_000));

    let dead = Memory::breaking(plain[..plain.len() - 512].to_vec(), 0);
    let mut broken = lazy(&plain, Arc::clone(&dead));
    broken.diff_id = Digest::sha256_of(b"another");
    broken.descriptor.digest = Digest::sha256_of(b"another");
    let layer = t.store.lazy_layer(&Ref::scratch(), broken).expect("recorded");
    let image = t.store.append(&Ref::scratch(), &layer).expect("recorded");
    let error = t.store.ensure_unpacked(&image, &NoObserver).await.expect_err("never gets there");
    assert!(matches!(error, Error::Fetch { .. }), "{error}");
    assert_eq!(dead.opened(), 4);
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_leave_nothing() {
    let t = TestStore::new();
    let plain = tar(&[("a", "good")]);
    let evil = tar(&[("a", "evil")]);
    for (what, layer) in [
        ("other bytes", {
            let mut layer = lazy(&plain, Memory::new(evil.clone()));
            layer.descriptor.digest = Digest::sha256_of(&plain);
            layer
        }),
        ("another diff id", {
            let mut layer = lazy(&plain, Memory::new(plain.clone()));
            layer.diff_id = Digest::sha256_of(b"other");
            layer
        }),
        ("climbing out", {
            let bytes = tar(&[("../../x", "")]);
            lazy(&bytes, Memory::new(bytes.clone()))
        }),
    ] {
        let handle = t.store.lazy_layer(&Ref::scratch(), layer.clone()).expect("recorded");
        let image = t.store.append(&Ref::scratch(), &handle).expect("recorded");
        t.store.ensure_unpacked(&image, &NoObserver).await.expect_err(what);
        assert!(handle.is_lazy() && !t.store.content().has(&layer.descriptor.digest), "{what}");
        assert!(!t.store.content().has(&Digest::sha256_of(&evil)), "{what}");
    }
    let count = |dir: &str| std::fs::read_dir(t.dir.path().join(dir)).expect("there").count();
    assert_eq!((count("layers"), count("ingest"), count("content/blobs/sha256")), (0, 0, 0));
}

#[tokio::test]
async fn without_a_provider_the_error_names_the_blob() {
    let t = TestStore::new();
    let plain = tar(&[("a", "")]);
    let layer =
        t.store.lazy_layer(&Ref::scratch(), lazy(&plain, Memory::new(plain.clone()))).expect("recorded");
    let image = t.store.append(&Ref::scratch(), &layer).expect("recorded").id().expect("has one");
    drop(layer);
    let t = t.reopen();
    let image = t.store.get_ref(image).expect("read").expect("there");
    let error = t.store.ensure_unpacked(&image, &NoObserver).await.expect_err("from whom");
    assert_eq!(error.to_string(), format!("missing provider for lazy layer {}", Digest::sha256_of(&plain)));
    image.top().expect("one").attach_provider(Memory::new(plain.clone()));
    t.store.ensure_unpacked(&image, &NoObserver).await.expect("now there is one");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_next_one_a_clean_start() {
    let t = TestStore::new();
    let plain = tar(&[("a", &"x".repeat(3_000_000))]);
    let layer =
        t.store.lazy_layer(&Ref::scratch(), lazy(&plain, Memory::new(plain.clone()))).expect("recorded");
    let image = t.store.append(&Ref::scratch(), &layer).expect("recorded");
    for micros in [0, 50, 200, 1_000, 3_000] {
        let work = t.store.ensure_unpacked(&image, &NoObserver);
        let _ = tokio::time::timeout(Duration::from_micros(micros), work).await;
    }
    t.store.ensure_unpacked(&image, &NoObserver).await.expect("unpacks");
    assert_eq!(text(&t.store, &image, "a").map(|text| text.len()), Some(3_000_000));
}

#[tokio::test]
async fn what_leans_on_lower_layers_waits_for_them() {
    if !is_root() {
        return;
    }
    let t = TestStore::new();
    let mut low = kiln_layer::tar::Writer::new(Vec::new());
    let dir = kiln_layer::tar::Entry::new(kiln_layer::tar::EntryKind::Dir, "opt");
    low.start(&kiln_layer::tar::Entry { mode: 0o700, uid: 5, ..dir }).expect("memory");
    let low = low.finish().expect("memory");
    let high = tar(&[("opt/new", "n")]);
    let base = t.store.lazy_layer(&Ref::scratch(), lazy(&low, Memory::new(low.clone()))).expect("recorded");
    let base = t.store.append(&Ref::scratch(), &base).expect("recorded");
    let top = t.store.lazy_layer(&base, lazy(&high, Memory::new(high.clone()))).expect("recorded");
    // On its own, without what it was made on top of: that is fetched all the same.
    let alone = t.store.append(&Ref::scratch(), &top).expect("recorded");
    t.store.ensure_unpacked(&alone, &NoObserver).await.expect("unpacks");
    let node = t.store.union(&alone).expect("ready").lookup("opt").expect("read").expect("there");
    assert_eq!((node.meta.mode, node.meta.uid), (0o700, 5));
    // On top of something else it is another layer.
    let other = layer(&t.store, &Ref::scratch(), &[("opt/x", "")]);
    let again = t.store.lazy_layer(&other, lazy(&high, Memory::new(high.clone()))).expect("recorded");
    assert!(again.is_lazy());
}

fn options(kind: Compression) -> BlobOptions {
    BlobOptions { compression: CompressOptions::new(kind), force: true, epoch: None }
}

#[tokio::test]
async fn archives_are_made_once_and_converted_without_changing_what_is_in_them() {
    let t = TestStore::new();
    let made = layer(&t.store, &Ref::scratch(), &[("a", &"text ".repeat(1_000_000))]);
    let top = made.top().expect("one");
    assert_eq!(top.diff_id(), None);
    let gzip = options(Compression::Gzip);
    let twice = futures::future::try_join_all((0..2).map(|_| t.store.layer_blob(top, &gzip, &NoObserver)));
    let twice = twice.await.expect("archives");
    assert_eq!(twice[0].0, twice[1].0);
    let (first, pin) = &twice[0];
    assert_eq!((pin.digest(), top.diff_id().as_ref()), (&first.descriptor.digest, Some(&first.diff_id)));
    let (zstd, _) =
        t.store.layer_blob(top, &options(Compression::Zstd), &NoObserver).await.expect("converts");
    let (plain, _) =
        t.store.layer_blob(top, &options(Compression::Uncompressed), &NoObserver).await.expect("converts");
    assert_eq!(
        (&zstd.diff_id, &plain.diff_id, &plain.descriptor.digest),
        (&first.diff_id, &first.diff_id, &first.diff_id)
    );
    assert!(zstd.descriptor.media_type.ends_with("zstd"));
    let any = BlobOptions { force: false, ..options(Compression::Gzip) };
    assert_eq!(&t.store.known_blob(top, &any).expect("read").expect("known"), first);
    // One that was lost is made again.
    std::fs::remove_file(t.store.content().path(&first.descriptor.digest)).expect("there");
    let (again, _) = t.store.layer_blob(top, &gzip, &NoObserver).await.expect("archives");
    assert_eq!(&again, first);
}

/// What came, and the digest that it was said to have.
#[derive(Clone, Default)]
struct Beside(Arc<Mutex<(Vec<u8>, Option<Digest>)>>);

impl BlobSink for Beside {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().expect("not poisoned").0.extend_from_slice(bytes);
    }

    fn finish(self: Box<Self>, blob: &Blob) {
        self.0.lock().expect("not poisoned").1 = Some(blob.digest().clone());
    }
}

#[tokio::test]
async fn archives_go_elsewhere_too_while_they_are_made() {
    let t = TestStore::new();
    let made = layer(&t.store, &Ref::scratch(), &[("a", &"text ".repeat(1_000_000))]);
    let top = made.top().expect("one");
    let blob = async |kind, beside: &Beside| {
        let sink = Some(Box::new(beside.clone()) as Box<dyn BlobSink>);
        t.store.layer_blob_beside(top, &options(kind), &NoObserver, sink).await.expect("archives").0
    };
    // The first one from the layer, the others from the first one.
    for kind in [Compression::Zstd, Compression::Gzip, Compression::Uncompressed] {
        let beside = Beside::default();
        let digest = blob(kind, &beside).await.descriptor.digest;
        let (bytes, said) = std::mem::take(&mut *beside.0.lock().expect("not poisoned"));
        assert_eq!((Digest::sha256_of(&bytes), said), (digest.clone(), Some(digest)));

        blob(kind, &beside).await;
        assert_eq!(*beside.0.lock().expect("not poisoned"), (vec![], None), "it was there already");
    }
}

#[tokio::test]
async fn times_can_be_cut_to_an_epoch() {
    let t = TestStore::new();
    let mut digests = Vec::new();
    for _ in 0..2 {
        let made = layer(&t.store, &Ref::scratch(), &[("a", "text")]);
        let options = BlobOptions { epoch: Some(1_000), ..options(Compression::Gzip) };
        let (blob, _) =
            t.store.layer_blob(made.top().expect("one"), &options, &NoObserver).await.expect("archives");
        assert_eq!(blob.epoch, Some(1_000));
        digests.push(blob.descriptor.digest);
        std::thread::sleep(Duration::from_millis(1_100));
    }
    assert_eq!(digests[0], digests[1], "made at different times");
}

#[tokio::test]
async fn a_pulled_archive_is_given_out_as_it_came() {
    let t = TestStore::new();
    let plain = tar(&[("a", "")]);
    let provider = Memory::new(plain.clone());
    let layer = t.store.lazy_layer(&Ref::scratch(), lazy(&plain, Arc::clone(&provider))).expect("recorded");
    let any = BlobOptions::default();
    let known = t.store.known_blob(&layer, &any).expect("read").expect("known");
    assert!(!known.local && provider.opened() == 0);
    let (blob, _) = t.store.layer_blob(&layer, &any, &NoObserver).await.expect("fetched");
    assert_eq!((blob.descriptor.digest, blob.local), (Digest::sha256_of(&plain), true));
    assert!(layer.is_lazy(), "not unpacked for that");
    let (gzip, _) =
        t.store.layer_blob(&layer, &options(Compression::Gzip), &NoObserver).await.expect("converted");
    assert_eq!((gzip.compression, gzip.diff_id), (Compression::Gzip, Digest::sha256_of(&plain)));
    assert_eq!(provider.opened(), 1);
}
