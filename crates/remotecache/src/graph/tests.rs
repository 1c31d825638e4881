use std::collections::BTreeMap;

use kiln_oci::{Descriptor, Digest, Timestamp, annotations, gojson, media_type};
use proptest::prelude::*;

use super::*;
use crate::CacheError;
use crate::document::CacheConfig;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix(seconds).unwrap()
}

fn blob(name: &str) -> Descriptor {
    Descriptor::of(media_type::DOCKER_LAYER_GZIP, name.as_bytes())
        .with_annotation(annotations::UNCOMPRESSED, Digest::sha256_of(format!("{name}'")).to_string())
}

fn way(record: usize, selector: &str) -> GraphInput {
    GraphInput { record, selector: selector.to_owned() }
}

/// Two sources, a step on one of them, and a copy from both.
fn sample(reverse: bool) -> CacheGraph {
    let mut builder = GraphBuilder::new();
    let (image, context) = if reverse {
        let context = builder.add_record("sha256:context", &[]);
        (builder.add_record("sha256:image", &[]), context)
    } else {
        (builder.add_record("sha256:image", &[]), builder.add_record("sha256:context", &[]))
    };
    let run = builder.add_record("sha256:run", &[vec![way(image, "")]]);
    let copy = builder.add_record("sha256:copy", &[vec![way(run, "")], vec![way(context, "sha256:sel")]]);
    builder.add_result(copy, at(20), &[blob("base"), blob("run"), blob("copy")]);
    builder.add_result(run, at(10), &[blob("base"), blob("run")]);
    builder.finish()
}

