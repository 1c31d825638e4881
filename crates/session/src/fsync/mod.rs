//! Directories of the client, transferred as far as the daemon does not have them.
//!
//! The sender walks a directory and tells what is there (STAT, numbered), in the order of path components; the receiver asks for
//! the contents that it wants (REQ); contents come in pieces (DATA, an empty one being the end), those of several files mixed. FIN
//! goes both ways; ERR carries the reason of whoever gives up.
//!
//! * [`send`] sends an [`FsSource`]; [`LocalDir`] is one, a directory of this host.
//! * [`receive`] feeds an [`FsSink`]; [`DirSink`] is one that writes beneath a directory handle.
//!
//! What is known of each file is in [spools](kiln_spool): the memory of a transfer does not depend on how many files there are, but for a
//! fraction of a byte each.
//!
//! Who calls whom is said in [`crate::client`] and [`crate::daemon`].

mod beneath;
mod bits;
mod dir_sink;
mod error;
mod filter;
mod follow;
mod headers;
mod lists;
mod local_dir;
mod metadata_only;
mod mode;
mod offers;
mod order;
mod receive;
mod send;
mod spread;
mod stat;
mod tree;
mod walk;
mod writer;

pub use dir_sink::{Differ, DirHandle, DirSink, DirSinkOptions, Existing, OwnerPolicy};
pub use error::SyncError;
pub use filter::Filter;
pub(crate) use headers::{decode_values, encode_values};
pub use kiln_spool::Spools;
pub(crate) use local_dir::FilteredDir;
pub use local_dir::LocalDir;
pub use metadata_only::METADATA_FILE;
pub use mode::{FileKind, GoMode};
pub use order::compare_paths;
pub use receive::{ContentWriter, FsSink, Packets, ReceiveLimits, SinkError, Want, Wanted, receive};
pub use send::{FsSource, send};
pub use stat::FileStat;
pub use tree::{ContentDigest, Entries, Tree, TreeEntry, TreeError};

use futures::stream::Fuse;
use futures::{FutureExt, Stream, StreamExt};
use kiln_proto::fsutil_types::Packet;
use kiln_proto::fsutil_types::packet::PacketType;
use tonic::Status;

/// Batches of packets that wait between threads and the connection, at most.
const BATCHES_WAITING: usize = 8;

/// Packets that are handed on together, at most: waking a thread costs more than a small file.
const BATCH_PACKETS: usize = 128;

/// Bytes of files in a batch, from which on it is handed on.
const BATCH_BYTES: usize = DATA_BYTES_MAX;

/// Bytes of a file in one packet at most: large enough to cost little, small enough that files take turns.
const DATA_BYTES_MAX: usize = 128 << 10;

/// Waits for a packet, and takes those with it that have come already. A failure of the stream comes with the packets before it: they
/// may say why.
async fn next_batch<I>(incoming: &mut Fuse<I>) -> Option<(Vec<Packet>, Result<(), Status>)>
where
    I: Stream<Item = Result<Packet, Status>> + Unpin,
{
    let mut bytes = 0;
    let mut batch = Vec::new();
    let mut next = incoming.next().await;
    while let Some(packet) = next {
        let packet = match packet {
            Ok(packet) => packet,
            Err(status) => return Some((batch, Err(status))),
        };
        bytes += packet.data.len();
        batch.push(packet);
        if batch.len() >= BATCH_PACKETS || bytes >= BATCH_BYTES {
            break;
        }
        next = incoming.next().now_or_never().flatten();
    }
    (!batch.is_empty()).then_some((batch, Ok(())))
}

fn error_packet(message: &str) -> Packet {
    Packet { r#type: PacketType::PacketErr as i32, data: message.to_string().into(), ..Default::default() }
}

fn fin_packet() -> Packet {
    Packet { r#type: PacketType::PacketFin as i32, ..Default::default() }
}
