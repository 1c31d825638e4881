//! Configs of images: the one of nothing, and changing variables.

use kiln_oci::{Image, Platform};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What `PATH` is where nothing sets it; on Windows that is left to the system.
pub(super) fn default_path(os: &str) -> Option<String> {
    (os != "windows").then(|| format!("PATH={DEFAULT_PATH}"))
}

/// The config of an image without files.
pub(super) fn empty_image(platform: &Platform) -> Image {
    let mut image = Image::default();
    image.set_platform(platform.clone());
    image.config.working_dir = "/".to_owned();
    image.config.env.extend(default_path(&platform.os));
    image
}

/// Reads a config document. What the image specifications do not know is left out.
pub(super) fn read_image(document: &[u8]) -> Result<Image, serde_json::Error> {
    let mut image: Image = serde_json::from_slice(document)?;
    image.extra.clear();
    image.config.extra.clear();
    Ok(image)
}

/// Sets a variable; one that is there already keeps its place.
pub(super) fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    match env.iter_mut().find(|known| split_entry(known).0 == key) {
        Some(known) => *known = entry,
        None => env.push(entry),
    }
}

/// Name and value of `NAME=value`.
pub(super) fn split_entry(entry: &str) -> (&str, &str) {
    entry.split_once('=').unwrap_or((entry, ""))
}
