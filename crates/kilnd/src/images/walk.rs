//! The parts of an image in the store: its index, manifests, configurations and layers.

use kiln_oci::{Descriptor, ManifestKind, Platform};
use kiln_store::Store;

/// The largest manifest or configuration, in bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 8 << 20;

/// One manifest with what it names.
#[derive(Debug, Clone)]
pub struct ManifestParts {
    pub descriptor: Descriptor,
    pub platform: Option<Platform>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    pub attestation: bool,
}

/// An image's documents: the manifests that are there, and the documents above them, deepest first.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    pub manifests: Vec<ManifestParts>,
    pub indexes: Vec<Descriptor>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    #[error("{0} is no manifest")]
    Manifest(kiln_oci::Digest, #[source] kiln_oci::ManifestError),
}

/// Reads the documents of an image. Manifests that are not in the store are left out: an image may be there for one platform.
pub fn parts(store: &Store, target: &Descriptor) -> Result<Parts, Error> {
    let mut found = Parts::default();
    read(store, target, &mut found)?;
    Ok(found)
}

fn read(store: &Store, descriptor: &Descriptor, found: &mut Parts) -> Result<(), Error> {
    if !store.content().has(&descriptor.digest) {
        return Ok(());
    }
    let bytes = store.content().read(&descriptor.digest, DOCUMENT_BYTES_MAX)?;
    let kind = ManifestKind::parse(&descriptor.media_type, &bytes)
        .map_err(|error| Error::Manifest(descriptor.digest.clone(), error))?;
    match kind {
        ManifestKind::Index(index) => {
            for entry in &index.manifests {
                read(store, entry, found)?;
            }
            found.indexes.push(descriptor.clone());
        }
        ManifestKind::Manifest(manifest) => {
            let platform = descriptor.platform.clone().or_else(|| platform_of(store, &manifest.config));
            found.manifests.push(ManifestParts {
                attestation: kiln_oci::is_attestation_manifest(descriptor),
                descriptor: descriptor.clone(),
                platform,
                config: manifest.config,
                layers: manifest.layers,
            });
        }
    }
    Ok(())
}

/// The platform that a configuration names.
fn platform_of(store: &Store, config: &Descriptor) -> Option<Platform> {
    #[derive(serde::Deserialize)]
    struct Fields {
        os: String,
        architecture: String,
        #[serde(default)]
        variant: String,
    }
    let bytes = store.content().read(&config.digest, DOCUMENT_BYTES_MAX).ok()?;
    let fields: Fields = serde_json::from_slice(&bytes).ok()?;
    let mut platform = Platform::new(&fields.os, &fields.architecture);
    platform.variant = fields.variant;
    Some(platform.normalized())
}
