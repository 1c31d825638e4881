//! The predicate.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_oci::{Descriptor, Timestamp, gojson, platform};
use serde::Serialize;
use serde_json::{Map, Value};

use super::capture::{Capture, Material};
use super::options::{ProvenanceMode, ProvenanceOptions, SlsaVersion};
use super::request::{Asked, ConfigSource, Local, Parameters, Request};
use super::steps::{BuildSteps, DigestMapping, Step, StepSource};
use crate::error::ExportError;
use crate::source::LateContent;

const BUILD_TYPE_V1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";

/// Layers of results, by step and output: `step3:0`. A result may exist in several compressions.
pub type LayerFacts = BTreeMap<String, Vec<Vec<Descriptor>>>;

/// Facts about the run.
#[derive(Clone, Debug, Default)]
pub struct BuildFacts {
    /// The build's name.
    pub invocation_id: String,
    /// When it started.
    pub started: Option<Timestamp>,
    /// Which rules of old are kept, as a number.
    pub compatibility_version: i64,
    /// The version of the Dockerfile frontend, if that was used.
    pub dockerfile_version: String,
    /// What the administrator adds about the builder.
    pub custom_env: BTreeMap<String, Value>,
    /// The steps, and where in the sources they come from.
    pub steps: Option<BuildSteps>,
}

/// A statement about one result.
#[derive(Clone, Debug)]
pub struct Provenance {
    options: ProvenanceOptions,
    facts: BuildFacts,
    finished: Option<Timestamp>,
    layers: LayerFacts,
    asked: Asked,
    vcs: BTreeMap<String, String>,
    materials: Vec<Material>,
    network_access: bool,
    request_complete: bool,
    materials_complete: bool,
}

impl Provenance {
    /// Puts together what is told. Fails if that is less than the options demand.
    pub fn new(
        options: ProvenanceOptions,
        request: &Request,
        mut capture: Capture,
        mut facts: BuildFacts,
    ) -> Result<Self, ExportError> {
        let name = |source| ExportError::Name { name: "of a base image".to_owned(), source };
        capture.finish().map_err(name)?;
        let materials = capture.materials().map_err(name)?;
        let materials_complete = !capture.incomplete && capture.locals.is_empty();
        if options.complete_materials && !materials_complete {
            return Err(ExportError::Attestation(incomplete(&capture)));
        }
        let mut asked = request.asked(&capture);
        let parameters = &mut asked.parameters;
        let vcs = parameters.take_vcs();
        parameters.secrets = Capture::uses(&capture.secrets);
        parameters.ssh = Capture::uses(&capture.ssh);
        parameters.locals = capture.locals.iter().map(|name| Local { name: name.clone() }).collect();
        parameters.locals.dedup();
        parameters.compatibility_version = facts.compatibility_version;
        let mut request_complete = !request.frontend.is_empty();
        if options.mode == ProvenanceMode::Min {
            request_complete &= !parameters.scrub();
            facts.steps = None;
        }
        Ok(Self {
            options,
            facts,
            finished: None,
            layers: LayerFacts::new(),
            asked,
            vcs,
            materials,
            network_access: capture.network_access,
            request_complete,
            materials_complete,
        })
    }

    /// Whether steps and layers are told.
    pub fn tells_steps(&self) -> bool {
        self.options.mode == ProvenanceMode::Max
    }

    /// Tells when the build ended, and the layers that its steps have by then.
    pub fn finish(&mut self, finished: Timestamp, layers: LayerFacts) {
        self.finished = Some(finished);
        if self.tells_steps() {
            self.layers = layers;
        }
    }

    /// The type of the predicate.
    pub fn predicate_type(&self) -> &'static str {
        self.options.version.predicate_type()
    }

    /// The predicate as an indented document.
    pub fn to_json(&self) -> Result<Vec<u8>, ExportError> {
        let document = match self.options.version {
            SlsaVersion::V1 => gojson::to_vec_indented(&self.v1()),
            SlsaVersion::V02 => gojson::to_vec_indented(&self.v02()),
        };
        document.map_err(|source| ExportError::Json { what: "provenance", source })
    }

    /// What is known of where the build ran, as one flat object.
    fn environment(&self, platform_key: &str) -> Map<String, Value> {
        let mut all = Map::new();
        all.insert(platform_key.to_owned(), platform::default_for_host().short().into());
        if self.asked.parameters.frontend == "dockerfile.v0" && !self.facts.dockerfile_version.is_empty() {
            all.insert("dockerfileVersion".to_owned(), self.facts.dockerfile_version.clone().into());
        }
        all.extend(self.facts.custom_env.clone());
        all
    }

    fn build_config(&self) -> Option<BuildConfig<'_>> {
        let steps = self.facts.steps.as_ref()?;
        Some(BuildConfig { digest_mapping: steps.digest_mapping(), llb_definition: &steps.steps })
    }

    fn metadata(&self) -> BuildKitMetadata<'_> {
        BuildKitMetadata {
            vcs: &self.vcs,
            source: self.facts.steps.as_ref().and_then(|steps| steps.source.as_ref()),
            layers: &self.layers,
        }
    }

    fn is_hermetic(&self) -> bool {
        self.materials_complete && !self.network_access
    }

    fn v1(&self) -> PredicateV1<'_> {
        let environment = self.environment("builderPlatform");
        let mut internal: BTreeMap<String, Internal<'_>> =
            environment.into_iter().map(|(key, value)| (key, Internal::Environment(value))).collect();
        if let Some(config) = self.build_config() {
            internal.insert("buildConfig".to_owned(), Internal::Config(config));
        }
        PredicateV1 {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE_V1,
                resolved_dependencies: &self.materials,
                external_parameters: ExternalParameters {
                    config_source: &self.asked.source,
                    request: &self.asked.parameters,
                },
                internal_parameters: internal,
            },
            run_details: RunDetails {
                builder: Builder { id: &self.options.builder_id },
                metadata: MetadataV1 {
                    invocation_id: &self.facts.invocation_id,
                    started_on: self.facts.started,
                    finished_on: self.finished,
                    buildkit_metadata: self.metadata(),
                    buildkit_hermetic: self.is_hermetic(),
                    buildkit_completeness: CompletenessV1 {
                        request: self.request_complete,
                        resolved_dependencies: self.materials_complete,
                    },
                    buildkit_reproducible: self.options.reproducible,
                },
            },
        }
    }

    fn v02(&self) -> PredicateV02<'_> {
        PredicateV02 {
            builder: Builder { id: &self.options.builder_id },
            build_type: BUILD_TYPE_V02,
            materials: &self.materials,
            invocation: Invocation {
                config_source: ConfigSourceV02 {
                    uri: &self.asked.source.uri,
                    digest: &self.asked.source.digest,
                    entry_point: &self.asked.source.path,
                },
                parameters: &self.asked.parameters,
                environment: self.environment("platform"),
            },
            build_config: self.build_config(),
            metadata: MetadataV02 {
                build_invocation_id: &self.facts.invocation_id,
                build_started_on: self.facts.started,
                build_finished_on: self.finished,
                completeness: CompletenessV02 {
                    parameters: self.request_complete,
                    environment: true,
                    materials: self.materials_complete,
                },
                reproducible: self.options.reproducible,
                buildkit_metadata: self.metadata(),
                hermetic: self.is_hermetic(),
            },
        }
    }
}

