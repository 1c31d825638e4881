//! How a layer's archive may be compressed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::media_type;

/// A layer blob's compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// A plain archive; its blob's digest is its diff id.
    Uncompressed,
    /// gzip, which everyone reads.
    #[default]
    Gzip,
    /// gzip with a table of contents at its end.
    Estargz,
    /// Zstandard.
    Zstd,
}

/// A name that is no compression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsupported compression type {0}")]
pub struct UnknownCompression(pub String);

impl Compression {
    /// Its name in exporters' options.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Uncompressed => "uncompressed",
            Self::Gzip => "gzip",
            Self::Estargz => "estargz",
            Self::Zstd => "zstd",
        }
    }

    /// The media type of a distributable layer of this compression in an OCI image.
    pub fn oci_media_type(self) -> &'static str {
        match self {
            Self::Uncompressed => media_type::OCI_LAYER,
            Self::Gzip | Self::Estargz => media_type::OCI_LAYER_GZIP,
            Self::Zstd => media_type::OCI_LAYER_ZSTD,
        }
    }

    /// What a media type says about its blob; `None` for what is no layer. The bytes themselves may say
    /// otherwise, see [`Self::of_bytes`].
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            media_type::OCI_LAYER
            | media_type::OCI_LAYER_NONDIST
            | media_type::DOCKER_LAYER
            | media_type::DOCKER_LAYER_FOREIGN => Some(Self::Uncompressed),
            media_type::OCI_LAYER_GZIP
            | media_type::OCI_LAYER_NONDIST_GZIP
            | media_type::DOCKER_LAYER_GZIP
            | media_type::DOCKER_LAYER_FOREIGN_GZIP => Some(Self::Gzip),
            media_type::OCI_LAYER_ZSTD
            | media_type::OCI_LAYER_NONDIST_ZSTD
            | media_type::DOCKER_LAYER_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What a blob's first bytes (four are enough) say. Zstandard's skippable frames count as Zstandard.
    pub fn of_bytes(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Uncompressed,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, UnknownCompression> {
        match text {
            "uncompressed" => Ok(Self::Uncompressed),
            "gzip" => Ok(Self::Gzip),
            "estargz" => Ok(Self::Estargz),
            "zstd" => Ok(Self::Zstd),
            _ => Err(UnknownCompression(text.to_owned())),
        }
    }
}
