//! Protobuf and gRPC types of the wire API, clients and servers.
//!
//! Modules are the protobuf packages (`moby.buildkit.v1` is [`moby::buildkit::v1`]); the names below them shorten the way. Package,
//! message and field names and numbers are BuildKit's: they are the protocol. The only package of our own is `kiln.v1`.
//! Nothing here checks a value: every message comes from a peer and is judged where it is read.

#![forbid(unsafe_code)]

#[allow(missing_docs, clippy::all, rustdoc::all)]
mod packages {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

pub use packages::*;

/// `containerd.services.content.v1`: blobs by digest, on the daemon and (for `oci-layout` contexts and local caches) on the client.
pub use packages::containerd::services::content::v1 as content;
/// `fsutil.types`: frames of the file transfer.
pub use packages::fsutil::types as fsutil_types;
/// `google.rpc`: the status with details, and advice as one of them.
pub use packages::google::rpc;
/// `kiln.v1`: the daemon's local image store.
pub use packages::kiln::v1 as images;
/// `moby.buildkit.v1`: the Control service.
pub use packages::moby::buildkit::v1 as control;
/// `moby.buildkit.v1.apicaps`: named capabilities.
pub use packages::moby::buildkit::v1::apicaps;
/// `moby.buildkit.v1.frontend`: the LLBBridge service.
pub use packages::moby::buildkit::v1::frontend;
/// `moby.buildkit.v1.sourcepolicy`: rules about sources.
pub use packages::moby::buildkit::v1::sourcepolicy;
/// `moby.buildkit.v1.types`: worker records.
pub use packages::moby::buildkit::v1::types;
/// `moby.filesync.v1`: the client's files and credentials.
pub use packages::moby::filesync::v1 as filesync;
/// `opentelemetry.proto.collector.trace.v1`: trace export, unread.
pub use packages::opentelemetry::proto::collector::trace::v1 as trace;

pub use bytes;
pub use prost;
pub use prost_types;
pub use tonic;

use prost_types::FileDescriptorSet;

/// All files, encoded.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Descriptors of the files that `wanted` picks by their names, with all that they import. Taking in all files costs a
/// process megabytes and as much time as a small build.
pub fn descriptors(wanted: impl Fn(&str) -> bool) -> FileDescriptorSet {
    use prost::Message as _;
    let all =
        FileDescriptorSet::decode(DESCRIPTORS).expect("the descriptors were compiled with the messages").file;
    let mut keep: Vec<bool> = all.iter().map(|file| wanted(file.name())).collect();
    // A file comes after those that it imports.
    for (index, file) in all.iter().enumerate().rev() {
        if keep[index] {
            for import in &file.dependency {
                if let Some(found) = all.iter().position(|other| other.name() == import) {
                    keep[found] = true;
                }
            }
        }
    }
    let file = all.into_iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect();
    FileDescriptorSet { file }
}

/// The largest gRPC message that BuildKit peers accept, in bytes; callers set it on clients and servers.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Bytes taken from a socket at once. The HTTP/2 library asks for 8 KiB at a time, which would be a system call for each.
pub const SOCKET_READ_BYTES: usize = 256 << 10;

/// The largest HTTP/2 frame to take: one message of a file's contents fits.
pub const FRAME_BYTES_MAX: u32 = 1 << 20;

/// HTTP/2 window of one stream, in bytes, for every connection that this API runs over: file contents must not wait for updates.
pub const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// HTTP/2 window of a whole connection, in bytes. It is not what bounds memory: the windows of the streams do. It is this large because
/// the HTTP/2 library gives a connection up (ENHANCE_YOUR_CALM, `too_many_data_frames`) when frames smaller than 256 bytes that wait to
/// be read fall short of that size by more than half of this window, in sum. Peers send a frame for each small message, such as one for
/// each file of a directory: one stream full of frames of one byte must still be fine.
pub const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;

const _: () = assert!(STREAM_WINDOW_BYTES as u64 * 255 <= CONNECTION_WINDOW_BYTES as u64 / 2);