#[test]
fn writes_what_others_read() {
    let (config, blobs) = marshal(&sample(false));
    let text = String::from_utf8(gojson::to_vec(&config).unwrap()).unwrap();
    let mut names: Vec<_> = ["base", "run", "copy"].map(|name| (blob(name).digest, name)).to_vec();
    names.sort();
    let place = |name: &str| names.iter().position(|(_, other)| *other == name).unwrap();
    let layers: Vec<String> = names
        .iter()
        .map(|(digest, name)| {
            let parent = match *name {
                "base" => -1,
                "run" => place("base") as i64,
                _ => place("run") as i64,
            };
            let parent = if parent == 0 { String::new() } else { format!(r#","parent":{parent}"#) };
            format!(r#"{{"blob":"{digest}"{parent}}}"#)
        })
        .collect();
    assert_eq!(
        text,
        format!(
            concat!(
                r#"{{"layers":[{}],"records":[{{"digest":"sha256:context"}},"#,
                r#"{{"layers":[{{"layer":{},"createdAt":"1970-01-01T00:00:20Z"}}],"digest":"sha256:copy","#,
                r#""inputs":[[{{"link":3}}],[{{"selector":"sha256:sel","link":0}}]]}},{{"digest":"sha256:image"}},"#,
                r#"{{"layers":[{{"layer":{},"createdAt":"1970-01-01T00:00:10Z"}}],"digest":"sha256:run","inputs":[[{{"link":2}}]]}}]}}"#
            ),
            layers.join(","),
            place("copy"),
            place("run"),
        )
    );
    assert_eq!(blobs.len(), 3);
    assert!(blobs.values().all(|blob| blob.media_type == media_type::OCI_LAYER_GZIP));
    // The order in which things were told does not matter.
    assert_eq!(marshal(&sample(true)), (config, blobs));
}

#[test]
fn reads_what_it_wrote() {
    let (config, mut blobs) = marshal(&sample(false));
    let graph = parse(&config, &blobs).unwrap();
    assert_eq!(marshal(&graph), (config.clone(), blobs.clone()));
    let copy = graph.records.iter().find(|record| record.digest == "sha256:copy").unwrap();
    let digests: Vec<_> =
        graph.blobs(&copy.results[0].layers).into_iter().map(|blob| blob.digest.clone()).collect();
    assert_eq!(digests, ["base", "run", "copy"].map(|name| blob(name).digest));
    // Without a blob no result that needs it.
    blobs.remove(&blob("run").digest);
    let graph = parse(&config, &blobs).unwrap();
    assert!(graph.records.iter().all(|record| record.results.is_empty()));
    assert_eq!(graph.records.len(), 4);
}

#[test]
fn tells_the_same_thing_once() {
    let mut builder = GraphBuilder::new();
    let image = builder.add_record("i", &[]);
    let content = builder.add_record("c", &[]);
    let first = builder.add_record("run", &[vec![way(image, "")]]);
    // Known by content as well.
    assert_eq!(builder.add_record("run", &[vec![way(image, ""), way(content, "")]]), first);
    assert_eq!(builder.add_record("run", &[vec![way(content, "")]]), first);
    assert_ne!(builder.add_record("run", &[vec![way(image, "sel")]]), first);
    assert_ne!(builder.add_record("run", &[vec![way(image, "")], vec![way(image, "")]]), first);
    // What depends on a record cannot become its input.
    let above = builder.add_record("above", &[vec![way(first, "")]]);
    assert_eq!(builder.add_record("run", &[vec![way(image, ""), way(above, "")]]), first);
    let graph = builder.finish();
    assert_eq!(graph.records[first].inputs, [[way(image, ""), way(content, "")].to_vec()]);
    let (config, blobs) = marshal(&graph);
    parse(&config, &blobs).unwrap();
}

#[test]
fn keeps_the_best_result() {
    let mut builder = GraphBuilder::new();
    let root = builder.add_record("i", &[]);
    for (created, name) in [(1, "old"), (3, "new"), (2, "middle"), (3, "new")] {
        builder.add_result(root, at(created), &[blob(name)]);
    }
    builder.add_result(root, at(9), &[]);
    let graph = builder.finish();
    assert_eq!(graph.records[0].results.len(), 3);
    let (config, blobs) = marshal(&graph);
    assert_eq!(config.records[0].results[0].created, at(3));
    assert_eq!(blobs.into_keys().collect::<Vec<_>>(), [blob("new").digest]);
}

#[test]
fn refuses_nonsense() {
    let a = Digest::sha256_of("a");
    for (text, message) in [
        (format!(r#"{{"layers":[{{"blob":"{a}"}}]}}"#), "invalid looping layer"),
        (format!(r#"{{"layers":[{{"blob":"{a}","parent":7}}]}}"#), "invalid layer index 7"),
        (format!(r#"{{"layers":[{{"blob":"{a}","parent":-2}}]}}"#), "invalid layer index -2"),
        (r#"{"records":[{"digest":"x","layers":[{"layer":0}]}]}"#.to_owned(), "invalid layer index 0"),
        (r#"{"records":[{"digest":"x","chains":[{"layers":[-1]}]}]}"#.to_owned(), "invalid layer index -1"),
        (r#"{"records":[{"digest":"x","inputs":[[]]}]}"#.to_owned(), "invalid empty input for record 0"),
        (r#"{"records":[{"digest":"x","inputs":[[{"link":1}]]}]}"#.to_owned(), "invalid record ID: 1"),
        (r#"{"records":[{"digest":"x","inputs":[[{"link":0}]]}]}"#.to_owned(), "invalid looping record"),
        (
            r#"{"records":[{"digest":"x","inputs":[[{"link":1}]]},{"digest":"y","inputs":[[{"link":0}]]}]}"#
                .to_owned(),
            "invalid looping record",
        ),
    ] {
        let config: CacheConfig = serde_json::from_str(&text).unwrap();
        let error = parse(&config, &BTreeMap::from([(a.clone(), blob("a"))])).unwrap_err();
        assert!(matches!(&error, CacheError::Invalid(told) if told == message), "{text}: {error}");
    }
}

#[test]
fn long_chains_are_no_trouble() {
    // As deep as a document of some megabytes can be.
    let count = 50_000;
    let mut text = String::from(r#"{"layers":["#);
    let a = Digest::sha256_of("a");
    for index in 0..count {
        let comma = if index == 0 { "" } else { "," };
        text.push_str(&format!(r#"{comma}{{"blob":"{a}","parent":{}}}"#, index as i64 - 1));
    }
    text.push_str(r#"],"records":["#);
    for index in 0..count {
        let comma = if index == 0 { "" } else { "," };
        let inputs =
            if index == 0 { String::new() } else { format!(r#","inputs":[[{{"link":{}}}]]"#, index - 1) };
        text.push_str(&format!(r#"{comma}{{"digest":"d","layers":[{{"layer":{index}}}]{inputs}}}"#));
    }
    text.push_str("]}");
    let config: CacheConfig = serde_json::from_str(&text).unwrap();
    let graph = parse(&config, &BTreeMap::from([(a, blob("a"))])).unwrap();
    assert_eq!(graph.records.iter().filter(|record| record.results.len() == 1).count(), count);
}

proptest! {
    /// Any tree of numbers is either refused or makes a graph that can be written and read again.
    #[test]
    fn any_numbers(
        layers in prop::collection::vec((0u8..4, -2i64..6), 0..6),
        records in prop::collection::vec((0u8..3, prop::collection::vec(prop::collection::vec(-1i64..6, 0..3), 0..3), prop::collection::vec(-1i64..6, 0..2)), 0..6),
    ) {
        let names = ["a", "b", "c", "d"];
        let document = serde_json::json!({
            "layers": layers.iter().map(|(name, parent)| serde_json::json!({"blob": blob(names[*name as usize]).digest, "parent": parent})).collect::<Vec<_>>(),
            "records": records.iter().map(|(name, inputs, results)| serde_json::json!({
                "digest": names[*name as usize],
                "inputs": inputs.iter().map(|ways| ways.iter().map(|link| serde_json::json!({"link": link})).collect::<Vec<_>>()).collect::<Vec<_>>(),
                "layers": results.iter().map(|layer| serde_json::json!({"layer": layer})).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        });
        let config: CacheConfig = serde_json::from_value(document).unwrap();
        let blobs: BTreeMap<_, _> = names[..3].iter().map(|name| (blob(name).digest, blob(name))).collect();
        if let Ok(graph) = parse(&config, &blobs) {
            for result in graph.records.iter().flat_map(|record| &record.results) {
                prop_assert!(!graph.blobs(&result.layers).is_empty());
            }
            let (config, blobs) = marshal(&graph);
            parse(&config, &blobs).unwrap();
        }
    }
}
