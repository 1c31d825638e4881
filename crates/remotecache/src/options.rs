//! Options of caches, as clients send them.

use std::collections::BTreeMap;

use kiln_oci::{Digest, Reference};

use crate::error::CacheError;
use crate::manifest::ManifestForm;

/// Options by key.
pub type Attrs = BTreeMap<String, String>;

/// How much of a build goes into its cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// The result, and what of the rest has blobs already.
    #[default]
    Min,
    /// Everything.
    Max,
}

/// Where a cache goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportTarget {
    /// The place.
    pub place: ExportPlace,
    /// How much.
    pub mode: CacheMode,
    /// Let the build succeed when the export fails.
    pub ignore_error: bool,
}

/// The places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportPlace {
    /// Inside the image.
    Inline,
    /// A registry.
    Registry {
        /// The name there.
        reference: Reference,
        /// Don't check certificates.
        insecure: bool,
        /// The wrapping.
        form: ManifestForm,
    },
    /// A folder of the client.
    Local {
        /// Its name among the client's stores.
        store: String,
        /// The wrapping.
        form: ManifestForm,
    },
}

/// Where a cache comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportPlace {
    /// A registry; an image with a cache inside too.
    Registry {
        /// The name there.
        reference: Reference,
        /// Don't check certificates.
        insecure: bool,
    },
    /// A folder of the client.
    Local {
        /// Its name among the client's stores.
        store: String,
        /// The cache's manifest.
        digest: Digest,
    },
}

/// Before the name of a folder among the client's stores.
const LOCAL_PREFIX: &str = "local:";

impl ExportTarget {
    /// Reads what a client sends for one cache export. Options of compression are left to the exporter of layers.
    pub fn parse(kind: &str, attrs: &Attrs) -> Result<Self, CacheError> {
        let place = match kind {
            "inline" => ExportPlace::Inline,
            "registry" => ExportPlace::Registry {
                reference: reference(attrs)?,
                insecure: truth(attrs, "registry.insecure")?.unwrap_or(false),
                form: form(attrs)?,
            },
            "local" => {
                let folder = attrs.get("dest").map(String::as_str).unwrap_or_default();
                if folder.is_empty() {
                    return Err(CacheError::Option("local cache exporter requires dest".to_owned()));
                }
                ExportPlace::Local { store: format!("{LOCAL_PREFIX}{folder}"), form: form(attrs)? }
            }
            other => return Err(unknown("exporting", other)),
        };
        let mode = match attrs.get("mode").map(|mode| mode.to_lowercase()).as_deref() {
            None | Some("" | "min") => CacheMode::Min,
            Some("max") => CacheMode::Max,
            // As others do: what is not understood is the default.
            Some(_) => CacheMode::Min,
        };
        let ignore_error = truth(attrs, "ignore-error")?.unwrap_or(false);
        Ok(Self { place, mode, ignore_error })
    }
}

impl ImportPlace {
    /// Reads what a client sends for one cache import.
    pub fn parse(kind: &str, attrs: &Attrs) -> Result<Self, CacheError> {
        match kind {
            // A cache inside an image is found by the image's name.
            "registry" | "inline" => Ok(Self::Registry {
                reference: reference(attrs)?,
                insecure: truth(attrs, "registry.insecure")?.unwrap_or(false),
            }),
            "local" => {
                let digest = attrs.get("digest").map(String::as_str).unwrap_or_default();
                if digest.is_empty() {
                    return Err(CacheError::Option(
                        "local cache importer requires explicit digest".to_owned(),
                    ));
                }
                let folder = attrs.get("src").map(String::as_str).unwrap_or_default();
                if folder.is_empty() {
                    return Err(CacheError::Option("local cache importer requires src".to_owned()));
                }
                let digest = Digest::parse(digest)
                    .map_err(|error| CacheError::Option(format!("invalid digest {digest}: {error}")))?;
                Ok(Self::Local { store: format!("{LOCAL_PREFIX}{folder}"), digest })
            }
            other => Err(unknown("importing", other)),
        }
    }
}

fn unknown(direction: &'static str, kind: &str) -> CacheError {
    match kind {
        "gha" | "s3" | "azblob" => CacheError::Unsupported { direction, kind: kind.to_owned() },
        _ => CacheError::Unknown { direction, kind: kind.to_owned() },
    }
}

fn reference(attrs: &Attrs) -> Result<Reference, CacheError> {
    let text = attrs.get("ref").map(String::as_str).unwrap_or_default();
    if text.is_empty() {
        return Err(CacheError::Option("missing ref".to_owned()));
    }
    Reference::parse(text)
        .map(Reference::with_default_tag)
        .map_err(|error| CacheError::Option(format!("failed to parse {text}: {error}")))
}

fn form(attrs: &Attrs) -> Result<ManifestForm, CacheError> {
    let oci = truth(attrs, "oci-mediatypes")?.unwrap_or(true);
    let image_manifest = truth(attrs, "image-manifest")?.unwrap_or(oci);
    Ok(ManifestForm { oci, image_manifest })
}

fn truth(attrs: &Attrs, key: &str) -> Result<Option<bool>, CacheError> {
    match attrs.get(key).map(String::as_str) {
        None => Ok(None),
        Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(Some(true)),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(Some(false)),
        Some(value) => Err(CacheError::Option(format!(
            "failed to parse {key}: strconv.ParseBool: parsing {value:?}: invalid syntax"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attrs(entries: &[(&str, &str)]) -> Attrs {
        entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn reads_places() {
        let target =
            ExportTarget::parse("registry", &attrs(&[("ref", "localhost:5000/c"), ("mode", "max")])).unwrap();
        assert_eq!(target.mode, CacheMode::Max);
        let ExportPlace::Registry { reference, form, .. } = target.place else { panic!("no registry") };
        assert_eq!(reference.to_string(), "localhost:5000/c:latest");
        assert_eq!(form, ManifestForm { oci: true, image_manifest: true });
        let target =
            ExportTarget::parse("local", &attrs(&[("dest", "d"), ("oci-mediatypes", "false")])).unwrap();
        let form = ManifestForm { oci: false, image_manifest: false };
        assert_eq!(target.place, ExportPlace::Local { store: "local:d".into(), form });
        assert_eq!(ExportTarget::parse("inline", &attrs(&[])).unwrap().place, ExportPlace::Inline);
    }

    #[test]
    fn says_what_is_wrong() {
        for (kind, entries, message) in [
            ("registry", &[][..], "missing ref"),
            ("local", &[], "local cache exporter requires dest"),
            ("gha", &[], "exporting cache type=gha is not supported yet: use registry, local or inline"),
            ("x", &[], r#"exporting cache "x" is unknown"#),
            (
                "inline",
                &[("ignore-error", "x")],
                r#"failed to parse ignore-error: strconv.ParseBool: parsing "x": invalid syntax"#,
            ),
        ] {
            assert_eq!(ExportTarget::parse(kind, &attrs(entries)).unwrap_err().to_string(), message);
        }
        for (entries, message) in [
            (&[][..], "local cache importer requires explicit digest"),
            (&[("digest", "sha256:x")], "local cache importer requires src"),
        ] {
            assert_eq!(ImportPlace::parse("local", &attrs(entries)).unwrap_err().to_string(), message);
        }
    }
}
