//! Statements of how a build's results were made: for exporters, where the client wants them, and for the history.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_export::ExportError;
use kiln_export::provenance::{
    BuildFacts, BuildSteps, Capture, ImageMaterial, LayerFacts, Provenance, ProvenanceMode,
    ProvenanceOptions, Request, build_steps,
};
use kiln_export::source::{LateContent, PlatformRef, Source};
use kiln_frontend::{Error, Refs, Solution};
use kiln_oci::Timestamp;
use kiln_solver::CachedResult;
use kiln_store::{Ref, Store};
use kiln_worker::VertexOp;

use super::layers::layers;
use crate::bridge::{Promise, Sent, Trace};

/// A build whose results are there, with what they were made from.
pub struct Traced {
    store: Store,
    results: Vec<TracedResult>,
    /// When the statements were first asked for: all say the same.
    finished: Arc<OnceLock<Timestamp>>,
    facts: BuildFacts,
    /// Whether results go by platform.
    by_platform: bool,
}

/// Without its promise, which would keep the loaded graph in memory while statements are written.
#[derive(Clone)]
struct TracedResult {
    /// The platform's id; empty for a result without platforms.
    id: String,
    definition: Arc<Sent>,
    result: Option<CachedResult<VertexOp>>,
    request: Request,
    capture: Capture,
}

/// A statement for the history of builds.
pub struct HistoryStatement {
    /// The platform's id; empty for a result without platforms.
    pub id: String,
    pub predicate_type: &'static str,
    pub json: Bytes,
}

fn failed(error: ExportError) -> Error {
    Error::of(&error)
}

impl Traced {
    /// Collects what the results of a build, which have been waited for, were made from. `platforms` are those of the result.
    pub fn new(
        store: &Store,
        trace: &Arc<Trace>,
        solution: &Solution<Promise>,
        platforms: &[PlatformRef],
        facts: BuildFacts,
    ) -> Traced {
        let by_platform = matches!(solution.refs, Refs::Map(_));
        let named: Vec<(&str, &Promise)> = match &solution.refs {
            Refs::Single(one) => one.iter().map(|promise| ("", promise)).collect(),
            Refs::Map(many) => {
                many.iter().filter_map(|(id, promise)| Some((id.as_str(), promise.as_ref()?))).collect()
            }
        };
        let all = solution.all_refs();
        let results = named
            .into_iter()
            .map(|(id, promise)| {
                let branch = trace.find(promise).unwrap_or_else(|| trace.clone());
                let mut capture = promise.capture().unwrap_or_default();
                // What the frontend used to find out what to build counts too.
                for other in branch.promises() {
                    if !all.iter().any(|result| result.is(&other)) {
                        capture.merge(other.capture().unwrap_or_default());
                    }
                }
                let images = branch.images();
                let images = if id.is_empty() { images } else { of_platform(id, images, platforms) };
                images.into_iter().for_each(|image| capture.add_image(image));
                let request = branch.request(&capture).unwrap_or_default();
                TracedResult {
                    id: id.to_owned(),
                    definition: promise.definition().clone(),
                    result: promise.result_now(),
                    request,
                    capture,
                }
            })
            .collect();
        Traced { store: store.clone(), results, finished: Arc::default(), facts, by_platform }
    }

    /// Attaches statements to what is exported.
    ///
    /// # Errors
    /// Less is known than the options demand.
    pub fn attach(
        &self,
        source: &mut Source<Ref>,
        platforms: &[PlatformRef],
        options: &ProvenanceOptions,
    ) -> Result<(), Error> {
        for platform in platforms {
            let result = if self.by_platform {
                self.results.iter().find(|result| result.id == platform.id)
            } else {
                self.results.first()
            };
            if let Some(result) = result {
                let statement = self.statement(result, options).map_err(failed)?;
                source.add_provenance(&platform.id, options, Arc::new(statement));
            }
        }
        Ok(())
    }

