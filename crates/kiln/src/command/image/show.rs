//! Images as people and programs read them.

use kiln_progress::units;
use kiln_proto::images::{Descriptor, Image, InspectImageResponse, PlatformImage};
use serde_json::{Value, json};

use crate::output::{ago, table as lay_out};
use crate::printer::now;

/// Hexadecimal digits of a shortened digest.
const SHORT_DIGITS: usize = 12;

/// One line an image.
pub fn table(images: &[Image], no_trunc: bool) -> String {
    let mut rows = vec![["NAME", "DIGEST", "PLATFORMS", "CREATED", "SIZE"].map(str::to_owned).to_vec()];
    rows.extend(images.iter().map(|image| {
        let age = image.created_at.map(|time| ago(now().nanos() / 1_000_000_000 - time.seconds));
        vec![
            if image.name.is_empty() { "<none>".to_owned() } else { image.name.clone() },
            digest(image, no_trunc),
            platforms(image),
            age.unwrap_or_default(),
            units::bytes(image.stored_size),
        ]
    }));
    lay_out(&rows)
}

/// Digests only.
pub fn digests(images: &[Image], no_trunc: bool) -> String {
    images.iter().map(|image| digest(image, no_trunc) + "\n").collect()
}

/// One JSON object a line.
pub fn json_lines(images: &[Image]) -> String {
    images.iter().map(|image| value(image).to_string() + "\n").collect()
}

/// What a pull, push or load ended with.
pub fn result(images: &[Image], quiet: bool) -> String {
    let line = |image: &Image| {
        let digest = digest(image, true);
        if quiet { format!("{digest}\n") } else { format!("{}\nDigest: {digest}\n", image.name) }
    };
    images.iter().map(line).collect()
}

/// All that is known of an image.
pub fn details(found: &InspectImageResponse) -> Value {
    let mut all = found.image.as_ref().map_or_else(|| json!({}), value);
    all["Manifest"] = serde_json::from_slice(&found.manifest).unwrap_or(Value::Null);
    let configs = found
        .configs
        .iter()
        .map(|(digest, config)| (digest.clone(), serde_json::from_slice(config).unwrap_or(Value::Null)));
    all["Configs"] = Value::Object(configs.collect());
    all
}

fn digest(image: &Image, no_trunc: bool) -> String {
    let digest = image.target.as_ref().map_or("", |target| target.digest.as_str());
    if no_trunc {
        return digest.to_owned();
    }
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.chars().take(SHORT_DIGITS).collect()
}

fn platforms(image: &Image) -> String {
    let shown = |platform: &&PlatformImage| !platform.attestation;
    let names = image.platforms.iter().filter(shown).map(|platform| {
        if platform.complete { platform.platform.clone() } else { format!("({})", platform.platform) }
    });
    names.collect::<Vec<_>>().join(",")
}

fn value(image: &Image) -> Value {
    json!({
        "Name": image.name,
        "Target": image.target.as_ref().map(descriptor),
        "Size": image.stored_size,
        "Platforms": image.platforms.iter().map(|platform| json!({
            "Platform": platform.platform,
            "Manifest": platform.manifest.as_ref().map(descriptor),
            "Config": platform.config.as_ref().map(descriptor),
            "Layers": platform.layers.iter().map(descriptor).collect::<Vec<_>>(),
            "Complete": platform.complete,
            "Attestation": platform.attestation,
        })).collect::<Vec<_>>(),
    })
}

fn descriptor(descriptor: &Descriptor) -> Value {
    json!({ "mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        let platform = |name: &str, complete, attestation| PlatformImage {
            platform: name.into(),
            complete,
            attestation,
            ..PlatformImage::default()
        };
        Image {
            name: "docker.io/library/x:1".into(),
            target: Some(Descriptor {
                media_type: "application/vnd.oci.image.index.v1+json".into(),
                digest: format!("sha256:{}", "ab".repeat(32)),
                size: 7,
                ..Descriptor::default()
            }),
            platforms: vec![
                platform("linux/amd64", true, false),
                platform("linux/arm64", false, false),
                platform("unknown/unknown", true, true),
            ],
            stored_size: 1_500_000,
            ..Image::default()
        }
    }

    #[test]
    fn images_are_told() {
        insta::assert_snapshot!(table(&[image()], false));
        assert_eq!(digests(&[image()], false), "abababababab\n");
        assert!(result(&[image()], false).starts_with("docker.io/library/x:1\nDigest: sha256:abab"));
    }

    #[test]
    fn details_hold_the_documents() {
        let found = InspectImageResponse {
            image: Some(image()),
            manifest: r#"{"schemaVersion":2}"#.into(),
            configs: [("sha256:c".to_owned(), r#"{"os":"linux"}"#.into())].into(),
        };
        let all = details(&found);
        assert_eq!(all["Manifest"]["schemaVersion"], 2);
        assert_eq!(all["Configs"]["sha256:c"]["os"], "linux");
        assert_eq!(all["Platforms"][1]["Complete"], false);
    }
}
