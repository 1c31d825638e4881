//! The exporter `image`: keeps the image under its names, and sends it to registries.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::try_join_all;
use kiln_oci::{PlatformMatcher, Reference, gojson, platform};
use kiln_store::Ref;

use super::commit::{CommitKind, Committed, commit};
use super::push::{PendingPush, PushTarget};
use super::{ExportBuild, Exported, Exporters, store_failed};
use crate::attrs::{Attrs, parse_bool};
use crate::error::ExportError;
use crate::image::ImageOptions;
use crate::source::{IMAGE_NAME_KEY, Source};
use kiln_remotecache::report::Downloads;

/// Keys of what the client is told.
const DIGEST_KEY: &str = "containerimage.digest";
const CONFIG_DIGEST_KEY: &str = "containerimage.config.digest";
const DESCRIPTOR_KEY: &str = "containerimage.descriptor";

pub(super) struct ImageExporter {
    options: ImageOptions,
    push: bool,
    push_by_digest: bool,
    insecure: bool,
    unpack: bool,
    store: bool,
    store_incomplete: bool,
    name_canonical: bool,
    dangling_prefix: String,
    dangling_empty_only: bool,
    /// Options that are facts about the result.
    facts: Attrs,
}

impl ImageExporter {
    pub(super) fn new(mut attrs: Attrs) -> Result<Self, ExportError> {
        let mut options = ImageOptions::take(&mut attrs)?;
        options.force_inline_attestations = true;
        let mut exporter = Self {
            options,
            push: false,
            push_by_digest: false,
            insecure: false,
            unpack: false,
            store: true,
            store_incomplete: false,
            name_canonical: false,
            dangling_prefix: String::new(),
            dangling_empty_only: false,
            facts: Attrs::new(),
        };
        let mut store = None;
        for (key, value) in attrs {
            let truth = || parse_bool(&key, &value, true);
            match key.as_str() {
                "push" => exporter.push = truth()?,
                "push-by-digest" => exporter.push_by_digest = truth()?,
                "registry.insecure" => exporter.insecure = truth()?,
                "unpack" => exporter.unpack = truth()?,
                "store" => store = Some(truth()?),
                "unsafe-internal-store-allow-incomplete" => exporter.store_incomplete = truth()?,
                "name-canonical" => exporter.name_canonical = truth()?,
                "dangling-name-prefix" => exporter.dangling_prefix = value,
                "danging-name-empty-only" => exporter.dangling_empty_only = truth()?,
                _ => {
                    exporter.facts.insert(key, value);
                }
            }
        }
        // What goes to a registry is kept there: here it would only hold the cache's layers against pruning.
        exporter.store = store.unwrap_or(!exporter.push);
        Ok(exporter)
    }

    pub(super) async fn export(
        &self,
        exporters: &Exporters,
        source: &Source<Ref>,
        build: &ExportBuild,
    ) -> Result<Exported, ExportError> {
        let source = with_facts(source, &self.facts);
        let kind = CommitKind { exporter: "image", always_oci: false };
        let committed = commit(exporters, &source, build, &self.options, kind, None).await?;
        let digest = committed.root.descriptor.digest.clone();

        let mut names = image_name(&self.options.name, &source);
        let mut name_canonical = self.name_canonical;
        if !self.dangling_prefix.is_empty() && (!self.dangling_empty_only || names.is_empty()) {
            let dangling = format!("{}@{digest}", self.dangling_prefix);
            if names.is_empty() {
                names = dangling;
                name_canonical = false;
            } else {
                names = format!("{names},{dangling}");
            }
        }
        let mut targets = Vec::new();
        for name in names.split(',').filter(|name| !name.is_empty()) {
            if self.store {
                self.keep(exporters, &source, build, &committed, name, name_canonical).await?;
            }
            if self.push {
                targets.push(PushTarget {
                    name: name.to_owned(),
                    insecure: self.insecure,
                    by_digest: self.push_by_digest,
                });
            }
        }
        let mut response = response(&committed)?;
        if !names.is_empty() {
            response.insert(IMAGE_NAME_KEY.to_owned(), names);
        }
        let descriptor = committed.root.descriptor.clone();
        let pins = committed.pins.clone();
        let finalize = (!targets.is_empty()).then(|| PendingPush::new(committed, targets));
        Ok(Exported { response, descriptor: Some(descriptor), finalize, _pins: pins })
    }

