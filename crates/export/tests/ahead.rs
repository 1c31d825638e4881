//! Archives whose layers go into the client's file while they are compressed: the same bytes as those that are written one after the other.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use kiln_export::Reporter;
use kiln_export::provenance::{BuildFacts, Capture, Provenance, ProvenanceOptions, Request};
use kiln_export::source::Source;
use kiln_solver::{Digest, Event, ProgressSink};
use kiln_store::Ref;
use support::{Receives, World, multi, single, world};

/// So large that its blob goes past the page cache from its middle on.
const LARGE_BYTES: usize = 12 << 20;

/// Where that does not matter.
const MEDIUM_BYTES: usize = 1 << 20;

/// Looks how long the client's file is when the first manifest is made: by then only what went ahead is in it.
struct Watch {
    out: PathBuf,
    bytes: OnceLock<u64>,
}

impl ProgressSink for Watch {
    fn event(&self, event: Event) {
        if let Event::Status { status, .. } = event
            && status.id.starts_with("exporting manifest sha256:")
        {
            self.bytes.get_or_init(|| std::fs::metadata(&self.out).map_or(0, |meta| meta.len()));
        }
    }
}

/// Text of 64 letters at random, which a quarter of it can be saved of.
fn text(seed: u64, len: usize) -> String {
    let mut state = seed;
    let words = (0..len / 8).flat_map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_le_bytes().map(|byte| b' ' + byte % 64)
    });
    String::from_utf8(words.collect()).unwrap()
}

/// Small upon medium upon small.
fn three(world: &World) -> Ref {
    let one = world.layer(&Ref::scratch(), "one", &[("etc/os", "kiln\n")]);
    let medium = text(1, MEDIUM_BYTES);
    let two = world.layer(&one, "two", &[("medium", &medium), ("small", "x")]);
    world.layer(&two, "three", &[("top", "y")])
}

/// A layer with a text of that length.
fn long(world: &World, seed: u64, len: usize) -> Ref {
    world.layer(&Ref::scratch(), "long", &[("long", &text(seed, len))])
}

/// An archive, and how much of it was there before the image's manifest was made.
struct Export {
    archive: Vec<u8>,
    ahead: u64,
}

/// Exports what `make` makes, of which the layers that it names are compressed already.
async fn export(
    receives: Receives,
    kind: &str,
    attrs: &[(&str, &str)],
    make: impl Fn(&World) -> (Source<Ref>, Vec<Ref>),
) -> Export {
    let mut world = world(receives).await;
    let watch = Arc::new(Watch { out: world.out(), bytes: OnceLock::new() });
    let (source, known) = make(&world);
    for reference in known {
        world.export("image", &single(&reference), attrs).await.unwrap();
    }
    world.build.reporter = Reporter::new(watch.clone(), Digest::of(b"exporter"));
    world.export(kind, &source, attrs).await.unwrap();
    Export { archive: std::fs::read(world.out()).unwrap(), ahead: *watch.bytes.get().unwrap() }
}

/// Exports it both ways and compares; gives how much went ahead.
async fn both_ways(
    kind: &str,
    attrs: &[(&str, &str)],
    make: impl Fn(&World) -> (Source<Ref>, Vec<Ref>),
) -> u64 {
    let epoch = [("source-date-epoch", "1700000000"), ("rewrite-timestamp", "true")];
    let attrs: Vec<_> = attrs.iter().chain(&epoch).copied().collect();
    let given = export(Receives::Handle, kind, &attrs, &make).await;
    let sent = export(Receives::File, kind, &attrs, &make).await;
    assert_eq!(sent.ahead, 0, "nothing is sent before the image is made");
    assert!(given.archive == sent.archive, "{kind} {attrs:?}");
    given.ahead
}

#[tokio::test]
async fn archives_are_the_same_both_ways() {
    for (compression, kind) in [("zstd", "oci"), ("gzip", "docker"), ("uncompressed", "oci")] {
        let attrs = [("compression", compression), ("name", "a:b")];
        let ahead = both_ways(kind, &attrs, |world| (single(&long(world, 2, LARGE_BYTES)), vec![])).await;
        assert!(ahead > LARGE_BYTES as u64 / 2, "{compression}: {ahead} bytes went ahead");
        let ahead = both_ways(kind, &attrs, |world| (single(&three(world)), vec![])).await;
        assert!(ahead > 0, "the lowest one went ahead");
    }
    let nothing = both_ways("oci", &[], |_| (single(&Ref::scratch()), vec![])).await;
    assert_eq!(nothing, 0);
}

#[tokio::test]
async fn what_is_compressed_already_stands_before_it() {
    let attrs = [("compression", "zstd")];
    let upon = |world: &World| {
        let lower = three(world);
        let upper = world.layer(&lower, "upper", &[("upper", &text(3, MEDIUM_BYTES))]);
        (lower, upper)
    };
    let some = both_ways("oci", &attrs, |world| {
        let (lower, upper) = upon(world);
        (single(&upper), vec![lower])
    });
    assert!(some.await > MEDIUM_BYTES as u64, "the lower layers and the upper one");
    let all = both_ways("oci", &attrs, |world| {
        let (_, upper) = upon(world);
        (single(&upper), vec![upper])
    });
    assert_eq!(all.await, 0, "nothing is to be made");
}

#[tokio::test]
async fn a_blob_is_in_it_once() {
    // The second platform's layer has the first one's bytes, which shows only when it is made. Where it was expected others stand.
    let again = |world: &World| (long(world, 4, MEDIUM_BYTES), long(world, 4, MEDIUM_BYTES));
    let attrs = [("compression", "zstd")];
    let both = both_ways("oci", &attrs, |world| {
        let (amd, arm) = again(world);
        (multi(&[("amd64", &amd), ("arm64", &arm)]), vec![])
    });
    assert!(both.await > 0);
    let second = both_ways("oci", &attrs, |world| {
        let (amd, arm) = again(world);
        (multi(&[("amd64", &amd), ("arm64", &arm)]), vec![amd])
    });
    assert!(second.await > MEDIUM_BYTES as u64, "it went ahead in vain");
}

#[tokio::test]
async fn images_with_attestations() {
    let attrs = [("compression", "zstd"), ("name", "a")];
    let ahead = both_ways("oci", &attrs, |world| {
        let mut source = multi(&[("amd64", &three(world)), ("arm64", &long(world, 5, MEDIUM_BYTES))]);
        let options = ProvenanceOptions::parse(&BTreeMap::new()).unwrap();
        let provenance =
            Provenance::new(options.clone(), &Request::default(), Capture::new(), BuildFacts::default());
        source.add_provenance("linux/arm64", &options, Arc::new(provenance.unwrap()));
        (source, vec![])
    });
    assert!(ahead.await > 0);
}
