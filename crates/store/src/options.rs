//! How a store is opened.

use std::time::Duration;

use kiln_layer::overlay::Format;
use kiln_layer::threads::Budget;

/// How layers become root file systems.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Overlayfs where a trial mount succeeds, else copies.
    #[default]
    Auto,
    /// Overlayfs; opening fails where it is impossible.
    Overlay,
    /// Copies (sharing blocks where the file system can).
    Native,
}

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// How layers become root file systems.
    pub backend: Backend,
    /// How layer directories are written; in a user namespace: `user.` attributes.
    pub format: Format,
    /// The helper threads for compressing and unpacking, shared with whoever else has a clone.
    pub budget: Budget,
    /// Blocking jobs (unpacking, compressing, hashing) that run at once.
    pub pool_width: usize,
    /// The most plain bytes one layer archive may expand to.
    pub layer_bytes_max: Option<u64>,
    /// How long after a layer was made the disk is synced.
    pub sync_delay: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            backend: Backend::Auto,
            format: Format::default(),
            budget: Budget::for_host(),
            // Jobs also wait for the disk and the network: twice the processors keeps both busy.
            pool_width: (processors * 2).max(4),
            layer_bytes_max: None,
            sync_delay: Duration::from_secs(2),
        }
    }
}
