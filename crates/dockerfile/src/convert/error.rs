//! What can go wrong when a Dockerfile is converted. The texts are those that users of BuildKit know.

use crate::git_ref::GitRefError;
use crate::limits::{EXPOSE_PORTS_MAX, VARIABLES_BYTES_MAX, VARIABLES_MAX};
use crate::mode::ModeError;
use crate::path::PathError;
use crate::values::quote;
use kiln_oci::{DigestError, PlatformError, ReferenceError};
use thiserror::Error;

/// Why a sound Dockerfile gives no graph.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConvertError {
    #[error("dockerfile contains no stages to build")]
    NoStages,
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    #[error("empty platform value from expression {0}")]
    EmptyPlatform(String),
    #[error(transparent)]
    Platform(PlatformError),
    #[error("target stage {} could not be found", quote(.0))]
    Target(String),
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    FromExpansion,
    #[error("invalid stage index {0}")]
    StageIndex(i64),
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    #[error(transparent)]
    Reference(ReferenceError),
    #[error("failed to parse image config: {0}")]
    ImageConfig(String),
    #[error("invalid context name {name}: {error}")]
    ContextName { name: String, error: ReferenceError },
    #[error("invalid context specifier {specifier} for {name}")]
    ContextSpecifier { specifier: String, name: String },
    #[error("unsupported context source {scheme} for {name}")]
    ContextSource { scheme: String, name: String },
    #[error(
        "context recursion limit exceeded; this may indicate a cycle in the provided source policies: {0}"
    )]
    ContextRecursion(String),
    #[error("could not parse ref: {0}")]
    ContextRedirect(String),
    #[error("invalid git context {0}")]
    GitContext(String),
    #[error("could not parse oci-layout reference {}", quote(.0))]
    OciLayoutReference(String),
    #[error("oci-layout reference {} has no digest", quote(.0))]
    OciLayoutDigest(String),
    #[error("invalid input {input} for {name}")]
    Input { input: String, name: String },
    #[error("failed to parse input metadata {0}")]
    InputMetadata(String),
    #[error("failed parsing .dockerignore: {0}")]
    Ignore(crate::ignore::IgnoreError),
    #[error("more than {VARIABLES_MAX} variables, or {VARIABLES_BYTES_MAX} bytes of them")]
    Variables,
    #[error("more than {EXPOSE_PORTS_MAX} ports are exposed")]
    Ports,
    #[error("onbuild trigger should be a single expression")]
    OnbuildSingle,
    #[error("more than {0} build triggers")]
    OnbuildTriggers(usize),
    #[error("build triggers bring in new stages more than {0} times")]
    OnbuildRounds(usize),
    #[error("cannot copy from stage {}, it needs to be defined before current stage {}", quote(.from), quote(.stage))]
    CopyBeforeStage { from: String, stage: String },
    #[error("cannot mount from stage {} to {}, stage needs to be defined before current command", quote(.from), quote(.target))]
    MountBeforeStage { from: String, target: String },
    #[error("invalid mount target {}", quote(.0))]
    MountTarget(String),
    #[error("one of source, target required")]
    SecretTarget,
    #[error("ssh does not support source")]
    SshSource,
    #[error("parsing produced an invalid run command: [{0}]")]
    RunHeredoc(String),
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("invalid signal: {0}")]
    Signal(String),
    #[error(transparent)]
    Path(PathError),
    #[error(transparent)]
    Mode(ModeError),
    #[error("checksum can't be specified for COPY")]
    ChecksumForCopy,
    #[error("checksum can't be specified for multiple sources")]
    ChecksumForSeveral,
    #[error("checksum requires HTTP(S) or Git sources")]
    ChecksumForLocal,
    #[error("checksum mismatch {} != {}", quote(.flag), quote(.reference))]
    ChecksumMismatch { flag: String, reference: String },
    #[error("inconsistent keep-git-dir configuration")]
    KeepGitDir,
    #[error("source can't be a git ref for COPY")]
    GitForCopy,
    #[error("source can't be a URL for COPY")]
    UrlForCopy,
    #[error(transparent)]
    GitRef(GitRefError),
    #[error(transparent)]
    Digest(DigestError),
    #[error("invalid port: {}: {reason}", quote(.port))]
    Port { port: String, reason: String },
    #[error("invalid IP address: {0}")]
    PortIp(String),
    #[error("invalid IP address {0}")]
    PortBracketIp(String),
    #[error("invalid containerPort: {0}")]
    ContainerPort(String),
    #[error("invalid hostPort: {0}")]
    HostPort(String),
    #[error("invalid ranges specified for container and host Ports: {container} and {host}")]
    PortRanges { container: String, host: String },
    #[error("invalid SOURCE_DATE_EPOCH: {0}")]
    Epoch(String),
    #[error("SOURCE_DATE_EPOCH stage must use FROM scratch")]
    EpochBase,
    #[error("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD")]
    EpochAdds,
    #[error("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source")]
    EpochSources,
    #[error("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD")]
    EpochSource,
    #[error("SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {0} instruction")]
    EpochInstruction(String),
    #[error(transparent)]
    Llb(kiln_llb::Error),
}

macro_rules! from {
    ($($error:ty => $variant:ident),* $(,)?) => {
        $(impl From<$error> for ConvertError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }

        impl From<$error> for crate::Error {
            fn from(error: $error) -> Self {
                ConvertError::$variant(error).into()
            }
        })*
    };
}

from!(PathError => Path, ModeError => Mode, GitRefError => GitRef, DigestError => Digest, kiln_llb::Error => Llb);
