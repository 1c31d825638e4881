//! What a request wants stated.

use std::collections::BTreeMap;

use kiln_dockerfile::{AttestationOptions, SbomOptions};
use kiln_export::provenance::ProvenanceOptions;
use kiln_frontend::Error;

/// The statements that are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What is in the result; made by a generator.
    pub sbom: Option<SbomOptions>,
    /// How the result was made.
    pub provenance: Option<ProvenanceOptions>,
}

/// Reads them from the options of the frontend (`attest:*`).
///
/// # Errors
/// A kind of statement or an option that there is not.
pub fn read(attrs: &BTreeMap<String, String>) -> Result<Wanted, Error> {
    let asked = AttestationOptions::parse(attrs).map_err(|error| Error::of(&error))?;
    let provenance = asked.provenance.as_ref().map(ProvenanceOptions::parse).transpose();
    Ok(Wanted { sbom: asked.sbom, provenance: provenance.map_err(|error| Error::of(&error))? })
}
