//! Images as the wire has them.

use std::collections::BTreeMap;

use kiln_proto::images::{Descriptor, Image, InspectImageResponse, PlatformImage};
use kiln_store::Store;

use super::walk::{self, DOCUMENT_BYTES_MAX, Error};

pub(super) fn descriptor(descriptor: &kiln_oci::Descriptor) -> Descriptor {
    Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: signed(descriptor.size),
        annotations: descriptor.annotations.clone(),
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

pub(super) fn image(store: &Store, image: &kiln_store::Image) -> Result<Image, Error> {
    let parts = walk::parts(store, &image.target)?;
    let mut blobs = BTreeMap::new();
    let mut platforms = Vec::new();
    for manifest in &parts.manifests {
        let mut complete = true;
        for part in manifest.layers.iter().chain([&manifest.config]) {
            match store.content().size(&part.digest)? {
                Some(size) => drop(blobs.insert(part.digest.clone(), size)),
                None => complete = false,
            }
        }
        blobs.insert(manifest.descriptor.digest.clone(), manifest.descriptor.size);
        platforms.push(PlatformImage {
            platform: manifest.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
            manifest: Some(descriptor(&manifest.descriptor)),
            config: Some(descriptor(&manifest.config)),
            layers: manifest.layers.iter().map(descriptor).collect(),
            complete,
            created_at: created(store, &manifest.config),
            attestation: manifest.attestation,
        });
    }
    blobs.extend(parts.indexes.iter().map(|index| (index.digest.clone(), index.size)));
    let created_at =
        platforms.iter().filter_map(|platform| platform.created_at).max_by_key(|time| time.seconds);
    Ok(Image {
        name: image.name.clone(),
        target: Some(descriptor(&image.target)),
        platforms,
        created_at,
        updated_at: None,
        stored_size: signed(blobs.values().sum()),
    })
}

fn created(store: &Store, config: &kiln_oci::Descriptor) -> Option<kiln_proto::prost_types::Timestamp> {
    #[derive(serde::Deserialize)]
    struct Fields {
        created: Option<String>,
    }
    let bytes = store.content().read(&config.digest, DOCUMENT_BYTES_MAX).ok()?;
    let fields: Fields = serde_json::from_slice(&bytes).ok()?;
    fields.created?.parse().ok()
}

pub(super) fn inspect(store: &Store, found: &kiln_store::Image) -> Result<InspectImageResponse, Error> {
    let parts = walk::parts(store, &found.target)?;
    let mut configs = BTreeMap::new();
    for manifest in parts.manifests.iter().filter(|manifest| store.content().has(&manifest.config.digest)) {
        let bytes = store.content().read(&manifest.config.digest, DOCUMENT_BYTES_MAX)?;
        configs.insert(manifest.config.digest.to_string(), bytes);
    }
    Ok(InspectImageResponse {
        image: Some(image(store, found)?),
        manifest: store.content().read(&found.target.digest, DOCUMENT_BYTES_MAX)?,
        configs,
    })
}
