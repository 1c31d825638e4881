//! Bounds on what a hostile Dockerfile may ask for. Each is far above what people write.

/// Longest line of a Dockerfile in bytes, its line feed included; BuildKit's own limit.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Largest Dockerfile that is parsed, in bytes. Everything later is linear in it.
pub const DOCKERFILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How deep `${a:-${b:-…}}` may nest.
pub const EXPANSION_DEPTH_MAX: usize = 128;

/// Largest text that expanding one word may give, in bytes: values that name other values grow fast.
pub const EXPANSION_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How many rounds of triggers of base images may bring in further stages.
pub const ONBUILD_ROUNDS_MAX: usize = 64;

/// Most triggers that one stage may inherit.
pub const ONBUILD_TRIGGERS_MAX: usize = 4096;

/// How often a source policy may send a named context elsewhere.
pub const CONTEXT_REDIRECTS_MAX: usize = 10;

/// Ports in one `EXPOSE` range: all of them.
pub const EXPOSE_PORTS_MAX: u32 = 65536;
