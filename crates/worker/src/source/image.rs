//! Images: from a name to a manifest, a configuration and a list of layers that are fetched when something reads them.

use std::sync::Arc;

use bytes::Bytes;
use kiln_oci::{
    Descriptor, Digest, Image, Manifest, ManifestError, ManifestKind, Platform, PlatformMatcher, Reference,
    detect_manifest_media_type, is_attestation_manifest,
};
use kiln_registry::RegistryError;
use kiln_session::daemon::{self, SessionGroup, SessionId};
use kiln_solver::Progress;
use kiln_store::{Blob, LayerMeta, LazyLayer, RecordType, Ref};

use super::identifier::{ImageId, OciLayoutId, ResolveMode};
use super::origin::{DOCUMENT_BYTES_MAX, Origin};
use crate::Worker;
use crate::context::BuildContext;
use crate::encode::{Encoder, Hash};
use crate::error::Result;
use crate::ops::keys::platform as encode_platform;
use crate::transfer::Task;

/// Most layers of an image; more than anyone has, and what overlayfs's successors take.
const LAYERS_MAX: usize = 1 << 12;
/// Indexes in indexes that are followed.
const INDEX_DEPTH_MAX: usize = 4;

/// Why an image can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Session(#[from] daemon::Error),
    #[error(transparent)]
    Store(#[from] kiln_store::Error),
    #[error("failed to read manifest {digest}")]
    Manifest {
        digest: Digest,
        #[source]
        source: ManifestError,
    },
    #[error("failed to parse image config {digest}")]
    Config {
        digest: Digest,
        #[source]
        source: serde_json::Error,
    },
    /// The text is BuildKit's; the hint lists what there is.
    #[error("{reference}: no match for platform in manifest: not found")]
    NoPlatform { reference: String, wanted: Platform, offered: Vec<Platform> },
    #[error("image digest {actual} for {reference} does not match expected checksum {expected}")]
    Checksum { reference: String, expected: Digest, actual: Digest },
    #[error("layer limit {limit} is greater than the number of layers in the image {layers}")]
    LayerLimit { limit: usize, layers: usize },
    #[error("image {0} has {1} layers but {2} layer digests in its config")]
    LayerCount(Digest, usize, usize),
    #[error("image {0} has too many layers")]
    TooManyLayers(Digest),
    #[error("document {0} is too large")]
    TooLarge(Digest),
    #[error("content of {0} does not have that digest")]
    Damaged(Digest),
    #[error("{0}: not found")]
    NotFound(String),
}

impl ImageError {
    /// What to try next, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            ImageError::Registry(error) => error.hint(),
            ImageError::Store(error) => error.hint().map(str::to_owned),
            ImageError::NoPlatform { wanted, offered, .. } if !offered.is_empty() => {
                let offered: Vec<String> = offered.iter().map(Platform::to_string).collect();
                Some(format!("the image is not there for {wanted}, but for {}", offered.join(", ")))
            }
            _ => None,
        }
    }
}

/// An image of one platform, its documents read and its layers not.
pub struct ResolvedImage {
    /// As it was asked for.
    pub reference: String,
    /// What the name stands for: a manifest, or an index.
    pub root: Descriptor,
    pub config_bytes: Bytes,
    /// The first ones of the image's layers, with the digests of their plain archives.
    pub layers: Vec<(Descriptor, Digest)>,
    layer_limit: Option<usize>,
    platform: Platform,
    origin: Origin,
    /// The documents stay in the content store as long as this lives.
    _documents: Vec<Blob>,
}

impl ResolvedImage {
    /// Key by which the image is known at once: its manifest.
    pub fn manifest_key(&self) -> Hash {
        let mut encoder = Encoder::new("kiln.source.image.v1");
        encoder.str(self.root.digest.as_str());
        encode_platform(&mut encoder, &self.platform);
        encoder.option(self.layer_limit, |encoder, limit| {
            encoder.u64(limit as u64);
        });
        encoder.finish()
    }

    /// Key that images with the same layers share; `None` for one without layers.
    pub fn content_key(&self) -> Option<Hash> {
        if self.layers.is_empty() {
            return None;
        }
        let mut encoder = Encoder::new("kiln.source.image.layers.v1");
        encoder.list(self.layers.iter(), |encoder, (_, diff_id)| {
            encoder.str(diff_id.as_str());
        });
        Some(encoder.finish())
    }
}

