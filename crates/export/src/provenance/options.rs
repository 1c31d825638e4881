//! What is wanted of the statement: the values behind `attest:provenance`.

use std::collections::BTreeMap;

use crate::attrs::parse_bool;
use crate::error::ExportError;

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// What went in, without what may be private: no arguments of the build, no names of secrets.
    Min,
    /// All steps and layers too.
    #[default]
    Max,
}

/// The statement's form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlsaVersion {
    /// Version 1.
    #[default]
    V1,
    /// Version 0.2.
    V02,
}

impl SlsaVersion {
    /// The type of the predicate.
    pub fn predicate_type(self) -> &'static str {
        match self {
            Self::V1 => "https://slsa.dev/provenance/v1",
            Self::V02 => "https://slsa.dev/provenance/v0.2",
        }
    }
}

/// Options of the statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProvenanceOptions {
    /// How much is told.
    pub mode: ProvenanceMode,
    /// The form.
    pub version: SlsaVersion,
    /// What the user says about repeating the build.
    pub reproducible: bool,
    /// Only attach it where all attestations are attached.
    pub inline_only: bool,
    /// Fail if not everything that went in is known.
    pub complete_materials: bool,
    /// Who builds, as a URI.
    pub builder_id: String,
    /// The file's name in exports of files.
    pub filename: String,
}

impl ProvenanceOptions {
    /// Reads the options; what is not known is left alone, as others do.
    pub fn parse(values: &BTreeMap<String, String>) -> Result<Self, ExportError> {
        let get = |key: &str| values.get(key).map(String::as_str);
        let truth = |key: &str| {
            match get(key) {
            None => Ok(false),
            Some(value) => parse_bool(key, value, false).map_err(|_| {
                ExportError::Attestation(format!(
                    "failed to parse {key} flag {value:?}: strconv.ParseBool: parsing {value:?}: invalid syntax"
                ))
            }),
        }
        };
        let mode = match get("mode") {
            None | Some("max" | "full") => ProvenanceMode::Max,
            Some("min") => ProvenanceMode::Min,
            Some(other) => return Err(ExportError::Attestation(format!("invalid mode {other:?}"))),
        };
        let version = match get("version") {
            None | Some("v1") => SlsaVersion::V1,
            Some("v0.2") => SlsaVersion::V02,
            Some("") => {
                return Err(ExportError::Attestation("provenance SLSA version cannot be empty".to_owned()));
            }
            Some(other) => {
                return Err(ExportError::Attestation(format!("invalid provenance SLSA version: {other}")));
            }
        };
        Ok(Self {
            mode,
            version,
            reproducible: truth("reproducible")?,
            inline_only: get("inline-only")
                .is_some_and(|value| parse_bool("", value, false).unwrap_or(false)),
            complete_materials: truth("complete-materials")?,
            builder_id: get("builder-id").unwrap_or_default().to_owned(),
            filename: get("filename").unwrap_or("provenance.json").to_owned(),
        })
    }
}
