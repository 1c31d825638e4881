//! Provenance: a statement of how a result was made, in the form of SLSA.
//!
//! A [`Capture`] says what a build used, a [`Request`] what it was asked for; [`Provenance`] puts both into the
//! predicate of version 1 or 0.2.

mod capture;
mod op_json;
mod options;
mod predicate;
mod request;
mod steps;

pub use capture::{BlobMaterial, Capture, GitMaterial, HttpMaterial, ImageMaterial, SecretUse};
pub use options::{ProvenanceMode, ProvenanceOptions, SlsaVersion};
pub use predicate::{BuildFacts, LayerFacts, Provenance};
pub use request::{Asked, Request, redact_credentials, redact_request};
pub use steps::{BuildSteps, Step, StepSource, build_steps};

#[cfg(test)]
mod tests;
