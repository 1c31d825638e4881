//! Directories of the client, transferred as far as the daemon does not have them.
//!
//! The sender walks a directory and tells what is there (STAT, numbered), in the order of path components; the receiver asks for
//! the contents that it wants (REQ); contents come in pieces (DATA, an empty one being the end), those of several files mixed. FIN
//! goes both ways; ERR carries the reason of whoever gives up.
//!
//! * [`send`] sends an [`FsSource`]; [`LocalDir`] is one, a directory of this host.
//! * [`receive`] feeds an [`FsSink`]; [`DirSink`] is one that writes beneath a directory handle.
//!
//! Who calls whom is said in [`crate::client`] and [`crate::daemon`].

mod beneath;
mod dir_sink;
mod error;
mod filter;
mod follow;
mod headers;
mod local_dir;
mod metadata_only;
mod mode;
mod order;
mod receive;
mod send;
mod stat;
mod tree;
mod walk;
mod writer;

pub use dir_sink::{
    Change, ChangeKind, Differ, DirHandle, DirSink, DirSinkOptions, Existing, Outcome, OwnerPolicy,
};
pub use error::SyncError;
pub use filter::Filter;
pub(crate) use headers::{decode_values, encode_values};
pub(crate) use local_dir::FilteredDir;
pub use local_dir::LocalDir;
pub use metadata_only::METADATA_FILE;
pub use mode::{FileKind, GoMode};
pub use order::compare_paths;
pub use receive::{ContentWriter, FsSink, ReceiveLimits, SinkError, Want, receive};
pub use send::{FsSource, send};
pub use stat::FileStat;
pub use tree::{Tree, TreeEntry, TreeError};

use kiln_proto::fsutil_types::Packet;
use kiln_proto::fsutil_types::packet::PacketType;

/// Packets that wait between threads and the connection, at most.
const QUEUE: usize = 64;

/// Bytes of a file in one packet at most: large enough to cost little, small enough that files take turns.
const DATA_BYTES_MAX: usize = 128 << 10;

fn error_packet(message: &str) -> Packet {
    Packet { r#type: PacketType::PacketErr as i32, data: message.to_string().into(), ..Default::default() }
}

fn fin_packet() -> Packet {
    Packet { r#type: PacketType::PacketFin as i32, ..Default::default() }
}