    /// Gives the image a name in the local store.
    async fn keep(
        &self,
        exporters: &Exporters,
        source: &Source<Ref>,
        build: &ExportBuild,
        committed: &Committed,
        name: &str,
        name_canonical: bool,
    ) -> Result<(), ExportError> {
        // An image that is kept has all its blobs: those that are elsewhere are fetched before it gets its name.
        if !self.store_incomplete {
            let step = build.reporter.step(format!("naming to {name}"));
            fetch_missing(exporters, build, committed).await?;
            drop(step);
        }
        {
            let _step = build.reporter.step(format!("naming to {name}"));
            let full = Reference::parse(name)
                .map(|reference| reference.with_default_tag().to_string())
                .unwrap_or_else(|_| name.to_owned());
            let images = exporters.store.images();
            let failed = || store_failed("failed to name the image");
            images.put(&full, &committed.root.descriptor).map_err(failed())?;
            if name_canonical && !name.contains('@') {
                let canonical = format!("{name}@{}", committed.root.descriptor.digest);
                images.put(&canonical, &committed.root.descriptor).map_err(failed())?;
            }
        }
        if self.unpack {
            if self.options.rewrite_timestamp {
                let text = r#"exporter option "rewrite-timestamp" conflicts with "unpack""#;
                return Err(ExportError::Conflict(text.to_owned()));
            }
            unpack(exporters, source, build, name).await?;
        }
        Ok(())
    }
}

/// A result with an exporter's further options as facts.
pub(super) fn with_facts(source: &Source<Ref>, facts: &Attrs) -> Source<Ref> {
    let mut source = source.clone();
    source.metadata.extend(facts.iter().map(|(key, value)| (key.clone(), value.clone().into())));
    source
}

/// The names of an image; `*` asks for the frontend's.
pub(super) fn image_name(option: &str, source: &Source<Ref>) -> String {
    match source.text(IMAGE_NAME_KEY) {
        Some(name) if option == "*" => name.to_owned(),
        _ => option.to_owned(),
    }
}

/// What the client is told about an image.
pub(super) fn response(committed: &Committed) -> Result<BTreeMap<String, String>, ExportError> {
    let descriptor = &committed.root.descriptor;
    let json =
        gojson::to_vec(descriptor).map_err(|source| ExportError::Json { what: "descriptor", source })?;
    let mut response = BTreeMap::from([
        (DIGEST_KEY.to_owned(), descriptor.digest.to_string()),
        (DESCRIPTOR_KEY.to_owned(), STANDARD.encode(json)),
    ]);
    if let Some(config) = &committed.config {
        response.insert(CONFIG_DIGEST_KEY.to_owned(), config.to_string());
    }
    Ok(response)
}

/// Fetches blobs that only somebody else has.
pub(super) async fn fetch_missing(
    exporters: &Exporters,
    build: &ExportBuild,
    committed: &Committed,
) -> Result<(), ExportError> {
    let missing =
        committed.manifests.iter().flat_map(|node| &node.layers).filter(|layer| layer.pin.is_none());
    let downloads = Downloads(build.reporter.clone());
    try_join_all(
        missing.map(|layer| exporters.store.ensure_blob(&layer.handle, &layer.layer.descriptor, &downloads)),
    )
    .await
    .map_err(store_failed("failed to fetch a layer"))?;
    Ok(())
}

/// Unpacks what this host would run.
async fn unpack(
    exporters: &Exporters,
    source: &Source<Ref>,
    build: &ExportBuild,
    name: &str,
) -> Result<(), ExportError> {
    let matcher = PlatformMatcher::only(&platform::default_for_host());
    let mut fitting: Vec<_> = source.platforms()?.platforms;
    fitting.retain(|entry| matcher.matches(&entry.platform));
    fitting.sort_by(|one, other| matcher.compare(&one.platform, &other.platform));
    let Some(best) = fitting.first() else { return Ok(()) };
    let Some(reference) = source.find(&best.id)? else { return Ok(()) };
    let _step = build.reporter.step(format!("unpacking to {name}"));
    exporters.unpack(reference, build).await.map_err(store_failed("failed to unpack the image"))
}
