//! The exporters `oci` and `docker`: the image as a layout, in one archive or blob by blob.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::time::SystemTime;

use futures::stream::{self, StreamExt, TryStreamExt};
use kiln_layer::tar::Writer;
use kiln_oci::{Descriptor, Manifest, Timestamp, annotations};
use kiln_registry::{BlobSource, FileSource};
use kiln_session::daemon::ClientStore;
use kiln_store::{Content as BlobStore, Ref};

use super::ahead::AheadFile;
use super::commit::{CommitKind, Committed, commit};
use super::image::{fetch_missing, image_name, response, with_facts};
use super::send::Out;
use super::{ExportBuild, Exported, Exporters};
use crate::archive::{Content, Member, full_names, layout_entries, members, tar_entry};
use crate::attrs::{Attrs, parse_bool};
use crate::error::ExportError;
use crate::image::ImageOptions;
use crate::source::{IMAGE_NAME_KEY, Source};

/// The client's store for what is not sent as one archive.
const CLIENT_STORE: &str = "export";
/// Blobs sent to it at once.
const BLOBS_AT_ONCE: usize = 4;
/// One read of a blob.
const READ_BYTES: usize = 1 << 20;

pub(super) struct ArchiveExporter {
    options: ImageOptions,
    docker: bool,
    tar: bool,
    facts: Attrs,
}

impl ArchiveExporter {
    pub(super) fn new(mut attrs: Attrs, docker: bool) -> Result<Self, ExportError> {
        let options = ImageOptions::take(&mut attrs)?;
        let tar = match attrs.remove("tar") {
            Some(value) => parse_bool("tar", &value, true)?,
            None => true,
        };
        Ok(Self { options, docker, tar, facts: attrs })
    }

    pub(super) fn variant(&self) -> &'static str {
        if self.docker { "docker" } else { "oci" }
    }

    pub(super) async fn export(
        &self,
        id: u32,
        exporters: &Exporters,
        source: &Source<Ref>,
        build: &ExportBuild,
    ) -> Result<Exported, ExportError> {
        if self.docker && source.is_map() {
            let text = "docker exporter does not currently support exporting manifest lists";
            return Err(ExportError::Conflict(text.to_owned()));
        }
        let source = with_facts(source, &self.facts);
        let kind = CommitKind { exporter: self.variant(), always_oci: !self.docker };
        let names = full_names(&image_name(&self.options.name, &source))?;
        let named = (!names.is_empty()).then(|| (IMAGE_NAME_KEY.to_owned(), names.join(",")));
        let caller = exporters.caller(build).await?;
        let mut file = AheadFile::new(&caller, id, BTreeMap::from_iter(named.clone()));
        let ahead = self.tar.then_some(&mut file);
        let mut committed = commit(exporters, &source, build, &self.options, kind, ahead).await?;
        let root = &mut committed.root.descriptor;
        if !root.annotations.contains_key(annotations::CREATED) {
            let platform = source.platforms()?.platforms.into_iter().next();
            let epoch = self.options.epoch.resolve(&source, platform.as_ref())?;
            let created = epoch.unwrap_or_else(|| Timestamp::from(SystemTime::now()));
            root.annotations.insert(annotations::CREATED.to_owned(), whole_seconds(created).to_string());
        }
        let mut response = response(&committed)?;
        response.extend(named);
        fetch_missing(exporters, build, &committed).await?;

        if self.tar {
            let members = self.members(&committed, &names)?;
            let content = exporters.store.content().clone();
            let _step = build.reporter.step("sending tarball");
            let write = move |out: &mut dyn Out| write_archive(&members, &content, out);
            if let Some(target) = file.open(&response).await? {
                target.send(exporters.store.pool(), write).await?;
            }
        } else {
            copy(&caller.store(CLIENT_STORE), exporters.store.content(), &committed).await?;
        }
        let descriptor = Some(committed.root.descriptor.clone());
        Ok(Exported { response, descriptor, finalize: None, _pins: committed.pins })
    }

    fn members(&self, committed: &Committed, names: &[String]) -> Result<Vec<Member>, ExportError> {
        let manifest: Option<Manifest> = match (self.docker, committed.has_index()) {
            // Old engines know single images only.
            (true, false) => {
                let what = committed.root.descriptor.digest.to_string();
                let parsed = serde_json::from_slice(&committed.root.bytes);
                Some(parsed.map_err(|error| ExportError::Manifest { what, source: error.into() })?)
            }
            _ => None,
        };
        let entries = layout_entries(&committed.root.descriptor, names);
        members(entries, blobs(committed), manifest.as_ref().map(|manifest| (manifest, names)))
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_unix(time.unix_seconds()).unwrap_or(time)
}

