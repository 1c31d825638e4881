//! The rules, with the names, descriptions and addresses under which they are documented.

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident, $slug:literal, $description:literal;)*) => {
        /// A build check.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Rule {
            $($(#[$doc])* $name,)*
        }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name by which it is switched off.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it demands, in one sentence.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }

            fn slug(self) -> &'static str {
                match self { $(Self::$name => $slug,)* }
            }
        }
    };
}

rules! {
    /// `FROM … AS Name`.
    StageNameCasing, "stage-name-casing", "Stage names should be lowercase";
    /// `FROM … as`.
    FromAsCasing, "from-as-casing", "The 'as' keyword should match the case of the 'from' keyword";
    /// An empty line within a continued one.
    NoEmptyContinuation, "no-empty-continuation", "Empty continuation lines will become errors in a future release";
    /// `run` beside `RUN`.
    ConsistentInstructionCasing, "consistent-instruction-casing", "All commands within the Dockerfile should use the same casing (either upper or lower)";
    /// Two stages of one name.
    DuplicateStageName, "duplicate-stage-name", "Stage names should be unique";
    /// A stage `scratch` or `context`.
    ReservedStageName, "reserved-stage-name", "Reserved words should not be used as stage names";
    /// `CMD` and `ENTRYPOINT` in shell form.
    JSONArgsRecommended, "json-args-recommended", "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals";
    /// `MAINTAINER`.
    MaintainerDeprecated, "maintainer-deprecated", "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
    /// A variable in `FROM` without an `ARG` before it.
    UndefinedArgInFrom, "undefined-arg-in-from", "FROM command must use declared ARGs";
    /// A relative `WORKDIR` with none before it.
    WorkdirRelativePath, "workdir-relative-path", "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes";
    /// A variable that nothing defines.
    UndefinedVar, "undefined-var", "Variables should be defined before their use";
    /// A second `CMD`, `ENTRYPOINT` or `HEALTHCHECK` in a stage.
    MultipleInstructionsDisallowed, "multiple-instructions-disallowed", "Multiple instructions of the same type should not be used in the same stage";
    /// `ENV name value`.
    LegacyKeyValueFormat, "legacy-key-value-format", "Legacy key/value format with whitespace separator should not be used";
    /// The base image is for another platform than asked for.
    InvalidBaseImagePlatform, "", "Base image platform does not match expected target platform";
    /// `--platform=$TARGETPLATFORM`.
    RedundantTargetPlatform, "redundant-target-platform", "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
    /// `ENV PASSWORD=…`.
    SecretsUsedInArgOrEnv, "secrets-used-in-arg-or-env", "Sensitive data should not be used in the ARG or ENV commands";
    /// `FROM` needs a build argument to be valid.
    InvalidDefaultArgInFrom, "invalid-default-arg-in-from", "Default value for global ARG results in an empty or invalid base image name";
    /// `--platform=linux/amd64`.
    FromPlatformFlagConstDisallowed, "from-platform-flag-const-disallowed", "FROM --platform flag should not use a constant value";
    /// The source of a `COPY` is in `.dockerignore`.
    CopyIgnoredFile, "copy-ignored-file", "Attempting to Copy file that is excluded by .dockerignore";
    /// A comment above `FROM` or `ARG` that does not begin with the name.
    InvalidDefinitionDescription, "invalid-definition-description", "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.";
    /// `EXPOSE 80/TCP`.
    ExposeProtoCasing, "expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase";
    /// `EXPOSE 8080:80`.
    ExposeInvalidFormat, "expose-invalid-format", "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release";
}

/// Where the rules are documented; part of the messages.
const DOCUMENTATION: &str = "https://docs.docker.com/go/dockerfile/rule";

impl Rule {
    /// Its page; empty if it has none.
    pub fn url(self) -> String {
        match self.slug() {
            "" => String::new(),
            slug => format!("{DOCUMENTATION}/{slug}/"),
        }
    }

    /// It is off unless it is asked for.
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }
}
