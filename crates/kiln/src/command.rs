//! The commands other than `build`.

mod builders;
mod dial_stdio;
mod disk_usage;
mod image;
mod prune;

pub use builders::{inspect, list};
pub use dial_stdio::dial_stdio;
pub use disk_usage::disk_usage;
pub use image::image;
pub use prune::prune;

use crate::builder::{self, Builder};
use crate::docker::config::Config;
use crate::error::Result;
use crate::settings::Settings;

/// Connects to the builder that the flags and the environment choose.
async fn connect(settings: &Settings, flag: Option<&str>) -> Result<Builder> {
    let config = Config::load(settings)?;
    let choice = builder::choose(settings, &config, flag)?;
    builder::connect(settings, &choice).await
}
