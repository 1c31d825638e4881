//! Making the image: its blobs and documents are in the store afterwards.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use kiln_oci::{Compression, Descriptor, Digest, Image, Timestamp};
use kiln_remotecache::inline::ImageLayer;
use kiln_store::{Blob, Ref};

use super::ahead::AheadFile;
use super::layers::{ExportLayer, LayerWish, WantedLayer, layers, pins, send_ahead, wanted};
use super::supplement::supplement;
use super::{
    COMPATIBILITY_NO_ZSTD, COMPATIBILITY_OCI_DEFAULT, ExportBuild, Exporters, attestations, store_failed,
};
use crate::error::ExportError;
use crate::image::attest::{StatementSubject, build_attestations, statement, without_inline_only};
use crate::image::{Document, ImageOptions, NewMediaTypes, build_image, build_index};
use crate::purl::image_purl;
use crate::source::{BASE_CONFIG_KEY, IMAGE_CONFIG_KEY, PLATFORMS_KEY, PlatformRef, Source};

/// A manifest with all that hangs on it.
pub(super) struct ManifestNode {
    pub(super) manifest: Document,
    pub(super) documents: Vec<Document>,
    pub(super) layers: Vec<ExportLayer>,
}

/// An image, made.
pub(super) struct Committed {
    /// The manifest or index; its descriptor says all that a client is told.
    pub(super) root: Document,
    /// The configuration of an image without index.
    pub(super) config: Option<Digest>,
    /// The manifests below, or the root itself.
    pub(super) manifests: Vec<ManifestNode>,
    pub(super) pins: Vec<Blob>,
}

impl Committed {
    /// Whether the root is an index of the manifests.
    pub(super) fn has_index(&self) -> bool {
        self.config.is_none()
    }
}

/// Who commits, for messages and defaults.
pub(super) struct CommitKind<'a> {
    pub(super) exporter: &'a str,
    /// OCI's types whatever the compatibility version.
    pub(super) always_oci: bool,
}

/// Makes an image of a result. With `ahead`, the first layer that has to be compressed goes there while it is.
pub(super) async fn commit(
    exporters: &Exporters,
    source: &Source<Ref>,
    build: &ExportBuild,
    options: &ImageOptions,
    kind: CommitKind<'_>,
    ahead: Option<&mut AheadFile<'_>>,
) -> Result<Committed, ExportError> {
    if source.is_map() && !source.metadata.contains_key(PLATFORMS_KEY) {
        let text = "unable to export multiple refs, missing platforms mapping";
        return Err(ExportError::Result(text.to_owned()));
    }
    let mut options = options.clone();
    let mut from_frontend = crate::annotations::AnnotationGroups::default();
    for (key, value) in &source.metadata {
        from_frontend.insert(key, &String::from_utf8_lossy(value))?;
    }
    options.annotations.merge(from_frontend);
    let oci_default = kind.always_oci
        || build.compatibility_version >= COMPATIBILITY_OCI_DEFAULT
        || !source.attestations.is_empty();
    let types = options.media_types(oci_default)?;
    if build.compatibility_version == COMPATIBILITY_NO_ZSTD && options.compression.kind == Compression::Zstd {
        return Err(ExportError::Conflict(format!(
            "{} exporter compression=zstd is not supported with compatibility-version {COMPATIBILITY_NO_ZSTD}",
            kind.exporter
        )));
    }
    let platforms = source.platforms()?.platforms;
    let wanted = |platform: &PlatformRef| {
        let all = source.attestations.get(&platform.id).map(Vec::as_slice).unwrap_or_default();
        if options.force_inline_attestations { !all.is_empty() } else { !without_inline_only(all).is_empty() }
    };
    let with_index = source.is_map() || platforms.iter().any(wanted);
    check_annotations(&options, source, types)?;
    if !with_index && platforms.len() > 1 {
        let text = "cannot export multiple platforms without multi-platform enabled";
        return Err(ExportError::Result(text.to_owned()));
    }
    let has_attestations = source.attestations.values().any(|list| !list.is_empty());
    if with_index && !types.oci && has_attestations {
        let text = r#"cannot export attestations with "oci-mediatypes=false""#;
        return Err(ExportError::Conflict(text.to_owned()));
    }

    let writer = Writer { exporters, source, build, options: &options, types };
    let layers = writer.layers(&platforms, ahead).await?;
    let mut pins = pins(&layers);
    if !with_index {
        let platform = platforms.first().expect("there is at least one platform");
        let annotations = options.annotations.for_platform(None);
        if !annotations.index.is_empty() || !annotations.index_descriptor.is_empty() {
            let text = "index annotations not supported for single platform export";
            return Err(ExportError::Result(text.to_owned()));
        }
        let mut node = writer.image(platform, &layers[&platform.id], None, &mut pins).await?;
        node.manifest.descriptor.platform = Some(platform.platform.clone());
        let config = node.documents[0].descriptor.digest.clone();
        return Ok(Committed {
            root: node.manifest.clone(),
            config: Some(config),
            manifests: vec![node],
            pins,
        });
    }

    let mut images = Vec::new();
    let mut attached = Vec::new();
    for platform in &platforms {
        let mut node = writer.image(platform, &layers[&platform.id], Some(platform), &mut pins).await?;
        node.manifest.descriptor.platform = Some(platform.platform.clone());
        attached.extend(writer.attestations(platform, &node, &mut pins).await?);
        images.push(node);
    }
    images.extend(attached);
    let entries: Vec<Descriptor> = images.iter().map(|node| node.manifest.descriptor.clone()).collect();
    let index = build_index(entries, &options.annotations.for_platform(None), types)?.index;
    let step = build.reporter.step(format!("exporting manifest list {}", index.descriptor.digest));
    pins.push(writer.put(&index)?);
    drop(step);
    Ok(Committed { root: index, config: None, manifests: images, pins })
}

