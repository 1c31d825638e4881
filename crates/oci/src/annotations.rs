//! Keys of annotations and labels that have a meaning to builders and engines.

/// When the image was made (RFC 3339).
pub const CREATED: &str = "org.opencontainers.image.created";
/// The tag of an image in an image layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name of an image in containerd's archives.
pub const CONTAINERD_IMAGE_NAME: &str = "io.containerd.image.name";
/// The digest of the base image.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// The name of the base image.
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";

/// What a manifest that is no image refers to: `attestation-manifest`.
pub const DOCKER_REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The digest of the manifest which an attestation manifest is about.
pub const DOCKER_REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// A free text about the attestation.
pub const DOCKER_REFERENCE_DESCRIPTION: &str = "vnd.docker.reference.description";
/// The value of [`DOCKER_REFERENCE_TYPE`] for attestations.
pub const ATTESTATION_MANIFEST: &str = "attestation-manifest";
/// The predicate type of an attestation's layer.
pub const IN_TOTO_PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// The diff id of a layer, on descriptors which travel without an image configuration.
pub const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Start of the keys that say from which repositories a blob came; the registry's host follows.
pub const DISTRIBUTION_SOURCE_PREFIX: &str = "containerd.io/distribution.source.";
/// When the layer of a cache record was made (RFC 3339).
pub const BUILDKIT_CREATED_AT: &str = "buildkit/createdat";
/// What a layer of a cache record holds.
pub const BUILDKIT_DESCRIPTION: &str = "buildkit/description";
/// Marks the digest before timestamps were rewritten to an epoch.
pub const BUILDKIT_REWRITTEN_TIMESTAMP: &str = "buildkit/rewritten-timestamp";