impl Worker {
    /// Finds out what an image in a registry is.
    pub(crate) async fn resolve_image(
        &self,
        id: &ImageId,
        build: &BuildContext,
        sessions: &SessionGroup,
        progress: Option<&Progress>,
    ) -> Result<ResolvedImage> {
        let task = progress.map(|progress| Task::start(progress, format!("resolve {}", id.reference)));
        let repository = self.repository(&id.reference, sessions)?;
        let (root, origin) = self.resolve_root(id, repository, build, progress).await?;
        let resolved =
            self.read_image(root, origin, id.reference.to_string(), &id.platform, id.layer_limit).await?;
        if let Some(expected) = id.checksum.as_ref().filter(|expected| **expected != resolved.root.digest) {
            return Err(ImageError::Checksum {
                reference: id.reference.to_string(),
                expected: expected.clone(),
                actual: resolved.root.digest,
            }
            .into());
        }
        if let Some(task) = task {
            task.done(0);
        }
        Ok(resolved)
    }

    async fn resolve_root(
        &self,
        id: &ImageId,
        repository: kiln_registry::Repository,
        build: &BuildContext,
        progress: Option<&Progress>,
    ) -> Result<(Descriptor, Origin)> {
        let reference = &id.reference;
        if id.resolve_mode == ResolveMode::PreferLocal
            && let Some(found) = self.local_image(reference)?
        {
            return Ok((found, Origin::Here));
        }
        if let Some(digest) = reference.digest() {
            // What is named by its digest and is here needs nobody to be asked.
            if self.store().content().has(digest) {
                let bytes = self.store().content().read(digest, DOCUMENT_BYTES_MAX)?;
                let media_type = detect_manifest_media_type(&bytes)
                    .map_err(|source| ImageError::Manifest { digest: digest.clone(), source })?;
                let root = Descriptor::new(media_type, digest.clone(), bytes.len() as u64);
                return Ok((root, Origin::Registry(repository)));
            }
        }
        let ask = async {
            let object = reference.object().unwrap_or(kiln_oci::DEFAULT_TAG);
            let resolved = repository.resolve(object).await.map_err(ImageError::from)?;
            if let Some(bytes) = &resolved.manifest {
                self.store().content().put(bytes)?;
            }
            Ok(serde_json::to_string(&resolved.descriptor).expect("a descriptor is JSON"))
        };
        match build.resolve_once(&format!("image:{reference}"), ask).await {
            Ok(text) => {
                let root = serde_json::from_str(&text).expect("it was written from a descriptor");
                Ok((root, Origin::Registry(repository)))
            }
            Err(error) => {
                let local =
                    if id.resolve_mode == ResolveMode::Default { self.local_image(reference)? } else { None };
                let Some(found) = local else { return Err(error) };
                if let Some(progress) = progress {
                    let text = format!("{reference} could not be resolved, the local image is used: {error}");
                    progress.warning(kiln_solver::Warning {
                        level: 1,
                        short: text.into(),
                        detail: Vec::new(),
                        url: String::new(),
                        location: None,
                    });
                }
                Ok((found, Origin::Here))
            }
        }
    }

    /// An image of the local store by its name, if its digest is the one asked for.
    fn local_image(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let named = reference.clone().without_tag_and_digest();
        let named = named.with_tag(reference.tag().unwrap_or(kiln_oci::DEFAULT_TAG));
        let Ok(named) = named else { return Ok(None) };
        let found = self.store().images().get(&named.to_string())?.map(|image| image.target);
        Ok(found.filter(|target| reference.digest().is_none_or(|digest| target.digest == *digest)))
    }

    /// Finds out what an image in a client's layout is.
    pub(crate) async fn resolve_layout(
        &self,
        id: &OciLayoutId,
        sessions: &SessionGroup,
    ) -> Result<ResolvedImage> {
        let group = match id.session.as_str() {
            "" => sessions.clone(),
            session => SessionGroup::new([SessionId::new(session)]),
        };
        let (store_id, digest) = (format!("oci:{}", id.store), id.digest.clone());
        let found = group
            .any(self.sessions(), |caller| {
                let (layout, digest) = (caller.store(&store_id), digest.clone());
                async move { Ok(layout.info(&digest).await?.map(|blob| (layout, blob))) }
            })
            .await
            .map_err(ImageError::from)?;
        let (layout, blob) = found.ok_or_else(|| ImageError::NotFound(id.reference.clone()))?;
        let origin = Origin::Layout(layout);
        let unknown = Descriptor::new("", blob.digest, blob.size);
        let bytes = origin.document(self.store(), &unknown).await?;
        let media_type = detect_manifest_media_type(&bytes)
            .map_err(|source| ImageError::Manifest { digest: id.digest.clone(), source })?;
        let root = Descriptor::of(media_type, &bytes);
        self.read_image(root, origin, id.reference.clone(), &id.platform, id.layer_limit).await
    }

