//! Platforms: operating system, processor and variant, in the names of the Go project.

mod host;
mod matcher;
mod parse;
mod windows;

pub use host::{amd64_level, default_for_host};
pub use matcher::PlatformMatcher;
pub use parse::PlatformError;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::descriptor::null_default;

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// The processor, such as `amd64`.
    #[serde(default, deserialize_with = "null_default")]
    pub architecture: String,
    /// The operating system, such as `linux`.
    #[serde(default, deserialize_with = "null_default")]
    pub os: String,
    /// The operating system's version (Windows).
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "null_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// What the operating system must have (Windows).
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// The processor's variant, such as `v7`.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl Platform {
    /// A platform without variant and version, normalised.
    pub fn new(os: &str, architecture: &str) -> Self {
        Self { os: os.to_owned(), architecture: architecture.to_owned(), ..Self::default() }.normalized()
    }

    /// Linux on this processor, normalised.
    pub fn linux(architecture: &str) -> Self {
        Self::new("linux", architecture)
    }

    /// Reads `os`, `architecture`, `os/architecture` or `os/architecture/variant`; the operating system may
    /// carry a version and features, `windows(10.0.17763+win32k)/amd64`. A part that is missing is this
    /// host's. Aliases such as `x86_64` are replaced.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        parse::parse(text)
    }

    /// The same in the one spelling that compares: aliases replaced, default variants dropped (or, for
    /// 32-bit ARM, added).
    #[must_use]
    pub fn normalized(&self) -> Self {
        let (architecture, variant) = parse::normalize_architecture(&self.architecture, &self.variant);
        let mut os_features = self.os_features.clone();
        os_features.sort();
        os_features.dedup();
        Self {
            os: parse::normalize_os(&self.os),
            architecture,
            variant,
            os_version: self.os_version.clone(),
            os_features,
        }
    }

    /// `os/architecture[/variant]`, without version and features.
    pub fn short(&self) -> String {
        if self.os.is_empty() {
            return "unknown".to_owned();
        }
        parse::join([self.os.as_str(), &self.architecture, &self.variant])
    }
}

/// With version and features, so that [`Platform::parse`] gives the same back.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&parse::format_all(self))
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
