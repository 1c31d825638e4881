//! The command line: `buildkitd`'s flags under their own names, and a few of Kiln's.

use std::path::PathBuf;

use clap::Parser;

use super::units::Span;

/// Kiln's builder daemon. Speaks BuildKit's API, and takes buildkitd's flags and buildkitd.toml.
#[derive(Debug, Parser)]
#[command(name = "kilnd", disable_version_flag = true)]
pub struct Flags {
    /// Configuration file (buildkitd.toml syntax); one that is not there is an empty one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Folder for all state
    #[arg(long, value_name = "FOLDER")]
    pub root: Option<PathBuf>,

    /// Address to listen on: unix://PATH, tcp://HOST:PORT or fd://; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub addr: Vec<String>,

    /// Group (name or id) that owns the unix socket
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,

    /// Log more; the same as --log-level=debug
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub debug: Option<bool>,

    /// Log level: trace, debug, info, warn, error
    #[arg(long, env = "BUILDKITD_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Log format: text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// Certificate for tcp addresses
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,

    /// Key for tcp addresses
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,

    /// CA that clients of tcp addresses must have a certificate of
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,

    /// Entitlement that builds may ask for: network.host, security.insecure or device; may be repeated
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow_insecure_entitlement: Vec<String>,

    /// Unix socket for traces, or empty for none; traces are accepted on the API's own addresses too
    #[arg(long, value_name = "PATH")]
    pub otel_socket_path: Option<PathBuf>,

    /// Whether the worker is on: true, false or auto (it is kilnd's only one)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "WHEN")]
    pub oci_worker: Option<String>,

    /// Label of the worker, KEY=VALUE; may be repeated
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    pub oci_worker_labels: Vec<String>,

    /// Platform that the worker says it builds; may be repeated. Detected when not given
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub oci_worker_platform: Vec<String>,

    /// How layers are kept: auto or overlayfs, which mean the same, or native
    #[arg(long, value_name = "NAME")]
    pub oci_worker_snapshotter: Option<String>,

    /// OCI runtime for steps: embedded, or the path or name of crun or runc
    #[arg(long, value_name = "PROGRAM")]
    pub oci_worker_binary: Option<String>,

    /// Network of steps: auto, host, bridge or none
    #[arg(long, value_name = "MODE")]
    pub oci_worker_net: Option<String>,

    /// Collect garbage
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub oci_worker_gc: Option<bool>,

    /// Space that garbage collection leaves alone, in MB: RESERVED[,FREE[,MAXIMUM]]
    #[arg(long, value_name = "MB")]
    pub oci_worker_gc_keepstorage: Option<String>,

    /// Steps that may run at once: a number, or num-cpu
    #[arg(long, value_name = "COUNT")]
    pub oci_max_parallelism: Option<String>,

    /// The containerd worker, which kilnd does not have: only false and auto are taken
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "WHEN")]
    pub containerd_worker: Option<String>,

    /// End after this long without a client or a build
    #[arg(long, value_name = "DURATION", value_parser = parse_span)]
    pub idle_timeout: Option<Span>,

    /// File descriptor that gets `ready` and a line end, and is closed, once the daemon answers
    #[arg(long, value_name = "FD")]
    pub ready_fd: Option<i32>,

    /// Print the version and end
    #[arg(long, short = 'v')]
    pub version: bool,
}

fn parse_span(text: &str) -> Result<Span, String> {
    Span::parse(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Flags;

    #[test]
    fn the_flags_of_upstreams_test_suites_are_taken() {
        let flags = Flags::try_parse_from([
            "buildkitd",
            "--oci-worker=true",
            "--containerd-worker=false",
            "--oci-worker-gc=false",
            "--oci-worker-labels=org.mobyproject.buildkit.worker.sandbox=true",
            "--config=/tmp/buildkitd.toml",
            "--root",
            "/tmp/state",
            "--addr",
            "unix:///tmp/state/buildkitd.sock",
            "--debug",
        ])
        .unwrap();
        assert_eq!(flags.oci_worker_gc, Some(false));
        assert_eq!(flags.debug, Some(true));
        assert_eq!(flags.oci_worker_labels, ["org.mobyproject.buildkit.worker.sandbox=true"]);
    }
}
