//! Flags of the commands about builders and their cache.

use clap::Args;

use super::size;

/// Disk usage of the build cache
#[derive(Debug, Args)]
pub struct DiskUsageArgs {
    /// Provide filter values
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Provide a more verbose output
    #[arg(long)]
    pub verbose: bool,
    /// Format of the output
    #[arg(long, value_parser = ["table", "json"], default_value = "table")]
    pub format: String,
}

/// Remove build cache
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Include internal and frontend images
    #[arg(short, long)]
    pub all: bool,
    /// Provide filter values (e.g., "until=24h")
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    pub force: bool,
    /// Amount of disk space always allowed to keep for cache
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "0", hide_default_value = true, alias = "keep-storage")]
    pub reserved_space: i64,
    /// Maximum amount of disk space allowed to keep for cache
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "0", hide_default_value = true)]
    pub max_used_space: i64,
    /// Target amount of free disk space after pruning
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "0", hide_default_value = true)]
    pub min_free_space: i64,
    /// Provide a more verbose output
    #[arg(long)]
    pub verbose: bool,
}

/// List builder instances
#[derive(Debug, Args)]
pub struct ListBuildersArgs {
    /// Format of the output
    #[arg(long, value_parser = ["table", "json"], default_value = "table")]
    pub format: String,
}

/// Inspect a builder instance
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The builder [default: the current one]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Ensure builder has booted before inspecting
    #[arg(long)]
    pub bootstrap: bool,
}

/// Proxy standard input and output to the builder
#[derive(Debug, Args)]
pub struct DialStdioArgs {
    /// Target platform: this is used for node selection
    #[arg(long, value_name = "PLATFORM", hide = true)]
    pub platform: Option<String>,
    /// Set type of progress output, on standard error
    #[arg(long, value_name = "TYPE", default_value = "quiet", hide = true)]
    pub progress: String,
}
