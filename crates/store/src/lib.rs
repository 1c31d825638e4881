//! One root directory that holds all state: content blobs, layers, records, cache keys, history.
//!
//! ```text
//! <root>/
//!   lock            one process at a time
//!   kiln.db         SQLite: layers, refs, records, keys, history (see `db::schema`)
//!   content/        an OCI image layout: oci-layout, index.json (the local images), blobs/sha256/
//!   ingest/         blobs being written
//!   layers/<id>/    fs: the layer in overlayfs format; work: overlayfs' own
//!   flat/           blocks of long lists of layers, and whole lists without overlayfs; may go at any time
//!   mnt/            mount points
//!   empty/          an empty directory
//!   scratch/        files without a name, while they are needed
//!   sites/          empty directories where new layers begin, on ext4 without a journal; may go while nothing is open
//!   trash/          what is being removed
//! ```
//!
//! The unit is the [layer](LayerHandle): a directory in overlayfs format, immutable once committed, perhaps still
//! *lazy* (only its descriptor is known). A [`Ref`] is an ordered list of layers. What a handle, a [`Ref`] or a
//! [`Blob`] points to is not removed while it lives; those are this process's leases, so that a client that vanishes
//! leaves none behind. Beyond that, the database's foreign keys keep what something else is made of.
//!
//! # What survives what
//! * *kill -9*: everything committed. Half-made layers and blobs are removed at the next start.
//! * *power loss*: blobs, always: they are synced before they get their name. Layers made in the last seconds may be
//!   gone, with the records that need them: they are marked as synced only after `syncfs`, and at the first start
//!   after a boot those not marked are dropped. So cache may be lost, correctness never.
//!
//! This crate knows nothing of registries, LLB or running processes; fetching goes through [`Provider`].
#![forbid(unsafe_code)]

mod content;
mod db;
mod error;
mod flights;
mod history;
mod id;
mod images;
mod keys;
mod layers;
mod mount;
mod named;
mod options;
pub mod pool;
mod records;
mod recover;
mod reference;
mod sites;
mod store;
mod sync;
mod usage;
mod values;

pub use content::{Blob, Content, Ingest};
pub use error::{Error, Result};
pub use history::{History, HistoryEntry};
pub use id::{LayerId, RecordId, RefId};
pub use images::{Image, Images};
pub use keys::{KeyLink, KeyRecord, Keys};
pub use layers::{
    BlobOptions, BlobSink, BoxError, CommitInfo, FetchEvent, FetchObserver, LayerBlob, LayerHandle,
    LayerMeta, LayerState, LazyLayer, MutableLayer, NoObserver, Provider, RecordType,
};
pub use mount::{Directories, Mount, MountSource, Mounted, OverlaySpec};
pub use named::{NamedLayer, NamedSpec, Sharing};
pub use options::{Backend, StoreOptions};
pub use records::{Record, Records};
pub use reference::Ref;
pub use store::Store;
pub use usage::{DiskUsageOptions, PruneOptions, UsageFilter, UsageRecord};
pub use values::Values;
