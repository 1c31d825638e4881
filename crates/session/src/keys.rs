//! Names of headers.

/// The session's id, chosen by the client.
pub(crate) const SESSION_ID: &str = "x-docker-expose-session-uuid";
/// A name for people.
pub(crate) const SESSION_NAME: &str = "x-docker-expose-session-name";
/// Equal for sessions of one directory.
pub(crate) const SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
/// A method that the client serves; many.
pub(crate) const METHOD: &str = "x-docker-expose-session-grpc-method";
/// Milliseconds between health checks and for each of them; meant for tests of clients.
pub(crate) const HEALTH_TIMEOUT: &str = "x-buildkit-session-health-custom-timeout";

/// Which ssh agent.
pub(crate) const SSH_ID: &str = "buildkit.ssh.id";
/// Which content store.
pub(crate) const STORE_ID: &str = "buildkit-attachable-store-id";
/// Path of an upload.
pub(crate) const UPLOAD_PATH: &str = "urlpath";
/// Host of an upload.
pub(crate) const UPLOAD_HOST: &str = "urlhost";

/// Which directory of the client.
pub(crate) const DIR_NAME: &str = "dir-name";
/// Patterns to include.
pub(crate) const INCLUDE_PATTERNS: &str = "include-patterns";
/// Patterns to exclude.
pub(crate) const EXCLUDE_PATTERNS: &str = "exclude-patterns";
/// Paths to include with what links on them lead to.
pub(crate) const FOLLOW_PATHS: &str = "followpaths";

/// Which of a build's exporters a result is from.
pub(crate) const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
/// What an exporter says about a file, by the name that follows.
pub(crate) const EXPORTER_METADATA_PREFIX: &str = "exporter-md-";
/// `1`: the directory that comes has all platforms' results at once.
pub(crate) const EXPORTER_MULTI_PLATFORM: &str = "buildkit-exporter-multi-platform";

/// `1`, of a session: whoever runs on the client's machine as the client's user may ask for handles of files. Of a call: it asks for one.
/// No original daemon or client knows it.
pub(crate) const HANDLES: &str = "x-kiln-handles";
/// In the answer to such a call: where the handle can be taken.
pub(crate) const HANDLE_NAME: &str = "x-kiln-handle-name";
