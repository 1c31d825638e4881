//! Bounds on what a hostile Dockerfile may ask for. Each is far above what people write. Together they
//! keep time and memory of a conversion proportional to the text: what grows faster is bounded here.

/// Largest Dockerfile that is parsed, in bytes.
pub const DOCKERFILE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest line of a Dockerfile in bytes, its line feed included; BuildKit's own limit.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Most lines that continuations may join to one. Each name in it remembers where it is.
pub const CONTINUATION_LINES_MAX: usize = 10_000;

/// Most instructions.
pub const STATEMENTS_MAX: usize = 20_000;

/// Most names in one `ARG`.
pub const ARG_NAMES_MAX: usize = 1000;

/// How deep `${a:-${b:-…}}` may nest.
pub const EXPANSION_DEPTH_MAX: usize = 128;

/// Most bytes of values that expanding one word may bring in: values that name other values grow fast.
pub const EXPANSION_BYTES_MAX: usize = 1024 * 1024;

/// The same for all words of a conversion.
pub const EXPANSIONS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most variables of a stage, and their bytes: no process could be started with more. Each instruction
/// that sets one copies them.
pub const VARIABLES_MAX: usize = 5000;
pub const VARIABLES_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Most ports that the `EXPOSE`s of a stage may write out, ranges counted in full.
pub const EXPOSE_PORTS_MAX: usize = 1_000_000;

/// Most violations of checks that are kept, and the lines that they point to.
pub const FINDINGS_MAX: usize = 1000;
pub const FINDING_LINES_MAX: usize = 100_000;

/// How many rounds of triggers of base images may bring in further stages.
pub const ONBUILD_ROUNDS_MAX: usize = 64;

/// Most triggers that one stage may inherit.
pub const ONBUILD_TRIGGERS_MAX: usize = 4096;

/// How often a source policy may send a named context elsewhere.
pub const CONTEXT_REDIRECTS_MAX: usize = 10;