/// As it is.
#[async_trait]
impl LateContent for Provenance {
    async fn bytes(&self) -> Result<Bytes, ExportError> {
        Ok(self.to_json()?.into())
    }
}

fn incomplete(capture: &Capture) -> String {
    let mut text = String::from(
        "provenance materials are incomplete\n\nThe build requested complete provenance materials, but not all \
         dependencies could be captured.",
    );
    if !capture.locals.is_empty() {
        text.push_str("\n\nUncaptured local sources:");
        for name in &capture.locals {
            let name = if name.is_empty() { "<unnamed>" } else { name };
            text.push_str(&format!("\n  - {name}\n    reason: local_source"));
        }
    }
    text
}

type DigestMap = BTreeMap<String, String>;

fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PredicateV1<'a> {
    build_definition: BuildDefinition<'a>,
    run_details: RunDetails<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition<'a> {
    build_type: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    resolved_dependencies: &'a [Material],
    external_parameters: ExternalParameters<'a>,
    internal_parameters: BTreeMap<String, Internal<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Internal<'a> {
    Environment(Value),
    Config(BuildConfig<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildConfig<'a> {
    #[serde(skip_serializing_if = "DigestMapping::is_empty")]
    digest_mapping: DigestMapping<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    llb_definition: &'a [Step],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalParameters<'a> {
    config_source: &'a ConfigSource,
    request: &'a Parameters,
}

#[derive(Serialize)]
struct Builder<'a> {
    id: &'a str,
}

#[derive(Serialize)]
struct RunDetails<'a> {
    builder: Builder<'a>,
    metadata: MetadataV1<'a>,
}

#[derive(Serialize)]
struct MetadataV1<'a> {
    #[serde(rename = "invocationId", skip_serializing_if = "str::is_empty")]
    invocation_id: &'a str,
    #[serde(rename = "startedOn", skip_serializing_if = "Option::is_none")]
    started_on: Option<Timestamp>,
    #[serde(rename = "finishedOn", skip_serializing_if = "Option::is_none")]
    finished_on: Option<Timestamp>,
    buildkit_metadata: BuildKitMetadata<'a>,
    #[serde(skip_serializing_if = "is_false")]
    buildkit_hermetic: bool,
    buildkit_completeness: CompletenessV1,
    #[serde(skip_serializing_if = "is_false")]
    buildkit_reproducible: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CompletenessV1 {
    request: bool,
    resolved_dependencies: bool,
}

#[derive(Serialize)]
struct BuildKitMetadata<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    vcs: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a StepSource>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    layers: &'a LayerFacts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PredicateV02<'a> {
    builder: Builder<'a>,
    build_type: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    materials: &'a [Material],
    invocation: Invocation<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_config: Option<BuildConfig<'a>>,
    metadata: MetadataV02<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation<'a> {
    config_source: ConfigSourceV02<'a>,
    parameters: &'a Parameters,
    environment: Map<String, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigSourceV02<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    uri: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    digest: &'a DigestMap,
    #[serde(skip_serializing_if = "str::is_empty")]
    entry_point: &'a str,
}

#[derive(Serialize)]
struct MetadataV02<'a> {
    #[serde(rename = "buildInvocationID", skip_serializing_if = "str::is_empty")]
    build_invocation_id: &'a str,
    #[serde(rename = "buildStartedOn", skip_serializing_if = "Option::is_none")]
    build_started_on: Option<Timestamp>,
    #[serde(rename = "buildFinishedOn", skip_serializing_if = "Option::is_none")]
    build_finished_on: Option<Timestamp>,
    completeness: CompletenessV02,
    reproducible: bool,
    #[serde(rename = "https://mobyproject.org/buildkit@v1#metadata")]
    buildkit_metadata: BuildKitMetadata<'a>,
    #[serde(rename = "https://mobyproject.org/buildkit@v1#hermetic", skip_serializing_if = "is_false")]
    hermetic: bool,
}

#[derive(Serialize)]
struct CompletenessV02 {
    parameters: bool,
    environment: bool,
    materials: bool,
}
