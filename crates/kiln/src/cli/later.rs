//! Commands of Buildx that a later version will have: known by name, so that the error can say so.

use clap::Args;

/// Takes whatever follows.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Later {
    /// Anything.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    pub arguments: Vec<String>,
}