/// Everything that hangs on the image, what others are made of first: layers, then documents, then manifests.
fn blobs(committed: &Committed) -> Vec<Descriptor> {
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    let mut add = |descriptor: &Descriptor| {
        if seen.insert(descriptor.digest.clone()) {
            all.push(descriptor.clone());
        }
    };
    for node in &committed.manifests {
        node.layers.iter().for_each(|layer| add(&layer.layer.descriptor));
    }
    for node in &committed.manifests {
        node.documents.iter().for_each(|document| add(&document.descriptor));
    }
    committed.manifests.iter().for_each(|node| add(&node.manifest.descriptor));
    add(&committed.root.descriptor);
    all
}

pub(super) fn write_archive(
    members: &[Member],
    content: &BlobStore,
    out: &mut dyn Out,
) -> Result<(), ExportError> {
    let failed = |error: kiln_layer::Error| ExportError::failed("failed to write the archive", error);
    let mut archive = Writer::new(out);
    let mut buffer = vec![0; READ_BYTES];
    for member in members {
        archive.start(&tar_entry(member)).map_err(failed)?;
        match &member.content {
            Content::Folder => {}
            Content::Bytes(bytes) => archive.write_data(bytes).map_err(failed)?,
            Content::Blob(descriptor) => {
                let there = archive.get_mut().has(descriptor);
                if there.map_err(|error| failed(kiln_layer::Error::Write(error)))? {
                    archive.passed(descriptor.size).map_err(failed)?;
                    continue;
                }
                let mut file = content
                    .reader(&descriptor.digest)
                    .map_err(super::store_failed("failed to read a blob"))?;
                let mut left = descriptor.size;
                while left > 0 {
                    let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let read = file
                        .read(&mut buffer[..most])
                        .map_err(|error| ExportError::failed("failed to read a blob", error))?;
                    if read == 0 {
                        let what = format!("blob {} is shorter than it was", descriptor.digest);
                        return Err(ExportError::Result(what));
                    }
                    archive.write_data(&buffer[..read]).map_err(failed)?;
                    left -= read as u64;
                }
            }
        }
    }
    archive.finish().map(drop).map_err(failed)
}

/// Copies all blobs into a store of the client, the image itself last.
async fn copy(target: &ClientStore, content: &BlobStore, committed: &Committed) -> Result<(), ExportError> {
    let send = |descriptor: Descriptor| async move {
        let failed = |error| ExportError::failed(format!("failed to send {}", descriptor.digest), error);
        if target.info(&descriptor.digest).await.is_ok_and(|known| known.is_some()) {
            return Ok(());
        }
        let source = FileSource { path: content.path(&descriptor.digest) };
        let stream =
            source.open().await.map_err(|error| ExportError::failed("failed to read a blob", error))?;
        target.write(&descriptor.digest, descriptor.size, stream).await.map_err(failed)
    };
    let mut all = blobs(committed);
    let manifests: Vec<Descriptor> = {
        let split = all.iter().position(|blob| {
            committed.manifests.first().is_some_and(|node| node.manifest.descriptor.digest == blob.digest)
        });
        all.split_off(split.unwrap_or(all.len()))
    };
    stream::iter(all).map(send).buffer_unordered(BLOBS_AT_ONCE).try_collect::<Vec<()>>().await?;
    for manifest in manifests {
        send(manifest).await?;
    }
    Ok(())
}
