//! Networks of steps.

/// The networks that steps can ask for.
#[derive(Clone, Debug, Default)]
pub struct Providers {
    /// What [`crate::NetMode::Sandbox`] means.
    pub sandbox: Mode,
}

/// `worker.oci.networkMode` of `buildkitd.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The host's network (BuildKit's own fallback where no CNI is set up).
    #[default]
    Auto,
    Host,
    None,
    /// A namespace a step, joined to a bridge of the daemon's, with NAT.
    Bridge,
}
