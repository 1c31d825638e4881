//! Converts the Dockerfile for every platform, and has the graphs solved.

use super::answer::{self, Built};
use super::definition::Definition;
use super::resolver::Service;
use crate::sbom::{Scan, Scanner};
use crate::{Bridge, CacheImport, Error, Solution, SolveRequest, Warning};
use bytes::Bytes;
use futures::future::try_join_all;
use kiln_dockerfile::{ConvertOptions, Converted, Finding, Findings, FrontendOptions};

/// The importance of what checks find.
const FINDING_LEVEL: i64 = 1;

impl<B: Bridge> Service<'_, B> {
    /// Builds all platforms.
    pub(super) async fn build(
        &self,
        definition: &Definition,
        options: &FrontendOptions,
    ) -> Result<Solution<B::Ref>, Error> {
        let scanner = match &options.sbom {
            Some(sbom) => {
                let platform = self.default_platform(&options.convert);
                let resolve_mode = options.convert.resolve_mode.as_str();
                Some(Scanner::find(self.bridge, sbom, &platform, resolve_mode).await?)
            }
            None => None,
        };
        let imports = cache_imports(options);
        let platforms = options.per_platform();
        // What is found is the same for all platforms.
        let all = platforms.iter().enumerate().map(|(index, convert)| {
            let imports = imports.clone();
            async move { self.build_platform(definition, convert, imports, index == 0).await }
        });
        let all = try_join_all(all).await?;
        let mut attestations = Vec::new();
        if let Some(scanner) = &scanner {
            let scans = all.iter().map(|(built, converted)| {
                let id = answer::platform_id(&built.platform);
                async move {
                    let scan = Scan {
                        platform_id: &id,
                        core: &converted.sbom.core,
                        extras: &converted.sbom.extras,
                        ignore_cache: converted.ignore_cache,
                    };
                    let made = scanner.scan(self.bridge, scan, &self.request.build_id).await?;
                    Ok::<_, Error>((id, made))
                }
            });
            attestations = try_join_all(scans).await?;
        }
        let built = all.into_iter().map(|(built, _)| built).collect();
        let mut solution = answer::solution(built, options.convert.multi_platform);
        for (id, attestation) in attestations {
            solution.attestations.entry(id).or_default().push(attestation);
        }
        Ok(solution)
    }

    async fn build_platform(
        &self,
        definition: &Definition,
        options: &ConvertOptions,
        cache_imports: Vec<CacheImport>,
        report: bool,
    ) -> Result<(Built<B::Ref>, Converted), Error> {
        let findings = report.then(Findings::default);
        let converted = kiln_dockerfile::convert(definition.text(), options, self, findings.as_ref()).await;
        if let Some(findings) = &findings {
            self.report(definition, findings.take()).await;
        }
        let converted = converted.map_err(|error| self.convert_failed(definition, &error))?;
        let graph = converted.state.marshal(&converted.marshal_options(&self.request.build_id));
        let graph = graph.map_err(|error| Error::of(&error).context("failed to marshal LLB definition"))?;
        let request = SolveRequest { definition: Some(graph), cache_imports, ..SolveRequest::default() };
        let reference = self.solve_single(request).await?;
        let platform = options.target_platform.clone().unwrap_or_else(|| self.default_platform(options));
        let built = Built {
            platform,
            reference,
            image: converted.image.clone(),
            base_image: converted.base_image.clone(),
            epoch: converted.epoch,
        };
        Ok((built, converted))
    }

    fn default_platform(&self, options: &ConvertOptions) -> kiln_oci::Platform {
        options.build_platforms.first().cloned().unwrap_or_else(kiln_oci::platform::default_for_host)
    }

    /// Shows what was found as warnings; a client that cannot be told is no reason to fail.
    pub(super) async fn report(&self, definition: &Definition, findings: Vec<Finding>) {
        for finding in findings {
            let warning = Warning {
                vertex: definition.vertex.clone(),
                level: FINDING_LEVEL,
                short: finding.short().into(),
                detail: vec![Bytes::from_static(finding.rule.description().as_bytes())],
                url: finding.rule.url(),
                source: Some(definition.source_info()),
                ranges: answer::ranges(&finding.location),
            };
            if let Err(error) = self.bridge.warn(warning).await {
                tracing::debug!(%error, "warning not delivered");
            }
        }
    }

    /// The error of a conversion with the lines that it is about. What the bridge failed with keeps its class and
    /// details.
    pub(super) fn convert_failed(&self, definition: &Definition, error: &kiln_dockerfile::Error) -> Error {
        let below = error.resolve_error().and_then(|inner| inner.downcast_ref::<Error>());
        let failed = match below {
            Some(inner) => inner.clone().with_message(error.to_string()),
            None => Error::unknown(error.to_string()),
        };
        let lines = error.locations().iter();
        lines.fold(failed, |failed, lines| self.at_lines(failed, definition, lines))
    }
}

fn cache_imports(options: &FrontendOptions) -> Vec<CacheImport> {
    let import = |import: &kiln_dockerfile::CacheImport| CacheImport {
        kind: import.kind.clone(),
        attrs: import.attrs.clone(),
    };
    options.cache_imports.iter().map(import).collect()
}
