//! Finishing the image configuration which a frontend gave: layers, history, times, cache.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_oci::{History, Image, ImageConfig, RootFs, Timestamp, gojson, platform};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Layer;
use crate::error::ExportError;

/// The configuration's field with the build cache inside an image.
pub const CACHE_KEY: &str = "moby.buildkit.cache.v0";
/// The search path of images that are made from nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is known of the image that this one was made from: its layers and history keep their times.
pub type BaseImage = Image;

/// The configuration of an image for which the frontend gave none.
pub fn default_config() -> Vec<u8> {
    let platform = platform::default_for_host();
    let mut image = Image {
        config: ImageConfig { working_dir: "/".to_owned(), ..ImageConfig::default() },
        ..Image::default()
    };
    if platform.os != "windows" {
        image.config.env = vec![format!("PATH={DEFAULT_PATH}")];
    }
    image.set_platform(platform);
    gojson::to_vec(&image).expect("a constant document")
}

/// The history in a configuration.
pub(super) fn history(config: &[u8]) -> Result<Vec<History>, ExportError> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(default)]
        history: Option<Vec<History>>,
    }
    let fields: Fields = serde_json::from_slice(config)
        .map_err(|error| ExportError::Config(format!("failed to unmarshal history from config: {error}")))?;
    Ok(fields.history.unwrap_or_default())
}

/// Puts layers, history, times and cache into a frontend's configuration. Everything else stays as it is, to
/// the byte.
pub fn finish_config(
    config: &[u8],
    layers: &[Layer],
    mut history: Vec<History>,
    cache: Option<&[u8]>,
    epoch: Option<Timestamp>,
    base: Option<&BaseImage>,
) -> Result<Vec<u8>, ExportError> {
    let malformed = |error: serde_json::Error| ExportError::Config(error.to_string());
    let mut fields: Option<BTreeMap<String, Box<RawValue>>> =
        serde_json::from_slice(config).map_err(malformed)?;
    let fields = fields.as_mut().ok_or_else(|| ExportError::NullConfig)?;
    let image: Image = serde_json::from_slice(config).map_err(malformed)?;
    if image.os.is_empty() {
        return Err(ExportError::Config("missing os".to_owned()));
    }
    if image.architecture.is_empty() {
        return Err(ExportError::Config("missing architecture".to_owned()));
    }

    let diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    fields.insert("rootfs".to_owned(), raw(&RootFs { diff_ids, ..RootFs::default() })?);
    if let Some(epoch) = epoch {
        clamp(&mut history, epoch, base);
    }
    fields.insert("history".to_owned(), raw(&history)?);

    let created = match (fields.contains_key("created"), image.created, epoch) {
        (true, Some(created), Some(epoch)) if created > epoch => Some(raw(&epoch)?),
        (true, ..) => None,
        // Never said: when its newest part was made.
        (false, ..) => Some(raw(&history.iter().rev().find_map(|entry| entry.created))?),
    };
    if let Some(created) = created {
        fields.insert("created".to_owned(), created);
    }
    if let Some(cache) = cache {
        fields.insert(CACHE_KEY.to_owned(), raw(&STANDARD.encode(cache))?);
    }
    gojson::to_vec_compacted(fields)
        .map_err(|source| ExportError::Json { what: "config after patch", source })
}

/// Makes nothing newer than the epoch, but for what came with the base image.
fn clamp(history: &mut [History], epoch: Timestamp, base: Option<&BaseImage>) {
    let base = base.map(|base| base.history.as_slice()).unwrap_or_default();
    let inherited = history.iter().zip(base).take_while(|(own, base)| own == base).count();
    for entry in &mut history[inherited..] {
        if entry.created.is_none_or(|created| created > epoch) {
            entry.created = Some(epoch);
        }
    }
}

fn raw<T: serde::Serialize>(value: &T) -> Result<Box<RawValue>, ExportError> {
    serde_json::value::to_raw_value(value)
        .map_err(|source| ExportError::Json { what: "image config", source })
}

