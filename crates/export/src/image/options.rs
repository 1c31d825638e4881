//! What an image exporter is asked for, apart from where the image goes.

use kiln_layer::compress::CompressOptions;
use kiln_oci::Compression;
use kiln_store::BlobOptions;

use crate::annotations::AnnotationGroups;
use crate::attrs::{Attrs, parse_bool, parse_int};
use crate::epoch::EpochOption;
use crate::error::ExportError;

/// How layers are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompressionOptions {
    /// Of layers that are made now.
    pub kind: Compression,
    /// Also of layers that exist in another form.
    pub force: bool,
    /// The compressor's level.
    pub level: Option<i64>,
}

impl CompressionOptions {
    /// As the store wants to be asked for blobs; without an epoch.
    pub fn blob_options(&self) -> BlobOptions {
        let level = self.level.map(|level| level.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32);
        let compression = CompressOptions { kind: self.kind, level };
        BlobOptions { compression, force: self.force, epoch: None }
    }

    /// Takes the options out of `attrs`; also used by cache exporters.
    pub fn take(attrs: &mut Attrs) -> Result<Self, ExportError> {
        let mut options = Self::default();
        if let Some(name) = attrs.remove("compression") {
            options.kind = name.parse()?;
            if options.kind == Compression::Estargz {
                return Err(ExportError::Estargz);
            }
        }
        if let Some(value) = attrs.remove("force-compression") {
            options.force = parse_bool("force-compression", &value, true)?;
        }
        if let Some(value) = attrs.remove("compression-level") {
            let key = "compression-level".to_owned();
            options.level =
                Some(parse_int(&value).map_err(|reason| ExportError::NotInteger { key, value, reason })?);
        }
        Ok(options)
    }
}

/// The default of media types, which depends on what is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewMediaTypes {
    /// OCI's types rather than Docker's.
    pub oci: bool,
    /// Attestations as artifacts rather than as images.
    pub artifact: bool,
}

/// Options of all exporters that make images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// Names, separated by commas; `*`: the name that the frontend gives.
    pub name: String,
    /// How layers are compressed.
    pub compression: CompressionOptions,
    /// Keep layers that must not be distributed as what they are.
    pub prefer_nondist_layers: bool,
    /// Annotations.
    pub annotations: AnnotationGroups,
    /// The epoch.
    pub epoch: EpochOption,
    /// Attach even attestations that are only for attaching.
    pub force_inline_attestations: bool,
    /// Make no file seem newer than the epoch.
    pub rewrite_timestamp: bool,
    oci_types: Option<bool>,
    oci_artifact: Option<bool>,
}

impl ImageOptions {
    /// Takes all options that belong here out of `attrs`.
    pub fn take(attrs: &mut Attrs) -> Result<Self, ExportError> {
        let mut options = Self::default();
        let mut rest = Attrs::new();
        for (key, value) in std::mem::take(attrs) {
            if !options.annotations.insert(&key, &value)? {
                rest.insert(key, value);
            }
        }
        options.epoch = EpochOption::take(&mut rest)?;
        options.compression = CompressionOptions::take(&mut rest)?;
        for (key, value) in rest {
            let truth = || parse_bool(&key, &value, false);
            match key.as_str() {
                "name" => options.name = value,
                "oci-mediatypes" => options.oci_types = Some(truth()?),
                "oci-artifact" => options.oci_artifact = Some(truth()?),
                "attestation-inline" => options.force_inline_attestations = truth()?,
                "prefer-nondist-layers" => options.prefer_nondist_layers = truth()?,
                "rewrite-timestamp" => options.rewrite_timestamp = truth()?,
                _ => {
                    attrs.insert(key, value);
                }
            }
        }
        if options.oci_types.is_some() {
            options.check(options.oci_types == Some(true), options.oci_artifact == Some(true))?;
        }
        Ok(options)
    }

    /// The media types to use, given the default; refuses what does not go together.
    pub fn media_types(&self, oci_default: bool) -> Result<NewMediaTypes, ExportError> {
        let oci = self.oci_types.unwrap_or(oci_default);
        let artifact = self.oci_artifact.unwrap_or(oci);
        self.check(oci, artifact)?;
        Ok(NewMediaTypes { oci, artifact })
    }

    fn check(&self, oci: bool, artifact: bool) -> Result<(), ExportError> {
        let kind = self.compression.kind;
        if !oci && kind == Compression::Estargz {
            let text =
                format!(r#"exporter option "compression={kind}" conflicts with "oci-mediatypes=false""#);
            return Err(ExportError::Conflict(text));
        }
        if artifact && !oci {
            let text = r#"exporter option "oci-artifact=true" conflicts with "oci-mediatypes=false""#;
            return Err(ExportError::Conflict(text.to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(entries: &[(&str, &str)]) -> Result<(ImageOptions, Attrs), ExportError> {
        let mut attrs = entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Ok((ImageOptions::take(&mut attrs)?, attrs))
    }

    #[test]
    fn takes_what_it_knows() {
        let (options, rest) = take(&[
            ("name", "a,b"),
            ("compression", "zstd"),
            ("compression-level", "3"),
            ("force-compression", ""),
            ("rewrite-timestamp", "true"),
            ("annotation.x", "y"),
            ("push", "true"),
            ("something", "else"),
        ])
        .unwrap();
        assert_eq!(options.name, "a,b");
        assert_eq!(
            options.compression,
            CompressionOptions { kind: Compression::Zstd, force: true, level: Some(3) }
        );
        assert!(options.rewrite_timestamp);
        assert_eq!(rest.into_keys().collect::<Vec<_>>(), ["push", "something"]);
        assert_eq!(options.media_types(true).unwrap(), NewMediaTypes { oci: true, artifact: true });
    }

    #[test]
    fn says_what_is_wrong() {
        for (entries, message) in [
            (
                &[("rewrite-timestamp", "yes")][..],
                r#"non-bool value specified for rewrite-timestamp: strconv.ParseBool: parsing "yes": invalid syntax"#,
            ),
            (&[("compression", "xz")], "unsupported compression type xz"),
            (
                &[("compression", "estargz")],
                "compression=estargz is not supported yet: use gzip, zstd or uncompressed",
            ),
            (
                &[("compression-level", "x")],
                r#"non-integer value x specified for compression-level: strconv.ParseInt: parsing "x": invalid syntax"#,
            ),
            (
                &[("source-date-epoch", "x")],
                r#"invalid source-date-epoch: strconv.ParseInt: parsing "x": invalid syntax"#,
            ),
            (
                &[("oci-artifact", "true"), ("oci-mediatypes", "false")],
                r#"exporter option "oci-artifact=true" conflicts with "oci-mediatypes=false""#,
            ),
        ] {
            assert_eq!(take(entries).unwrap_err().to_string(), message);
        }
        // Without a word on media types it depends on the default.
        let (options, _) = take(&[("oci-artifact", "true")]).unwrap();
        assert!(options.media_types(false).is_err());
        let (options, _) = take(&[("oci-mediatypes", "false")]).unwrap();
        assert_eq!(options.media_types(true).unwrap(), NewMediaTypes { oci: false, artifact: false });
    }
}
