//! Flags of `kiln image …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Manage the images of the local image store
#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List images
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Download an image from a registry
    Pull(PullArgs),
    /// Upload an image to a registry
    Push(PushArgs),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm {
        /// Images by name or digest
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Give an image another name
    Tag {
        /// The image
        #[arg(value_name = "SOURCE")]
        source: String,
        /// Its new name
        #[arg(value_name = "TARGET")]
        target: String,
    },
    /// Display detailed information on images, as JSON
    Inspect {
        /// Images by name or digest
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Save images to an archive
    Save(SaveArgs),
    /// Load images from an archive
    Load(LoadArgs),
}

/// List images
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only images with these names, or names that match these patterns
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Only print digests
    #[arg(short, long)]
    pub quiet: bool,
    /// Do not shorten digests
    #[arg(long)]
    pub no_trunc: bool,
    /// Format of the output
    #[arg(long, value_parser = ["table", "json"], default_value = "table")]
    pub format: String,
}

/// Download an image from a registry
#[derive(Debug, Args)]
pub struct PullArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Platforms to download, or "all" [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// Print the image's digest only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Upload an image to a registry
#[derive(Debug, Args)]
pub struct PushArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Upload under this name instead
    #[arg(long = "as", value_name = "NAME")]
    pub target: Option<String>,
    /// Platforms to upload [default: all]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// Allow plain http, and certificates that cannot be verified
    #[arg(long)]
    pub insecure: bool,
    /// Print the image's digest only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Save images to an archive
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Kind of archive
    #[arg(long, value_parser = ["oci", "docker"], default_value = "oci")]
    pub format: String,
    /// Platforms to save [default: all]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
}

/// Load images from an archive
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// File to read [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Name for images that the archive does not name
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub name: String,
    /// Platforms to load [default: all]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Vec<String>,
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
}
