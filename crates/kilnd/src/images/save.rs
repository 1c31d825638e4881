//! Images as one archive, streamed as it is read.

use std::io::{BufWriter, Read, Write};

use bytes::Bytes;
use futures::StreamExt;
use kiln_export::archive::{self, Content, Member};
use kiln_layer::tar::Writer;
use kiln_oci::{Descriptor, ManifestKind};
use kiln_proto::images::{Chunk, SaveImagesRequest};
use kiln_store::{Blob, Store};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, failed, find, walk};

/// Bytes of one message.
const CHUNK_BYTES: usize = 1 << 20;
/// Messages that wait to be read.
const CHUNKS: usize = 4;

pub(super) fn save(store: &Store, request: SaveImagesRequest) -> Result<Answers<Chunk>, Status> {
    let docker = match request.format.as_str() {
        "" | "oci" => false,
        "docker" => true,
        other => {
            return Err(Status::invalid_argument(format!(
                "`{other}` is no archive format: expected oci or docker"
            )));
        }
    };
    if !request.platforms.is_empty() {
        return Err(Status::unimplemented(
            "saving some platforms of an image is not supported yet: all are saved",
        ));
    }
    if request.references.is_empty() {
        return Err(Status::invalid_argument("no image to save: name one or more"));
    }
    let mut entries = Vec::new();
    let mut blobs: Vec<Descriptor> = Vec::new();
    let mut single = None;
    for reference in &request.references {
        let image = find(store, reference)?;
        let parts = walk::parts(store, &image.target).map_err(failed)?;
        entries.extend(archive::layout_entries(&image.target, std::slice::from_ref(&image.name)));
        for manifest in &parts.manifests {
            blobs.extend(manifest.layers.iter().cloned());
            blobs.push(manifest.config.clone());
            blobs.push(manifest.descriptor.clone());
        }
        if let [only] =
            parts.manifests.iter().filter(|manifest| !manifest.attestation).collect::<Vec<_>>()[..]
        {
            single = Some((only.descriptor.clone(), image.name.clone()));
        }
        blobs.extend(parts.indexes);
    }
    // What an image does not have here (other platforms) is left out; what is there is held until it was sent.
    let mut held: Vec<Blob> = Vec::new();
    let mut present = Vec::new();
    for blob in blobs {
        if let Some(pin) = store.content().pin(&blob.digest).map_err(failed)? {
            held.push(pin);
            present.push(blob);
        }
    }
    let manifest = match (docker, &single, request.references.len()) {
        (false, ..) => None,
        (true, Some((descriptor, name)), 1) => {
            let bytes = store.content().read(&descriptor.digest, walk::DOCUMENT_BYTES_MAX).map_err(failed)?;
            match ManifestKind::parse(&descriptor.media_type, &bytes).map_err(failed)? {
                ManifestKind::Manifest(manifest) => Some((manifest, vec![name.clone()])),
                ManifestKind::Index(_) => None,
            }
        }
        (true, ..) => {
            return Err(Status::invalid_argument(
                "a docker archive holds one image of one platform: save it as oci",
            ));
        }
    };
    let docker = manifest.as_ref().map(|(manifest, names)| (&**manifest, names.as_slice()));
    let members = archive::members(entries, present, docker).map_err(failed)?;
    Ok(stream(store.clone(), members, held))
}

/// Sends the members one after the other.
fn stream(store: Store, members: Vec<Member>, held: Vec<Blob>) -> Answers<Chunk> {
    let (send, receive) = mpsc::channel::<Result<Chunk, Status>>(CHUNKS);
    tokio::task::spawn_blocking(move || {
        let _held = held;
        let sent = write(&store, &members, BufWriter::with_capacity(CHUNK_BYTES, Messages(send.clone())));
        // A client that went away needs no error.
        if let Err(error) = sent
            && !send.is_closed()
        {
            let _ = send.blocking_send(Err(Status::unknown(error.to_string())));
        }
    });
    ReceiverStream::new(receive).boxed()
}

/// Messages as something to write to.
struct Messages(mpsc::Sender<Result<Chunk, Status>>);

impl Write for Messages {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Chunk { data: Bytes::copy_from_slice(bytes) }));
        sent.map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write(store: &Store, members: &[Member], out: impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let mut tar = Writer::new(out);
    for member in members {
        tar.start(&archive::tar_entry(member))?;
        match &member.content {
            Content::Folder => {}
            Content::Bytes(bytes) => tar.write_data(bytes)?,
            Content::Blob(blob) => {
                let mut file = store.content().open_blob(&blob.digest)?;
                let mut piece = vec![0; CHUNK_BYTES];
                loop {
                    match file.read(&mut piece)? {
                        0 => break,
                        count => tar.write_data(&piece[..count])?,
                    }
                }
            }
        }
    }
    tar.finish()?.flush()?;
    Ok(())
}
