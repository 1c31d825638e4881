//! The cache inside an image's configuration: records whose results are layers of that very image.

use std::collections::{BTreeMap, BTreeSet};

use kiln_oci::{Descriptor, Digest, Image, Manifest, Timestamp, annotations, gojson};

use crate::document::{CacheConfig, CacheLayer, CacheRecord, CacheResult, ChainedResult};
use crate::error::CacheError;
use crate::graph::{self, CacheGraph, LayerList};

/// The configuration's field.
pub const FIELD: &str = "moby.buildkit.cache.v0";

/// A layer of the image that the cache goes into: its blob's digest and its uncompressed digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLayer {
    /// The blob.
    pub blob: Digest,
    /// The uncompressed archive.
    pub diff_id: Digest,
}

/// Writes the records of `graph` for an image of these layers; `None` if no result is made of them alone.
pub fn write(graph: &CacheGraph, layers: &[ImageLayer]) -> Result<Option<Vec<u8>>, CacheError> {
    // A layer is found by its blob, or by what is in it: a cache may know another compression.
    let mut places: BTreeMap<Digest, BTreeSet<usize>> = BTreeMap::new();
    for layer in &graph.layers {
        let blob = &layer.descriptor;
        let diff_id = blob.annotation(annotations::UNCOMPRESSED);
        let found = layers.iter().enumerate().filter(|(_, layer)| {
            layer.blob == blob.digest
                || diff_id == Some(layer.blob.as_str())
                || diff_id == Some(layer.diff_id.as_str())
        });
        places.entry(blob.digest.clone()).or_default().extend(found.map(|(place, _)| place));
    }
    places.retain(|_, places| !places.is_empty());

    // Only what is made of the image's layers.
    let (config, blobs) = graph::marshal(graph);
    let known: BTreeMap<Digest, Descriptor> =
        blobs.into_iter().filter(|(digest, _)| places.contains_key(digest)).collect();
    let reduced = graph::parse(&config, &known)?;
    let (config, _) = graph::marshal(&reduced);
    if config.layers.is_empty() {
        return Ok(None);
    }
    let own_layers = config.layers.clone();
    let records: Vec<CacheRecord> = config
        .records
        .into_iter()
        .map(|record| place_results(record, &own_layers, &places, layers.len()))
        .collect();
    Ok(Some(gojson::to_vec(&records)?))
}

/// Turns places in the document's own list of layers into places in the image.
fn place_results(
    mut record: CacheRecord,
    own_layers: &[CacheLayer],
    places: &BTreeMap<Digest, BTreeSet<usize>>,
    image_layers: usize,
) -> CacheRecord {
    let results = std::mem::take(&mut record.results);
    for CacheResult { layer, created } in results {
        let mut blobs = Vec::new();
        let mut next = usize::try_from(layer).ok();
        while let Some(layer) = next {
            blobs.push(&own_layers[layer].blob);
            next = usize::try_from(own_layers[layer].parent).ok();
        }
        blobs.reverse();
        let is_prefix = blobs.len() <= image_layers
            && blobs.iter().enumerate().all(|(place, blob)| places[*blob].contains(&place));
        if is_prefix {
            record.results.push(CacheResult { layer: blobs.len() as i64 - 1, created });
        } else {
            let layers = blobs.iter().map(|blob| *places[*blob].last().expect("not empty") as i64).collect();
            record.chains.push(ChainedResult { layers, created: crate::document::never() });
        }
    }
    record
}

/// Reads the cache out of an image; `None` if there is none in it.
pub fn read(manifest: &Manifest, config: &[u8]) -> Result<Option<CacheGraph>, CacheError> {
    use base64_field::Field;
    let field: Field = serde_json::from_slice(config)?;
    let Some(records) = field.cache else { return Ok(None) };
    let image: Image = serde_json::from_slice(config)?;
    if manifest.layers.is_empty() || image.rootfs.diff_ids.len() != manifest.layers.len() {
        return Ok(None);
    }
    let records: Vec<CacheRecord> = serde_json::from_slice(&records)?;
    let mut history = image.history.iter().filter(|entry| !entry.empty_layer);
    let mut blobs = BTreeMap::new();
    let mut layers = Vec::new();
    for (place, (layer, diff_id)) in manifest.layers.iter().zip(&image.rootfs.diff_ids).enumerate() {
        let mut blob = layer.clone().with_annotation(annotations::UNCOMPRESSED, diff_id.to_string());
        if let Some(entry) = history.next() {
            if let Some(created) = entry.created {
                blob = blob.with_annotation(annotations::BUILDKIT_CREATED_AT, Timestamp::to_string(&created));
            }
            if !entry.created_by.is_empty() {
                blob = blob.with_annotation(annotations::BUILDKIT_DESCRIPTION, entry.created_by.clone());
            }
        }
        layers.push(CacheLayer { blob: blob.digest.clone(), parent: place as i64 - 1 });
        blobs.insert(blob.digest.clone(), blob);
    }
    graph::parse(&CacheConfig { layers, records }, &blobs).map(Some)
}

mod base64_field {
    //! Just the field with the cache.

