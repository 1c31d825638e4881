//! Has a scanner image make the bill of materials of each platform.

use super::resolver::Service;
use crate::{Attestation, AttestationKind, Bridge, Error, SolveRequest};
use bytes::Bytes;
use kiln_dockerfile::{
    Converted, FrontendOptions, ImageAnswer, ImageConfigRequest, ImageStore, Resolver, SbomOptions,
};
use kiln_llb::{Constraints, ImageSource, MarshalOptions, MountInfo, MountKind, RunInfo, State};
use kiln_oci::{Image, Platform};
use std::collections::BTreeMap;

const CORE: &str = "sbom";
const SOURCES: &str = "/run/src";
const RESULTS: &str = "/run/out/";
const PREDICATE_TYPE: &str = "https://spdx.dev/Document";

/// A scanner that was found.
pub(super) struct Scanner {
    reference: String,
    image: Image,
    platform: Platform,
    parameters: BTreeMap<String, String>,
}

impl<B: Bridge> Service<'_, B> {
    /// Looks the scanner up.
    pub(super) async fn find_scanner(
        &self,
        sbom: &SbomOptions,
        options: &FrontendOptions,
    ) -> Result<Scanner, Error> {
        let platform = options.convert.build_platforms.first().cloned().unwrap_or_default();
        let request = ImageConfigRequest {
            reference: sbom.generator.clone(),
            store: ImageStore::Registry(options.convert.resolve_mode),
            platform: platform.clone(),
            log_name: String::new(),
        };
        let answer = self.image_config(request).await.map_err(|error| Error::of(&*error))?;
        let found = match answer {
            ImageAnswer::Image(found) => found,
            ImageAnswer::OtherSource { error, .. } => return Err(Error::of(&*error)),
        };
        let image: Image = serde_json::from_slice(&found.config).map_err(|error| Error::of(&error))?;
        if image.config.entrypoint.is_empty() && image.config.cmd.is_empty() {
            return Err(Error::unknown(format!("scanner {} does not have cmd", found.reference)));
        }
        Ok(Scanner { reference: found.reference, image, platform, parameters: sbom.parameters.clone() })
    }

    /// Scans what was converted for one platform.
    pub(super) async fn scan(
        &self,
        scanner: &Scanner,
        platform_id: &str,
        converted: &Converted,
    ) -> Result<Attestation<B::Ref>, Error> {
        let graph = scanner.graph(platform_id, converted)?;
        let options = MarshalOptions::new(scanner.platform.clone(), &self.request.build_id);
        let request = SolveRequest { definition: Some(graph.marshal(&options)?), ..SolveRequest::default() };
        let reference = self.solve_single(request).await?;
        let metadata = [("reason", "sbom"), ("sbom-core", CORE)];
        Ok(Attestation {
            kind: AttestationKind::Bundle,
            metadata: metadata.map(|(key, value)| (key.to_owned(), Bytes::from(value))).into(),
            reference,
            path: String::new(),
            predicate_type: PREDICATE_TYPE.to_owned(),
            subjects: Vec::new(),
        })
    }
}

impl Scanner {
    fn graph(&self, platform_id: &str, converted: &Converted) -> Result<State, Error> {
        let config = &self.image.config;
        let constraints = Constraints::new().platform(self.platform.clone());
        let mut root = State::image(&self.reference, ImageSource::default(), constraints)?;
        if !config.working_dir.is_empty() {
            root = root.dir(&config.working_dir);
        }
        let extras = &converted.sbom.extras;
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
            readonly(format!("{SOURCES}/core/{CORE}"), &converted.sbom.core),
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
        let name = format!("[{platform_id}] generating sbom using {}", self.reference);
        let constraints = Constraints::new().custom_name(name).ignore_cache(converted.ignore_cache);
        let after = root.run(info, constraints)?;
        after.mount(RESULTS).cloned().ok_or_else(|| Error::unknown("scanner has no output"))
    }
}
