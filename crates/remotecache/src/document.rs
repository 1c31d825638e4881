//! The cache's document: layers with their parents, and records with their inputs and results.

use kiln_oci::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// The index of a layer that lies on no other.
pub const NO_PARENT: i64 = -1;

/// The whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheConfig {
    /// Layers.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<CacheLayer>,
    /// Records.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<CacheRecord>,
}

/// A layer on top of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLayer {
    /// Its blob.
    pub blob: Digest,
    /// The layer below, or [`NO_PARENT`]. Not written for the first one, as Go leaves out zeros.
    #[serde(default, rename = "parent", skip_serializing_if = "is_zero")]
    pub parent: i64,
}

/// A record: a key with its results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Results that are a layer with all below it.
    #[serde(
        default,
        rename = "layers",
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub results: Vec<CacheResult>,
    /// Results that are layers one by one.
    #[serde(
        default,
        rename = "chains",
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub chains: Vec<ChainedResult>,
    /// The key of the op, with its output.
    pub digest: String,
    /// For each input all ways to know it.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Vec<CacheInput>>,
}

/// A result: a layer with all below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheResult {
    /// The top layer.
    pub layer: i64,
    /// When it was made.
    #[serde(rename = "createdAt", default = "never")]
    pub created: Timestamp,
}

/// A result: layers, bottom first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainedResult {
    /// The layers.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<i64>,
    /// When it was made.
    #[serde(rename = "createdAt", default = "never")]
    pub created: Timestamp,
}

/// One way to know an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheInput {
    /// The part of the input that is looked at; empty: all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// The input's record.
    pub link: i64,
}

/// The time that Go writes for none.
pub(crate) fn never() -> Timestamp {
    "0001-01-01T00:00:00Z".parse().expect("a constant time")
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
