//! The command line: commands, flags and their help.

mod build;
mod image;
mod later;
mod store;

use clap::{ArgAction, Args, Parser, Subcommand};

pub use build::BuildArgs;
pub use image::{ImageArgs, ImageCommand, ListArgs, LoadArgs, PullArgs, PushArgs, SaveArgs};
pub use later::Later;
pub use store::{DialStdioArgs, DiskUsageArgs, InspectArgs, ListBuildersArgs, PruneArgs};

use crate::flags;

/// Builds images from Dockerfiles.
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version = env!("CARGO_PKG_VERSION"),
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_override_self = true,
    max_term_width = 120,
    after_help = "Run 'kiln COMMAND --help' for more information on a command."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// Override the configured builder instance: its name, or its address (unix://, tcp://, ssh://, docker-container://)
    #[arg(long, global = true, value_name = "BUILDER")]
    pub builder: Option<String>,
    /// Enable debug logging, and expand warnings
    #[arg(short = 'D', long, global = true, action = ArgAction::SetTrue)]
    pub debug: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a build
    #[command(visible_alias = "b")]
    Build(Box<BuildArgs>),
    /// Manage the images of the local image store
    Image(ImageArgs),
    /// Disk usage of the build cache
    Du(DiskUsageArgs),
    /// Remove build cache
    Prune(PruneArgs),
    /// List builder instances
    Ls(ListBuildersArgs),
    /// Inspect a builder instance
    Inspect(InspectArgs),
    /// Proxy standard input and output to the builder
    DialStdio(DialStdioArgs),
    /// Show version information
    Version,
    #[command(hide = true, alias = "f")]
    Bake(Later),
    #[command(hide = true)]
    Create(Later),
    #[command(hide = true)]
    Use(Later),
    #[command(hide = true)]
    Rm(Later),
    #[command(hide = true)]
    Stop(Later),
    #[command(hide = true)]
    Install(Later),
    #[command(hide = true)]
    Uninstall(Later),
    #[command(hide = true)]
    Imagetools(Later),
    #[command(hide = true)]
    History(Later),
    #[command(hide = true)]
    Policy(Later),
    #[command(hide = true)]
    Debug(Later),
    #[command(hide = true)]
    Dap(Later),
}

/// A truth value as Go's flags take it: `--pull`, `--pull=false`, `--pull=1`.
fn go_bool(text: &str) -> Result<bool, String> {
    flags::boolean(text).ok_or_else(|| "expected true or false".to_owned())
}

/// A size such as `64m`.
fn size(text: &str) -> Result<i64, String> {
    flags::bytes(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