    async fn read_image(
        &self,
        root: Descriptor,
        origin: Origin,
        reference: String,
        platform: &Platform,
        layer_limit: Option<usize>,
    ) -> Result<ResolvedImage> {
        let mut documents = Vec::new();
        let (chosen, manifest) = self.choose(&root, &origin, &reference, platform, &mut documents).await?;
        let config_bytes = self.document(&origin, &manifest.config, &mut documents).await?;
        let config_digest = || manifest.config.digest.clone();
        let image: Image = serde_json::from_slice(&config_bytes)
            .map_err(|source| ImageError::Config { digest: config_digest(), source })?;
        let (count, diff_ids) = (manifest.layers.len(), image.rootfs.diff_ids);
        if count != diff_ids.len() {
            return Err(ImageError::LayerCount(chosen.digest, count, diff_ids.len()).into());
        }
        if count > LAYERS_MAX {
            return Err(ImageError::TooManyLayers(chosen.digest).into());
        }
        if let Some(limit) = layer_limit.filter(|limit| *limit > count) {
            return Err(ImageError::LayerLimit { limit, layers: count }.into());
        }
        let layers = manifest.layers.into_iter().zip(diff_ids).take(layer_limit.unwrap_or(count)).collect();
        Ok(ResolvedImage {
            reference,
            root,
            config_bytes,
            layers,
            layer_limit,
            platform: platform.clone(),
            origin,
            _documents: documents,
        })
    }

    /// The manifest for a platform: the root itself, or the best entry of an index.
    async fn choose(
        &self,
        root: &Descriptor,
        origin: &Origin,
        reference: &str,
        platform: &Platform,
        documents: &mut Vec<Blob>,
    ) -> Result<(Descriptor, Manifest)> {
        let matcher = PlatformMatcher::only(platform);
        let mut at = root.clone();
        for _ in 0..INDEX_DEPTH_MAX {
            let bytes = self.document(origin, &at, documents).await?;
            let parsed = ManifestKind::parse(&at.media_type, &bytes)
                .map_err(|source| ImageError::Manifest { digest: at.digest.clone(), source })?;
            let index = match parsed {
                ManifestKind::Manifest(manifest) => return Ok((at, *manifest)),
                ManifestKind::Index(index) => index,
            };
            let images: Vec<Descriptor> =
                index.manifests.into_iter().filter(|entry| !is_attestation_manifest(entry)).collect();
            // An entry that does not say is for every platform, if nothing better is there.
            let fits = |entry: &&Descriptor| {
                entry.platform.as_ref().is_none_or(|platform| matcher.matches(platform))
            };
            let mut fitting: Vec<&Descriptor> = images.iter().filter(fits).collect();
            fitting.sort_by(|a, b| match (&a.platform, &b.platform) {
                (Some(a), Some(b)) => matcher.compare(a, b),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => std::cmp::Ordering::Equal,
            });
            match fitting.first() {
                Some(best) => at = (*best).clone(),
                None => {
                    return Err(ImageError::NoPlatform {
                        reference: reference.to_owned(),
                        wanted: platform.clone(),
                        offered: images.into_iter().filter_map(|entry| entry.platform).collect(),
                    }
                    .into());
                }
            }
        }
        Err(ImageError::NotFound(format!("{reference}: a manifest in so many indexes")).into())
    }

    async fn document(
        &self,
        origin: &Origin,
        descriptor: &Descriptor,
        documents: &mut Vec<Blob>,
    ) -> Result<Bytes> {
        let bytes = origin.document(self.store(), descriptor).await?;
        documents.push(self.store().content().put(&bytes)?);
        Ok(bytes)
    }

    /// The image's layers, to be fetched when something reads them.
    pub(crate) fn image_ref(&self, image: &ResolvedImage, record_type: &str) -> Result<Ref> {
        let record_type = match record_type {
            "frontend" => RecordType::Frontend,
            "internal" => RecordType::Internal,
            _ => RecordType::Regular,
        };
        let provider = image.origin.provider();
        let mut reference = Ref::scratch();
        for (descriptor, diff_id) in &image.layers {
            let layer = self.store().lazy_layer(
                &reference,
                LazyLayer {
                    descriptor: descriptor.clone(),
                    diff_id: diff_id.clone(),
                    provider: Arc::clone(&provider),
                    meta: LayerMeta {
                        description: format!("pulled from {}", image.reference),
                        record_type,
                        created_ms: None,
                    },
                },
            )?;
            if layer.is_lazy() {
                image.origin.note(self.store(), &layer)?;
            }
            reference = self.store().append(&reference, &layer)?;
        }
        Ok(reference)
    }
}
