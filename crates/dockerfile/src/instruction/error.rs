//! What can be wrong with an instruction. The texts are those that users of BuildKit know.

use crate::values::{CsvError, DurationError, NumberError, quote};
use thiserror::Error;

/// Why a statement is no instruction.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InstructionError {
    #[error("unknown instruction: {0}")]
    Unknown(String),
    #[error("no build stage in current context")]
    NoStage,
    #[error("a build stage cannot be a command")]
    NotACommand,
    #[error("{0} requires at least one argument")]
    AtLeastOneArgument(&'static str),
    #[error("{0} requires exactly one argument")]
    ExactlyOneArgument(&'static str),
    #[error(
        "{0} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination(&'static str),
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    #[error("more than {0} names in one ARG")]
    TooManyNames(usize),
    #[error("{0} requires the arguments to be in JSON form")]
    NotJson(&'static str),
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    #[error("invalid name for build stage: {}, name can't start with a number or contain symbols", quote(.0))]
    StageName(String),
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnbuildChain,
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnbuildTrigger(String),
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNone,
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthcheckCommand,
    #[error("Unknown type {} in HEALTHCHECK (try CMD)", quote(.0))]
    HealthcheckType(String),
    #[error("Interval {} cannot be less than 1ms", quote(.0))]
    HealthcheckInterval(String),
    #[error("--retries cannot be negative ({0})")]
    HealthcheckRetries(i64),
    #[error(transparent)]
    Duration(DurationError),
    #[error(transparent)]
    Number(NumberError),

    #[error("unknown flag: --{0}")]
    UnknownFlag(String),
    #[error("duplicate flag specified: --{0}")]
    DuplicateFlag(String),
    #[error("missing a value on flag: --{0}")]
    MissingFlagValue(String),
    #[error("expecting boolean value for flag --{flag}, not: {value}")]
    FlagNotBool { flag: String, value: String },
    #[error("invalid network mode {}", quote(.0))]
    Network(String),
    #[error("security {} is not valid", quote(.0))]
    Security(String),

    #[error("failed to parse csv mounts: {0}")]
    MountRecord(CsvError),
    #[error("failed to parse csv devices: {0}")]
    DeviceRecord(CsvError),
    #[error("device name already set to {0}")]
    DeviceName(String),
    #[error("unexpected key '{key}' in '{field}'")]
    UnknownKey { key: String, field: String },
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyOfOtherMount { key: String, kind: &'static str },
    #[error("invalid field '{0}' must be a key=value pair")]
    NotKeyValue(String),
    #[error("'{0}' doesn't support variable expansion, define alias stage instead")]
    NoExpansion(&'static str),
    #[error("invalid value for {key}: {value}")]
    KeyValue { key: String, value: String },
    #[error("invalid value {value} for {key}")]
    NumberValue { key: &'static str, value: String },
    #[error("unsupported mount type {}", quote(.0))]
    MountType(String),
    #[error("unsupported sharing value {}", quote(.0))]
    Sharing(String),
    #[error("{key} not allowed for {} type mounts", quote(.kind))]
    KeyNotAllowed { key: &'static str, kind: &'static str },
    #[error("secret mount should not have a from")]
    SecretFrom,
    #[error("secret mount should not define sharing")]
    SecretSharing,
    #[error("invalid secret mount. one of source, target required")]
    SecretSource,
    #[error("both source and id can't be set")]
    SecretIds,
    #[error("invalid cache sharing set for {0} mount")]
    SharingOfOtherMount(&'static str),
}
