//! Flags of `kiln build`; those of Buildx, with its meanings.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::{go_bool, size};

/// Start a build
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct BuildArgs {
    /// Build context: a folder, a git or http(s) URL, or - for a tar stream or Dockerfile on standard input
    #[arg(value_name = "PATH | URL | -")]
    pub context: String,

    /// Add a custom host-to-IP mapping (format: "host:ip")
    #[arg(long, value_name = "HOST:IP")]
    pub add_host: Vec<String>,
    /// Allow extra privileged entitlement (e.g., "network.host", "security.insecure", "device", "buildx.local.delete")
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow: Vec<String>,
    /// Add annotation to the image
    #[arg(long, value_name = "[TYPE:]KEY=VALUE")]
    pub annotation: Vec<String>,
    /// Attestation parameters (format: "type=sbom,generator=image")
    #[arg(long, value_name = "PARAMETERS")]
    pub attest: Vec<String>,
    /// Set build-time variables
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Additional build contexts (e.g., name=path)
    #[arg(long, value_name = "NAME=PLACE")]
    pub build_context: Vec<String>,
    /// External cache sources (e.g., "user/app:cache", "type=local,src=path/to/dir")
    #[arg(long, value_name = "SOURCE")]
    pub cache_from: Vec<String>,
    /// Cache export destinations (e.g., "user/app:cache", "type=local,dest=path/to/dir")
    #[arg(long, value_name = "DESTINATION")]
    pub cache_to: Vec<String>,
    /// Set method for evaluating build ("check", "outline", "targets")
    #[arg(long, value_name = "METHOD", default_value = "build")]
    pub call: String,
    /// Set the parent cgroup for the "RUN" instructions during build
    #[arg(long, value_name = "CGROUP", default_value = "", hide_default_value = true)]
    pub cgroup_parent: String,
    /// Shorthand for "--call=check"
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
          value_parser = go_bool, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL", hide_possible_values = true)]
    pub check: bool,
    /// Name of the Dockerfile (default: "PATH/Dockerfile")
    #[arg(short = 'f', long, value_name = "PATH | URL | -", default_value = "", hide_default_value = true)]
    pub file: String,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Set metadata for an image
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Shorthand for "--output=type=docker": into the Docker Engine where one answers, else into the local image store
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
          value_parser = go_bool, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub load: bool,
    /// Write build result metadata to a file
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// Set the networking mode for the "RUN" instructions during build ("default", "none", "host")
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub network: String,
    /// Do not use cache when building the image
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
          value_parser = go_bool, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub no_cache: bool,
    /// Do not cache specified stages
    #[arg(long, value_name = "STAGE")]
    pub no_cache_filter: Vec<String>,
    /// Output destination (format: "type=local,dest=path")
    #[arg(short = 'o', long, value_name = "DESTINATION")]
    pub output: Vec<String>,
    /// Set target platform for build
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// Policy configuration
    #[arg(long, value_name = "POLICY", hide = true)]
    pub policy: Vec<String>,
    /// Set type of progress output ("auto", "none", "plain", "quiet", "rawjson", "tty"). Use plain to show container output
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    pub progress: String,
    /// Shorthand for "--attest=type=provenance"
    #[arg(long, value_name = "PARAMETERS")]
    pub provenance: Option<String>,
    /// Always attempt to pull all referenced images
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
          value_parser = go_bool, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub pull: bool,
    /// Shorthand for "--output=type=registry,unpack=false"
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
          value_parser = go_bool, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub push: bool,
    /// Suppress the build output and print image ID on success
    #[arg(short = 'q', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
          value_parser = go_bool, action = ArgAction::Set, hide_default_value = true, value_name = "BOOL")]
    pub quiet: bool,
    /// Resource limits for build containers (format: "memory=2g", "cpu-quota=50000")
    #[arg(long, value_name = "LIMIT")]
    pub resource: Vec<String>,
    /// Shorthand for "--attest=type=sbom"
    #[arg(long, value_name = "PARAMETERS")]
    pub sbom: Option<String>,
    /// Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")
    #[arg(long, value_name = "SECRET")]
    pub secret: Vec<String>,
    /// Shared memory size for build containers
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "0", hide_default_value = true)]
    pub shm_size: i64,
    /// SSH agent socket or keys to expose to the build (format: "default|<id>[=<socket>|<key>[,<key>]]")
    #[arg(long, value_name = "AGENT")]
    pub ssh: Vec<String>,
    /// Image identifier (format: "[registry/]repository[:tag]")
    #[arg(short = 't', long, value_name = "NAME")]
    pub tag: Vec<String>,
    /// Set the target build stage to build
    #[arg(long, value_name = "STAGE", default_value = "", hide_default_value = true)]
    pub target: String,
    /// Ulimit options
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,

    #[command(flatten)]
    pub legacy: LegacyArgs,
}

/// Flags of the old `docker build` that still work or are known to mean nothing any more.
#[derive(Debug, Args)]
pub struct LegacyArgs {
    #[arg(long, hide = true)]
    pub print: Option<String>,
    #[arg(short = 'm', long, hide = true)]
    pub memory: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    #[arg(short = 'c', long, hide = true)]
    pub cpu_shares: Option<String>,
    #[arg(long, hide = true)]
    pub cpu_period: Option<String>,
    #[arg(long, hide = true)]
    pub cpu_quota: Option<String>,
    #[arg(long, hide = true)]
    pub cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    pub cpuset_mems: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub compress: Option<bool>,
    #[arg(long, hide = true)]
    pub isolation: Option<String>,
    #[arg(long, hide = true)]
    pub security_opt: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub squash: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = go_bool)]
    pub force_rm: Option<bool>,
}

impl LegacyArgs {
    /// The limits among them, in the form of `--resource`.
    pub fn resources(&self) -> Vec<String> {
        let all = [
            ("memory", &self.memory),
            ("memory-swap", &self.memory_swap),
            ("cpu-shares", &self.cpu_shares),
            ("cpu-period", &self.cpu_period),
            ("cpu-quota", &self.cpu_quota),
            ("cpuset-cpus", &self.cpuset_cpus),
            ("cpuset-mems", &self.cpuset_mems),
        ];
        all.into_iter()
            .filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={value}")))
            .collect()
    }

    /// What to tell the user about those that do nothing.
    pub fn warnings(&self) -> Vec<&'static str> {
        let mut found = Vec::new();
        if self.isolation.is_some() {
            found.push("isolation flag is deprecated with BuildKit.");
        }
        if !self.security_opt.is_empty() {
            found.push(
                "security-opt flag is deprecated. \"RUN --security=insecure\" should be used with BuildKit.",
            );
        }
        if self.squash == Some(true) {
            found.push(
                "experimental flag squash is removed with BuildKit. You should squash inside build using a multi-stage \
                 Dockerfile for efficiency.",
            );
        }
        if self.compress == Some(true) {
            found.push("compress flag has no effect: a build context is always sent as it is.");
        }
        if self.rm == Some(false) || self.force_rm == Some(true) {
            found.push(
                "rm and force-rm flags have no effect: no intermediate containers remain after a build.",
            );
        }
        found
    }
}