    /// Full statements for the history.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn for_history(&self, builder_id: &str) -> Result<Vec<HistoryStatement>, Error> {
        let options = ProvenanceOptions { builder_id: builder_id.to_owned(), ..ProvenanceOptions::default() };
        let mut all = Vec::new();
        for result in &self.results {
            let statement = self.statement(result, &options).map_err(failed)?;
            all.push(HistoryStatement {
                id: result.id.clone(),
                predicate_type: options.version.predicate_type(),
                json: statement.bytes().await.map_err(failed)?,
            });
        }
        Ok(all)
    }

    fn statement(
        &self,
        result: &TracedResult,
        options: &ProvenanceOptions,
    ) -> Result<Statement, ExportError> {
        let statement = Statement {
            options: options.clone(),
            facts: self.facts.clone(),
            made: result.clone(),
            store: self.store.clone(),
            finished: self.finished.clone(),
        };
        // What it lacks is told now, not when it is written.
        statement.provenance(None)?;
        Ok(statement)
    }
}

/// A statement that waits for the layers which exporters make. The steps of a build, listed, take far more memory than the graph they are
/// listed from: they are made when the statement is written, and gone when it has been.
struct Statement {
    options: ProvenanceOptions,
    facts: BuildFacts,
    made: TracedResult,
    store: Store,
    finished: Arc<OnceLock<Timestamp>>,
}

impl Statement {
    fn provenance(&self, steps: Option<BuildSteps>) -> Result<Provenance, ExportError> {
        let facts = BuildFacts { steps, ..self.facts.clone() };
        Provenance::new(self.options.clone(), &self.made.request, self.made.capture.clone(), facts)
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement").field("options", &self.options).finish_non_exhaustive()
    }
}

#[async_trait]
impl LateContent for Statement {
    async fn bytes(&self) -> Result<Bytes, ExportError> {
        let (mut steps, mut found) = (None, LayerFacts::new());
        if self.options.mode == ProvenanceMode::Max {
            let listed = build_steps(self.made.definition.read_without_metadata())?;
            if let Some(result) = &self.made.result {
                found = layers(&self.store, result, &listed.places).map_err(|error| {
                    ExportError::failed("failed to look up the layers of a build's steps", error)
                })?;
            }
            steps = Some(listed);
        }
        let finished = *self.finished.get_or_init(|| Timestamp::from(SystemTime::now()));
        let mut provenance = self.provenance(steps)?;
        provenance.finish(finished, found);
        Ok(provenance.to_json()?.into())
    }
}

/// Of an image that was looked up for every platform of the result only the one for this platform.
fn of_platform(id: &str, images: Vec<ImageMaterial>, platforms: &[PlatformRef]) -> Vec<ImageMaterial> {
    let same = |one: &kiln_oci::Platform, other: &kiln_oci::Platform| {
        let (one, other) = (one.normalized(), other.normalized());
        one.os == other.os && one.architecture == other.architecture && one.variant == other.variant
    };
    let Some(wanted) = platforms.iter().find(|platform| platform.id == id) else { return images };
    let everywhere = |reference: &str| {
        platforms.iter().all(|platform| {
            let fits = |image: &ImageMaterial| {
                image.reference == reference
                    && image.platform.as_ref().is_some_and(|of| same(of, &platform.platform))
            };
            images.iter().any(fits)
        })
    };
    let keep: Vec<bool> = images
        .iter()
        .map(|image| match &image.platform {
            Some(of) if everywhere(&image.reference) => {
                of.os == wanted.platform.os && of.architecture == wanted.platform.architecture
            }
            _ => true,
        })
        .collect();
    images.into_iter().zip(keep).filter_map(|(image, keep)| keep.then_some(image)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_oci::Platform;

    #[test]
    fn each_platform_is_told_its_own_base_images() {
        let image = |reference: &str, platform: &str| ImageMaterial {
            reference: reference.to_owned(),
            platform: Some(Platform::parse(platform).unwrap()),
            digest: None,
            local: false,
        };
        let platforms: Vec<PlatformRef> = ["linux/amd64", "linux/arm64"]
            .iter()
            .map(|id| PlatformRef { id: (*id).to_owned(), platform: Platform::parse(id).unwrap() })
            .collect();
        let images =
            vec![image("base", "linux/amd64"), image("base", "linux/arm64"), image("tool", "linux/amd64")];
        let found = of_platform("linux/arm64", images, &platforms);
        assert_eq!(found, [image("base", "linux/arm64"), image("tool", "linux/amd64")]);
    }
}
