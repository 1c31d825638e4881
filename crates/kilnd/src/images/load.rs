//! Images out of an archive: an OCI image layout, or what `docker save` writes.
//!
//! The archive is read once, as it comes. Blobs go into the store as they pass; the documents that say what they are may stand
//! before or after them.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use kiln_layer::tar::{Chunks, EntryKind, Reader};
use kiln_oci::{Descriptor, Digest, Index, Manifest, Reference, annotations, gojson, media_type};
use kiln_proto::images::{LoadImagesRequest, LoadOptions, TransferProgress, load_images_request::Part};
use kiln_store::{Blob, Image, Store};
use serde::Deserialize;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{Answers, describe, failed, full_name, walk::DOCUMENT_BYTES_MAX};

/// Messages that wait to be read from.
const CHUNKS: usize = 8;
/// Members that an archive may have.
const MEMBERS_MAX: usize = 100_000;
/// Bytes taken from a member at once.
const PIECE_BYTES: usize = 256 << 10;

pub(super) async fn load(
    store: Store,
    mut incoming: Streaming<LoadImagesRequest>,
) -> Result<Answers<TransferProgress>, Status> {
    let mut options = LoadOptions::default();
    let (send, receive) = mpsc::channel::<Bytes>(CHUNKS);
    let (ready, mut first) = (incoming.message().await?, None);
    match ready.and_then(|message| message.part) {
        Some(Part::Options(given)) => options = given,
        Some(Part::Data(data)) => first = Some(data),
        None => {}
    }
    if !options.platforms.is_empty() {
        return Err(Status::unimplemented(
            "loading some platforms of an image is not supported yet: all are loaded",
        ));
    }
    let feeding = async move {
        if let Some(data) = first
            && send.send(data).await.is_err()
        {
            return Ok(());
        }
        while let Some(message) = incoming.message().await? {
            if let Some(Part::Data(data)) = message.part
                && send.send(data).await.is_err()
            {
                break;
            }
        }
        Ok::<(), Status>(())
    };
    let loading = tokio::task::spawn_blocking(move || {
        let images = read(&store, receive, &options.name)?;
        images
            .iter()
            .map(|image| describe::image(&store, image).map_err(failed))
            .collect::<Result<Vec<_>, _>>()
    });
    let (fed, loaded) = tokio::join!(feeding, loading);
    let result = loaded.map_err(failed)??;
    fed?;
    let done =
        TransferProgress { done: true, action: "loaded".to_owned(), result, ..TransferProgress::default() };
    Ok(futures::stream::iter([Ok(done)]).boxed())
}

/// The messages as one stream of bytes.
struct Incoming {
    receive: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.receive.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(into.len());
        self.current.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

/// One line of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

fn read(store: &Store, receive: mpsc::Receiver<Bytes>, name: &str) -> Result<Vec<Image>, Status> {
    let wrong = |error: &dyn std::fmt::Display| {
        Status::invalid_argument(format!("the archive cannot be read: {error}"))
    };
    let plain = kiln_layer::compress::decompressor(Incoming { receive, current: Bytes::new() })
        .map_err(|error| wrong(&error))?;
    let mut tar = Reader::new(Pieces(plain));
    let mut blobs: BTreeMap<String, Blob> = BTreeMap::new();
    let mut documents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut count = 0;
    while let Some(entry) = tar.next_entry().map_err(|error| wrong(&error))? {
        count += 1;
        if count > MEMBERS_MAX {
            return Err(Status::invalid_argument(format!("the archive has more than {MEMBERS_MAX} members")));
        }
        let path = entry.path.to_string_lossy().trim_start_matches("./").to_owned();
        if entry.kind != EntryKind::File {
            continue;
        }
        if matches!(path.as_str(), "index.json" | "manifest.json") {
            let mut bytes = Vec::new();
            while let Some(piece) = tar.next_data(PIECE_BYTES).map_err(|error| wrong(&error))? {
                bytes.extend_from_slice(&piece);
                if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
                    return Err(Status::invalid_argument(format!("{path} is too large")));
                }
            }
            documents.insert(path, bytes);
            continue;
        }
        // A blob of a layout has to hash to its name.
        let expected =
            path.strip_prefix("blobs/").and_then(|rest| rest.replace('/', ":").parse::<Digest>().ok());
        let mut ingest = store.content().ingest(expected.as_ref()).map_err(failed)?;
        while let Some(piece) = tar.next_data(PIECE_BYTES).map_err(|error| wrong(&error))? {
            ingest.write_all(&piece).map_err(failed)?;
        }
        blobs.insert(path, ingest.commit().map_err(failed)?);
    }
    let images = match (documents.get("index.json"), documents.get("manifest.json")) {
        (Some(index), _) => layout(store, index, name)?,
        (None, Some(manifest)) => docker(store, manifest, &blobs, name)?,
        (None, None) => {
            return Err(Status::invalid_argument(
                "the archive is no image: it has neither index.json (OCI layout) nor manifest.json (docker save)",
            ));
        }
    };
    Ok(images)
}