    use serde::{Deserialize, Deserializer};

    #[derive(Deserialize)]
    pub(super) struct Field {
        #[serde(default, rename = "moby.buildkit.cache.v0", deserialize_with = "bytes")]
        pub(super) cache: Option<Vec<u8>>,
    }

    fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        use base64::Engine as _;
        let text = Option::<String>::deserialize(deserializer)?;
        let decode = |text: String| base64::engine::general_purpose::STANDARD.decode(text);
        text.map(decode).transpose().map_err(serde::de::Error::custom)
    }
}

/// Whether a result of a graph is a list of layers, which only images have.
pub fn is_list(layers: &LayerList) -> bool {
    matches!(layers, LayerList::Each(_))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use kiln_oci::media_type;

    use super::*;
    use crate::graph::{GraphBuilder, GraphInput};

    fn blob(name: &str) -> Descriptor {
        Descriptor::of(media_type::OCI_LAYER_GZIP, name.as_bytes())
            .with_annotation(annotations::UNCOMPRESSED, Digest::sha256_of(format!("{name}'")).to_string())
    }

    fn image_layer(name: &str) -> ImageLayer {
        ImageLayer { blob: blob(name).digest, diff_id: Digest::sha256_of(format!("{name}'")) }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix(seconds).unwrap()
    }

    fn sample() -> CacheGraph {
        let mut builder = GraphBuilder::new();
        let way = |record| vec![GraphInput { record, selector: String::new() }];
        let base = builder.add_record("a-base", &[]);
        let run = builder.add_record("b-run", &[way(base)]);
        let alone = builder.add_record("c-alone", &[]);
        let other = builder.add_record("d-other", &[]);
        builder.add_result(run, at(1), &[blob("base"), blob("run")]);
        builder.add_result(alone, at(2), &[blob("alone")]);
        builder.add_result(other, at(3), &[blob("base"), blob("elsewhere")]);
        builder.finish()
    }

    fn image(cache: &[u8], layers: &[&str]) -> (Manifest, Vec<u8>) {
        let mut image = Image::default();
        image.rootfs.diff_ids = layers.iter().map(|name| Digest::sha256_of(format!("{name}'"))).collect();
        let text = base64::engine::general_purpose::STANDARD.encode(cache);
        image.extra.insert(FIELD.to_owned(), text.into());
        let config = gojson::to_vec(&image).unwrap();
        let blobs = layers
            .iter()
            .map(|name| Descriptor::new(media_type::OCI_LAYER_GZIP, blob(name).digest, name.len() as u64))
            .collect();
        (
            Manifest::new(media_type::OCI_MANIFEST, Descriptor::of(media_type::OCI_CONFIG, &config), blobs),
            config,
        )
    }

    #[test]
    fn goes_into_an_image_and_comes_back() {
        let names = ["base", "run", "alone"];
        let cache = write(&sample(), &names.map(image_layer)).unwrap().unwrap();
        assert_eq!(
            String::from_utf8(cache.clone()).unwrap(),
            concat!(
                r#"[{"digest":"a-base"},"#,
                r#"{"layers":[{"layer":1,"createdAt":"1970-01-01T00:00:01Z"}],"digest":"b-run","inputs":[[{"link":0}]]},"#,
                r#"{"chains":[{"layers":[2],"createdAt":"0001-01-01T00:00:00Z"}],"digest":"c-alone"},"#,
                r#"{"digest":"d-other"}]"#
            )
        );
        let (manifest, config) = image(&cache, &names);
        let graph = read(&manifest, &config).unwrap().unwrap();
        let blobs = |record: usize| -> Vec<Digest> {
            let layers = &graph.records[record].results[0].layers;
            graph.blobs(layers).into_iter().map(|blob| blob.digest.clone()).collect()
        };
        assert_eq!(blobs(1), [blob("base").digest, blob("run").digest]);
        assert_eq!(blobs(2), [blob("alone").digest]);
        assert!(is_list(&graph.records[2].results[0].layers));
        assert!(graph.records[3].results.is_empty());
        let diff_id = graph.layers[0].descriptor.annotation(annotations::UNCOMPRESSED);
        assert_eq!(diff_id, Some(image_layer("base").diff_id.as_str()));
    }

    #[test]
    fn layers_of_another_compression_count() {
        let mut other = image_layer("base");
        other.blob = Digest::sha256_of("the same as zstd");
        let cache = write(&sample(), &[other, image_layer("run")]).unwrap().unwrap();
        assert!(String::from_utf8(cache).unwrap().contains(r#""layers":[{"layer":1"#));
    }

    #[test]
    fn nothing_of_it_is_none() {
        assert_eq!(write(&sample(), &[image_layer("elsewhere")]).unwrap(), None);
        let (manifest, config) = image(b"[]", &["base"]);
        assert_eq!(read(&manifest, &config).unwrap().unwrap().records, []);
        assert!(read(&manifest, b"{}").unwrap().is_none());
        assert!(read(&manifest, br#"{"moby.buildkit.cache.v0":"!"}"#).is_err());
    }
}