fn check_annotations(
    options: &ImageOptions,
    source: &Source<Ref>,
    types: NewMediaTypes,
) -> Result<(), ExportError> {
    for platform in options.annotations.named_platforms() {
        if source.find(platform).is_err() {
            let text = format!("invalid annotation: no platform {platform} found in source");
            return Err(ExportError::Result(text));
        }
    }
    if !types.oci && options.annotations.need_oci() {
        let text = r#"cannot export annotations with "oci-mediatypes=false""#;
        return Err(ExportError::Conflict(text.to_owned()));
    }
    Ok(())
}

struct Writer<'a> {
    exporters: &'a Exporters,
    source: &'a Source<Ref>,
    build: &'a ExportBuild,
    options: &'a ImageOptions,
    types: NewMediaTypes,
}

impl Writer<'_> {
    fn put(&self, document: &Document) -> Result<Blob, ExportError> {
        self.exporters.store.content().put(&document.bytes).map_err(store_failed("error writing blob"))
    }

    fn base(&self, platform: &PlatformRef) -> Result<Option<Image>, ExportError> {
        let Some(config) = self.source.platform_fact(BASE_CONFIG_KEY, Some(platform)) else {
            return Ok(None);
        };
        if config.is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(config)
            .map(Some)
            .map_err(|error| ExportError::Config(format!("failed to unmarshal base image config: {error}")))
    }

    /// The layers of a platform that are wanted, and the epoch that their times are cut to.
    fn wanted(&self, platform: &PlatformRef) -> Result<(Vec<WantedLayer>, Option<Timestamp>), ExportError> {
        let Some(reference) = self.source.find(&platform.id)? else { return Ok((Vec::new(), None)) };
        let epoch = self.options.epoch.resolve(self.source, Some(platform))?;
        let base = self.base(platform)?;
        let wish = LayerWish {
            compression: self.options.compression,
            epoch: epoch.filter(|_| self.options.rewrite_timestamp),
            base: base.as_ref().map(|base| base.rootfs.diff_ids.as_slice()).unwrap_or_default(),
        };
        if self.options.rewrite_timestamp && epoch.is_none() {
            tracing::warn!("rewrite-timestamp is specified, but no source-date-epoch was found");
        }
        Ok((wanted(&self.exporters.store, reference, wish, &self.build.registry), wish.epoch))
    }

    /// The layers of each platform.
    async fn layers(
        &self,
        platforms: &[PlatformRef],
        ahead: Option<&mut AheadFile<'_>>,
    ) -> Result<BTreeMap<String, Vec<ExportLayer>>, ExportError> {
        let step = self.build.reporter.step("exporting layers");
        let store = &self.exporters.store;
        let mut all =
            platforms.iter().map(|platform| self.wanted(platform)).collect::<Result<Vec<_>, _>>()?;
        if let Some(file) = ahead.filter(|file| file.is_possible()) {
            send_ahead(store, all.iter_mut().flat_map(|(wanted, _)| wanted), file).await?;
        }
        let each = platforms.iter().zip(all).map(async |(platform, (wanted, epoch))| {
            let rewriting = epoch.map(|epoch| {
                let seconds = epoch.unix_seconds();
                self.build
                    .reporter
                    .step(format!("rewriting layers with source-date-epoch {seconds} ({epoch})"))
            });
            let found = layers(store, wanted, self.options.prefer_nondist_layers, step.reporter()).await?;
            drop(rewriting);
            Ok::<_, ExportError>((platform.id.clone(), found))
        });
        Ok(try_join_all(each).await?.into_iter().collect())
    }

    async fn image(
        &self,
        platform: &PlatformRef,
        layers: &[ExportLayer],
        annotations_of: Option<&PlatformRef>,
        pins: &mut Vec<Blob>,
    ) -> Result<ManifestNode, ExportError> {
        let epoch = self.options.epoch.resolve(self.source, Some(platform))?;
        let config = self.source.platform_fact(IMAGE_CONFIG_KEY, Some(platform));
        let base = self.base(platform)?;
        let cache = match &self.build.inline_cache {
            Some(cache) => {
                let layers: Vec<ImageLayer> = layers
                    .iter()
                    .map(|layer| ImageLayer {
                        blob: layer.layer.descriptor.digest.clone(),
                        // A layer with rewritten times is still the one that the cache knows.
                        diff_id: layer.handle.diff_id().unwrap_or_else(|| layer.layer.diff_id.clone()),
                    })
                    .collect();
                cache
                    .records(&platform.id, &layers)
                    .await
                    .map_err(|error| ExportError::failed("failed to export inline cache", error))?
            }
            None => None,
        };
        let annotations = self.options.annotations.for_platform(annotations_of.map(|p| &p.platform));
        let described: Vec<_> = layers.iter().map(|layer| layer.layer.clone()).collect();
        let built = build_image(
            config.map(AsRef::as_ref),
            &described,
            &annotations,
            cache.as_deref(),
            epoch,
            base.as_ref(),
            self.types,
        )?;
        let step =
            self.build.reporter.step(format!("exporting manifest {}", built.manifest.descriptor.digest));
        pins.push(self.put(&built.manifest)?);
        drop(step);
        let step = self.build.reporter.step(format!("exporting config {}", built.config.descriptor.digest));
        pins.push(self.put(&built.config)?);
        drop(step);
        Ok(ManifestNode { manifest: built.manifest, documents: vec![built.config], layers: layers.to_vec() })
    }

    /// The manifest that attaches a platform's attestations, if it has any.
    async fn attestations(
        &self,
        platform: &PlatformRef,
        node: &ManifestNode,
        pins: &mut Vec<Blob>,
    ) -> Result<Option<ManifestNode>, ExportError> {
        let Some(all) = self.source.attestations.get(&platform.id) else { return Ok(None) };
        let image = &node.manifest.descriptor;
        let mut read = attestations::read(self.exporters, self.build, all).await?;
        let reference = self.source.find(&platform.id)?;
        supplement(self.exporters, self.build, reference, &node.layers, &mut read).await?;
        let mut subjects = Vec::new();
        for name in self.options.name.split(',').filter(|name| !name.is_empty()) {
            let purl = image_purl(name, Some(&platform.platform))
                .map_err(|source| ExportError::Name { name: name.to_owned(), source })?;
            subjects.push(StatementSubject::new(purl, &image.digest));
        }
        let statements = read
            .iter()
            .map(|one| statement(&one.predicate, &one.predicate_type, &one.subjects, &subjects))
            .collect::<Result<Vec<_>, _>>()?;
        let built = build_attestations(image, &statements, self.types)?;
        let digest = &built.manifest.descriptor.digest;
        let _step = self.build.reporter.step(format!("exporting attestation manifest {digest}"));
        for document in built.statements.iter().chain([&built.config, &built.manifest]) {
            pins.push(self.put(document)?);
        }
        let mut documents = vec![built.config];
        documents.extend(built.statements);
        Ok(Some(ManifestNode { manifest: built.manifest, documents, layers: Vec::new() }))
    }
}