/// Pieces of a reader, as the tar reader takes them.
struct Pieces<R>(R);

impl<R: Read> Chunks for Pieces<R> {
    fn next_chunk(&mut self) -> kiln_layer::Result<Option<Bytes>> {
        let mut piece = bytes::BytesMut::zeroed(PIECE_BYTES);
        let count = self.0.read(&mut piece).map_err(kiln_layer::Error::Read)?;
        piece.truncate(count);
        Ok((count > 0).then(|| piece.freeze()))
    }
}

fn put(store: &Store, name: &str, target: &Descriptor) -> Result<Image, Status> {
    let name = full_name(name)?.to_string();
    store.images().put(&name, target).map_err(failed)?;
    Ok(Image { name, target: target.clone() })
}

fn layout(store: &Store, index: &[u8], name: &str) -> Result<Vec<Image>, Status> {
    let index: Index = serde_json::from_slice(index).map_err(|error| {
        Status::invalid_argument(format!("index.json of the archive is not right: {error}"))
    })?;
    let mut images = Vec::new();
    for entry in &index.manifests {
        let own = entry.annotation(annotations::CONTAINERD_IMAGE_NAME).or_else(|| {
            entry.annotation(annotations::REF_NAME).filter(|name| Reference::parse(name).is_ok())
        });
        let mut target = entry.clone();
        target.annotations.clear();
        match own.or_else(|| (!name.is_empty()).then_some(name)) {
            Some(name) => images.push(put(store, name, &target)?),
            None => {
                return Err(Status::invalid_argument(
                    "the archive does not say what its image is called: give it a name",
                ));
            }
        }
    }
    Ok(images)
}

fn docker(
    store: &Store,
    list: &[u8],
    blobs: &BTreeMap<String, Blob>,
    name: &str,
) -> Result<Vec<Image>, Status> {
    let list: Vec<DockerImage> = serde_json::from_slice(list).map_err(|error| {
        Status::invalid_argument(format!("manifest.json of the archive is not right: {error}"))
    })?;
    let find = |path: &str| {
        blobs
            .get(path)
            .ok_or_else(|| Status::invalid_argument(format!("the archive names {path}, which is not in it")))
    };
    let mut images = Vec::new();
    for image in list {
        let config = find(&image.config)?.descriptor(media_type::OCI_CONFIG);
        let mut layers = Vec::new();
        for path in image.layers.unwrap_or_default() {
            let blob = find(&path)?;
            let mut head = [0; 2];
            let mut file = store.content().open_blob(blob.digest()).map_err(failed)?;
            let zipped = file.read_exact(&mut head).is_ok() && head == [0x1f, 0x8b];
            layers.push(blob.descriptor(if zipped {
                media_type::OCI_LAYER_GZIP
            } else {
                media_type::OCI_LAYER
            }));
        }
        let manifest = Manifest::new(media_type::OCI_MANIFEST, config, layers);
        let bytes = gojson::to_vec(&manifest).map_err(failed)?;
        let blob = store.content().put(&bytes).map_err(failed)?;
        let target = blob.descriptor(media_type::OCI_MANIFEST);
        let mut names = image.repo_tags.unwrap_or_default();
        if names.is_empty() && !name.is_empty() {
            names.push(name.to_owned());
        }
        if names.is_empty() {
            return Err(Status::invalid_argument(
                "the archive does not say what its image is called: give it a name",
            ));
        }
        for name in &names {
            images.push(put(store, name, &target)?);
        }
    }
    Ok(images)
}
