//! Builds the answer: results by platform, with what exporters need to know.

use crate::Solution;
use crate::solution::Refs;
use bytes::Bytes;
use kiln_dockerfile::location::Range;
use kiln_oci::{Image, Platform, Timestamp, gojson};
use kiln_proto::pb;
use serde::Serialize;
use std::collections::BTreeMap;

const IMAGE_CONFIG: &str = "containerimage.config";
const BASE_CONFIG: &str = "containerimage.base.config";
const EPOCH: &str = "source.date.epoch";
const PLATFORMS: &str = "refs.platforms";

/// What one platform gave.
pub(super) struct Built<R> {
    pub(super) platform: Platform,
    pub(super) reference: Option<R>,
    pub(super) image: Image,
    pub(super) base_image: Option<Image>,
    pub(super) epoch: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Platforms {
    platforms: Vec<ExportPlatform>,
}

#[derive(Serialize)]
struct ExportPlatform {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Platform")]
    platform: Platform,
}

/// The name under which a platform's result goes.
pub(super) fn platform_id(platform: &Platform) -> String {
    platform.normalized().to_string()
}

/// All platforms, in the order in which they were asked for.
pub(super) fn solution<R>(built: Vec<Built<R>>, multi_platform: bool) -> Solution<R> {
    let json = |value: &Image| Bytes::from(gojson::to_vec(value).expect("an image config has a JSON form"));
    let mut metadata = BTreeMap::new();
    let mut platforms = Vec::new();
    let mut refs = BTreeMap::new();
    let mut single = None;
    for one in built {
        let id = platform_id(&one.platform);
        let key = |name: &str| if multi_platform { format!("{name}/{id}") } else { name.to_owned() };
        metadata.insert(key(IMAGE_CONFIG), json(&one.image));
        if let Some(base) = &one.base_image {
            metadata.insert(key(BASE_CONFIG), json(base));
        }
        if let Some(epoch) = one.epoch {
            metadata.insert(key(EPOCH), epoch.unix_seconds().to_string().into());
        }
        let platform = export_platform(&one.platform, &one.image);
        platforms.push(ExportPlatform { id: id.clone(), platform });
        if multi_platform {
            refs.insert(id, one.reference);
        } else {
            single = one.reference;
        }
    }
    let list = gojson::to_vec(&Platforms { platforms }).expect("platforms have a JSON form");
    metadata.insert(PLATFORMS.to_owned(), list.into());
    let refs = if multi_platform { Refs::Map(refs) } else { Refs::Single(single) };
    Solution { refs, metadata, attestations: BTreeMap::new() }
}

/// A Windows platform that leaves the version open takes it from the image.
fn export_platform(platform: &Platform, image: &Image) -> Platform {
    let mut platform = platform.normalized();
    if platform.os == "windows" && image.os == platform.os {
        if platform.os_version.is_empty() {
            platform.os_version.clone_from(&image.os_version);
        }
        if platform.os_features.is_empty() {
            platform.os_features.clone_from(&image.os_features);
        }
    }
    platform.normalized()
}

/// Lines of the Dockerfile as messages have them.
pub(super) fn ranges(lines: &[Range]) -> Vec<pb::Range> {
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let position = |at: kiln_dockerfile::location::Position| {
        Some(pb::Position { line: number(at.line), character: number(at.character) })
    };
    lines.iter().map(|range| pb::Range { start: position(range.start), end: position(range.end) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(platform: &str) -> Built<u32> {
        Built {
            platform: Platform::parse(platform).expect("platform"),
            reference: Some(1),
            image: Image::default(),
            base_image: None,
            epoch: Timestamp::from_unix(7),
        }
    }

    fn text(solution: &Solution<u32>, key: &str) -> String {
        String::from_utf8(solution.metadata[key].to_vec()).expect("text")
    }

    #[test]
    fn one_platform() {
        let one = solution(vec![built("linux/amd64")], false);
        assert_eq!(one.refs, Refs::Single(Some(1)));
        assert_eq!(text(&one, "source.date.epoch"), "7");
        assert_eq!(
            text(&one, "refs.platforms"),
            r#"{"Platforms":[{"ID":"linux/amd64","Platform":{"architecture":"amd64","os":"linux"}}]}"#
        );
        assert!(one.metadata.contains_key("containerimage.config"));
    }

    #[test]
    fn several_platforms_keep_their_order() {
        let many = solution(vec![built("linux/arm64"), built("linux/amd64")], true);
        let Refs::Map(refs) = &many.refs else { panic!("several") };
        assert_eq!(refs.keys().collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
        let list = text(&many, "refs.platforms");
        assert!(list.find("arm64").expect("listed") < list.find("amd64").expect("listed"));
        assert!(many.metadata.contains_key("containerimage.config/linux/arm64"));
    }
}
