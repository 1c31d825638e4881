//! Has a scanner image make the bill of materials of a result (BuildKit's scanner protocol).

use crate::{Attestation, AttestationKind, Bridge, Error, MetaRequest, Refs, SolveRequest};
use bytes::Bytes;
use kiln_dockerfile::SbomOptions;
use kiln_llb::{Constraints, ImageSource, MarshalOptions, MountInfo, MountKind, RunInfo, State};
use kiln_oci::{Image, Platform};
use kiln_proto::pb;
use std::collections::BTreeMap;

const CORE: &str = "sbom";
const SOURCES: &str = "/run/src";
const RESULTS: &str = "/run/out/";
const IMAGE_SCHEME: &str = "docker-image://";
/// The type of the statements that scanners make.
pub const PREDICATE_TYPE: &str = "https://spdx.dev/Document";

/// A scanner that was found.
pub struct Scanner {
    reference: String,
    image: Image,
    platform: Platform,
    parameters: BTreeMap<String, String>,
}

/// What is to be scanned.
pub struct Scan<'a> {
    /// The platform's name in displays.
    pub platform_id: &'a str,
    /// The result.
    pub core: &'a State,
    /// What else may be of interest, by name, such as the build's context.
    pub extras: &'a [(String, State)],
    /// Scanned again even if that was done before.
    pub ignore_cache: bool,
}

impl Scanner {
    /// Looks the scanner up. `platform` is the one that it runs on.
    pub async fn find<B: Bridge>(
        bridge: &B,
        sbom: &SbomOptions,
        platform: &Platform,
        resolve_mode: &str,
    ) -> Result<Self, Error> {
        let source =
            pb::SourceOp { identifier: format!("{IMAGE_SCHEME}{}", sbom.generator), ..Default::default() };
        let request = MetaRequest {
            platform: Some(platform.clone()),
            resolve_mode: resolve_mode.to_owned(),
            ..MetaRequest::default()
        };
        let found = bridge.resolve_source_meta(source, request).await?;
        let identifier = found.source.identifier;
        let (Some(reference), Some(found)) = (identifier.strip_prefix(IMAGE_SCHEME), found.image) else {
            return Err(Error::unknown(format!("scanner {identifier} is no image")));
        };
        let image: Image = serde_json::from_slice(&found.config).map_err(|error| Error::of(&error))?;
        if image.config.entrypoint.is_empty() && image.config.cmd.is_empty() {
            return Err(Error::unknown(format!("scanner {reference} does not have cmd")));
        }
        Ok(Scanner {
            reference: reference.to_owned(),
            image,
            platform: platform.clone(),
            parameters: sbom.parameters.clone(),
        })
    }

    /// Scans a result.
    pub async fn scan<B: Bridge>(
        &self,
        bridge: &B,
        scan: Scan<'_>,
        build_id: &str,
    ) -> Result<Attestation<B::Ref>, Error> {
        let graph = self.graph(&scan)?;
        let options = MarshalOptions::new(self.platform.clone(), build_id);
        let request = SolveRequest { definition: Some(graph.marshal(&options)?), ..SolveRequest::default() };
        let Refs::Single(reference) = bridge.solve(request).await?.refs else {
            return Err(Error::unknown("failed to get single ref: result has multiple refs"));
        };
        let metadata = [("reason", "sbom"), ("sbom-core", CORE)];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), Bytes::from(value)));
        Ok(Attestation {
            kind: AttestationKind::Bundle,
            metadata: metadata.into(),
            reference,
            path: String::new(),
            predicate_type: PREDICATE_TYPE.to_owned(),
            subjects: Vec::new(),
        })
    }

    fn graph(&self, scan: &Scan<'_>) -> Result<State, Error> {
        let config = &self.image.config;
        let constraints = Constraints::new().platform(self.platform.clone());
        let mut root = State::image(&self.reference, ImageSource::default(), constraints)?;
        if !config.working_dir.is_empty() {
            root = root.dir(&config.working_dir);
        }
        let extras = scan.extras;
        let mut env: Vec<(String, String)> = Vec::new();
        for variable in &config.env {
            let (key, value) = variable.split_once('=').unwrap_or((variable, ""));
            env.push((key.to_owned(), value.to_owned()));
        }
        let mut set = |key: &str, value: String| env.push((key.to_owned(), value));
        set("BUILDKIT_SCAN_DESTINATION", RESULTS.to_owned());
        set("BUILDKIT_SCAN_SOURCE", format!("{SOURCES}/core/{CORE}"));
        if !extras.is_empty() {
            set("BUILDKIT_SCAN_SOURCE_EXTRAS", format!("{SOURCES}/extras"));
        }
        for (key, value) in &self.parameters {
            set(&format!("BUILDKIT_SCAN_{key}"), value.clone());
        }
        let root = env.into_iter().fold(root, |root, (key, value)| root.add_env(key, value));

        let readonly = |target: String, state: &State| MountInfo {
            readonly: true,
            ..MountInfo::bind(target, state.clone())
        };
        let mut mounts = vec![
            MountInfo {
                kind: MountKind::Tmpfs { size: 0 },
                no_output: true,
                ..MountInfo::bind("/tmp", State::scratch())
            },
            readonly(format!("{SOURCES}/core/{CORE}"), scan.core),
        ];
        let extra =
            |(name, state): &(String, State)| readonly(format!("{SOURCES}/extras/{CORE}-{name}"), state);
        mounts.extend(extras.iter().map(extra));
        mounts.push(MountInfo::bind(RESULTS, State::scratch()));
        let info = RunInfo {
            args: config.entrypoint.iter().chain(&config.cmd).cloned().collect(),
            mounts,
            ..RunInfo::default()
        };
        let name = format!("[{}] generating sbom using {}", scan.platform_id, self.reference);
        let constraints = Constraints::new().custom_name(name).ignore_cache(scan.ignore_cache);
        let after = root.run(info, constraints)?;
        after.mount(RESULTS).cloned().ok_or_else(|| Error::unknown("scanner has no output"))
    }
}