#[cfg(test)]
mod tests {
    use kiln_oci::{Descriptor, Digest, media_type};

    use super::*;

    fn layer() -> Layer {
        Layer {
            descriptor: Descriptor::of(media_type::OCI_LAYER_GZIP, b"x"),
            diff_id: Digest::sha256_of("y"),
            created: Timestamp::from_unix(100),
            description: String::new(),
        }
    }

    fn finish(config: &str, epoch: Option<i64>) -> String {
        let history = history(config.as_bytes()).unwrap();
        let epoch = epoch.and_then(Timestamp::from_unix);
        let done = finish_config(config.as_bytes(), &[layer()], history, None, epoch, None).unwrap();
        String::from_utf8(done).unwrap()
    }

    #[test]
    fn keeps_what_it_does_not_know() {
        let config = "{\"os\":\"linux\",  \"architecture\":\"amd64\", \"z\":{\"b\": 1.50, \"a\":\"<\"},\n\"created\":\"1970-01-01T00:00:50Z\",\"config\":{\"Healthcheck\":{}}}";
        let diff_id = Digest::sha256_of("y");
        assert_eq!(
            finish(config, None),
            format!(
                r#"{{"architecture":"amd64","config":{{"Healthcheck":{{}}}},"created":"1970-01-01T00:00:50Z","history":[],"os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}},"z":{{"b":1.50,"a":"\u003c"}}}}"#
            )
        );
    }

    #[test]
    fn clamps_times() {
        let config = r#"{"os":"linux","architecture":"amd64","created":"1970-01-01T00:01:40Z","history":[{"created":"1970-01-01T00:00:10Z"},{"created":"1970-01-01T00:01:40Z"},{}]}"#;
        let done: Image = serde_json::from_str(&finish(config, Some(50))).unwrap();
        assert_eq!(done.created, Timestamp::from_unix(50));
        let times: Vec<_> = done.history.iter().map(|entry| entry.created.unwrap().unix_seconds()).collect();
        assert_eq!(times, [10, 50, 50]);
        // What came with the base image stays.
        let base: Image = serde_json::from_str(config).unwrap();
        let parsed = history(config.as_bytes()).unwrap();
        let done = finish_config(config.as_bytes(), &[], parsed, None, Timestamp::from_unix(50), Some(&base))
            .unwrap();
        let done: Image = serde_json::from_slice(&done).unwrap();
        assert_eq!(done.history, base.history);
    }

    #[test]
    fn says_when_it_was_made() {
        let config =
            r#"{"os":"linux","architecture":"amd64","history":[{"created":"1970-01-01T00:00:10Z"},{}]}"#;
        assert!(finish(config, None).contains(r#""created":"1970-01-01T00:00:10Z","history""#));
        let config = r#"{"os":"linux","architecture":"amd64"}"#;
        assert!(finish(config, None).contains(r#""created":null"#));
    }

    #[test]
    fn refuses() {
        for (config, message) in [
            ("null", "invalid null image config for export"),
            (r#"{"architecture":"amd64"}"#, "invalid image config for export: missing os"),
            (r#"{"os":"linux"}"#, "invalid image config for export: missing architecture"),
        ] {
            let error = finish_config(config.as_bytes(), &[], Vec::new(), None, None, None).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        assert!(finish_config(b"[]", &[], Vec::new(), None, None, None).is_err());
        let default: Image = serde_json::from_slice(&default_config()).unwrap();
        assert_eq!(default.config.working_dir, "/");
    }

    #[test]
    fn carries_a_cache() {
        let config = br#"{"os":"linux","architecture":"amd64"}"#;
        let done = finish_config(config, &[], Vec::new(), Some(b"cache"), None, None).unwrap();
        let done: Image = serde_json::from_slice(&done).unwrap();
        assert_eq!(done.extra[CACHE_KEY], "Y2FjaGU=");
    }
}
