//! Names and values of the attributes of source and build operations.

/// Git: keep `.git`.
pub const GIT_KEEP_GIT_DIR: &str = "git.keepgitdir";
/// Git: the remote with its transport, as a person gave it.
pub const GIT_FULL_URL: &str = "git.fullurl";
/// Git: id of the secret that has an HTTP authorization header.
pub const GIT_AUTH_HEADER_SECRET: &str = "git.authheadersecret";
/// Git: id of the secret that has an HTTP token.
pub const GIT_AUTH_TOKEN_SECRET: &str = "git.authtokensecret";
/// Git: lines of an ssh `known_hosts` file.
pub const GIT_KNOWN_SSH_HOSTS: &str = "git.knownsshhosts";
/// Git: id of the ssh agent to forward.
pub const GIT_MOUNT_SSH_SOCK: &str = "git.mountsshsock";
/// Git: the commit (or a prefix of it) that the ref must resolve to.
pub const GIT_CHECKSUM: &str = "git.checksum";
/// Git: leave submodules out.
pub const GIT_SKIP_SUBMODULES: &str = "git.skipsubmodules";
/// Git: `checkout` or `commit`.
pub const GIT_MTIME: &str = "git.mtime";
/// Git: fetch the checksum's commit without asking the remote for the ref.
pub const GIT_FETCH_BY_COMMIT: &str = "git.fetchbycommit";
/// Git: locator of a bundle to import from.
pub const GIT_BUNDLE: &str = "git.bundle";
/// Git: give a bundle instead of a tree.
pub const GIT_CHECKOUT_BUNDLE: &str = "git.checkoutbundle";
/// Git: armored keys that must have signed.
pub const GIT_SIG_PUBKEY: &str = "git.sig.pubkey";
/// Git: refuse expired keys.
pub const GIT_SIG_REJECT_EXPIRED: &str = "git.sig.rejectexpired";
/// Git: the tag itself must be signed.
pub const GIT_SIG_REQUIRE_SIGNED_TAG: &str = "git.sig.requiresignedtag";
/// Git: look at the commit's signature only.
pub const GIT_SIG_IGNORE_SIGNED_TAG: &str = "git.sig.ignoresignedtag";

/// Local: the only session that may answer.
pub const LOCAL_SESSION_ID: &str = "local.session";
/// Local: makes the vertex of one build differ from that of another.
pub const LOCAL_UNIQUE_ID: &str = "local.unique";
/// Local: JSON array of patterns to include.
pub const LOCAL_INCLUDE_PATTERNS: &str = "local.includepattern";
/// Local: JSON array of paths whose links are followed.
pub const LOCAL_FOLLOW_PATHS: &str = "local.followpaths";
/// Local: JSON array of patterns to exclude.
pub const LOCAL_EXCLUDE_PATTERNS: &str = "local.excludepatterns";
/// Local: what transfers that share a previous state have in common.
pub const LOCAL_SHARED_KEY_HINT: &str = "local.sharedkeyhint";
/// Local: how files are compared with the previous transfer.
pub const LOCAL_DIFFER: &str = "local.differ";
/// Value of [`LOCAL_DIFFER`]: send everything.
pub const LOCAL_DIFFER_NONE: &str = "none";
/// Value of [`LOCAL_DIFFER`]: compare metadata.
pub const LOCAL_DIFFER_METADATA: &str = "metadata";
/// Local: transfer metadata only.
pub const LOCAL_METADATA_TRANSFER: &str = "local.metadatatransfer";
/// Local: JSON array of patterns whose contents are transferred all the same.
pub const LOCAL_METADATA_TRANSFER_EXCLUDE: &str = "local.metadatatransferexclude";

/// Build: the file that has the definition.
pub const LLB_DEFINITION_FILENAME: &str = "llbbuild.filename";

/// HTTP: digest of the body.
pub const HTTP_CHECKSUM: &str = "http.checksum";
/// HTTP and blobs: name of the file.
pub const HTTP_FILENAME: &str = "http.filename";
/// HTTP and blobs: octal permissions of the file.
pub const HTTP_PERM: &str = "http.perm";
/// HTTP and blobs: owner of the file.
pub const HTTP_UID: &str = "http.uid";
/// HTTP and blobs: group of the file.
pub const HTTP_GID: &str = "http.gid";
/// HTTP: id of the secret that has an authorization header.
pub const HTTP_AUTH_HEADER_SECRET: &str = "http.authheadersecret";
/// HTTP: a request header's name follows.
pub const HTTP_HEADER_PREFIX: &str = "http.header.";
/// HTTP: armored keys that must have signed.
pub const HTTP_SIG_PUBKEY: &str = "http.sig.pubkey";
/// HTTP: the detached armored signature.
pub const HTTP_SIG_SIGNATURE: &str = "http.sig.signature";

/// Image: one of `default`, `pull`, `local`.
pub const IMAGE_RESOLVE_MODE: &str = "image.resolvemode";
/// Image: what its records are listed as.
pub const IMAGE_RECORD_TYPE: &str = "image.recordtype";
/// Image: only this many of the lowest layers.
pub const IMAGE_LAYER_LIMIT: &str = "image.layerlimit";
/// Image: digest that the reference must resolve to.
pub const IMAGE_CHECKSUM: &str = "image.checksum";

/// OCI layout: session that has the store.
pub const OCI_SESSION_ID: &str = "oci.session";
/// OCI layout: the store's name in that session.
pub const OCI_STORE_ID: &str = "oci.store";
/// OCI layout: only this many of the lowest layers.
pub const OCI_LAYER_LIMIT: &str = "oci.layerlimit";

/// Scheme of images.
pub const SCHEME_IMAGE: &str = "docker-image://";
/// Scheme of single blobs in a registry.
pub const SCHEME_IMAGE_BLOB: &str = "docker-image+blob://";
/// Scheme of images in a client's OCI layout.
pub const SCHEME_OCI_LAYOUT: &str = "oci-layout://";
/// Scheme of single blobs in a client's OCI layout.
pub const SCHEME_OCI_LAYOUT_BLOB: &str = "oci-layout+blob://";
/// Scheme of git repositories.
pub const SCHEME_GIT: &str = "git://";
/// Scheme of a client's directories.
pub const SCHEME_LOCAL: &str = "local://";
/// Scheme of files over HTTP.
pub const SCHEME_HTTP: &str = "http://";
/// Scheme of files over HTTPS.
pub const SCHEME_HTTPS: &str = "https://";
