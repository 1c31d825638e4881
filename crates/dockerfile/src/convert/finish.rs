//! The end of a conversion: contexts get their sources, the image its platform.

use super::Converter;
use super::resolver::MainContext;
use super::stages::StageId;
use crate::error::{Error, ErrorKind};
use crate::outline::Outline;
use crate::path::join;
use kiln_llb::{Constraints, LateOutput, LocalSource, MarshalOptions, State};
use kiln_oci::{Image, Platform, Timestamp};
use std::collections::BTreeSet;

/// What a conversion gives.
#[derive(Debug, Clone)]
pub struct Converted {
    /// The files of the image.
    pub state: State,
    /// Its config, without layers of its own.
    pub image: Image,
    /// The config of the base image.
    pub base_image: Option<Image>,
    /// The time that everything gets.
    pub epoch: Option<Timestamp>,
    /// What a bill of materials is made of.
    pub sbom: SbomTargets,
    /// Some stage that matters ignores the cache.
    pub ignore_cache: bool,
    /// The platform of steps that name none.
    pub platform: Platform,
}

/// What a bill of materials is made of.
#[derive(Debug, Clone)]
pub struct SbomTargets {
    pub core: State,
    /// The context and further stages, by name.
    pub extras: Vec<(String, State)>,
}

impl Converted {
    /// How to write the graph down. `local_unique_id` tells local sources of this build from others'.
    pub fn marshal_options(&self, local_unique_id: &str) -> MarshalOptions {
        MarshalOptions::new(self.platform.clone(), local_unique_id)
    }
}

impl Converter<'_> {
    pub(super) fn finish(&mut self, target: StageId, main_context: MainContext) -> Result<(), Error> {
        let labels = self.options.labels.clone();
        self.stages[target].image.config.labels.extend(labels);
        if let Some(rules) = self.lint.violations() {
            return Err(ErrorKind::Lint(rules).into());
        }
        self.set_main_context(target, main_context);
        for late in &self.local_contexts {
            let source = LocalSource { follow_paths: follow_paths(&late.paths.get()), ..late.source.clone() };
            let state = State::local(&late.local, source, Constraints::new().custom_name(&late.name));
            set_late(&late.output, &state);
        }
        let platform = &self.platforms.target;
        let image = &mut self.stages[target].image;
        if !self.platforms.implicit_target {
            let same = platform.os == image.os && platform.architecture == image.architecture;
            image.os.clone_from(&platform.os);
            image.architecture.clone_from(&platform.architecture);
            if !platform.variant.is_empty() || !same {
                image.variant.clone_from(&platform.variant);
            }
            if !platform.os_version.is_empty() || !same {
                image.os_version.clone_from(&platform.os_version);
            }
            if !platform.os_features.is_empty() {
                image.os_features.clone_from(&platform.os_features);
            }
        }
        let normalized = image.platform().normalized();
        image.set_platform(normalized);
        Ok(())
    }

    /// Of a local context only what the stages use is asked for.
    fn set_main_context(&mut self, target: StageId, context: MainContext) {
        let state = match context {
            MainContext::State(state) => state,
            MainContext::Local { name, session_id, ignore } => {
                let reachable = self.stages.reachable(target);
                let used = self.stages.ids().filter(|id| self.options.all_stages || reachable.contains(id));
                let paths = used.flat_map(|id| self.stages[id].context_paths.iter().cloned()).collect();
                let source = LocalSource {
                    session_id: Some(session_id),
                    exclude_patterns: ignore,
                    follow_paths: follow_paths(&paths),
                    shared_key_hint: name.clone(),
                    ..LocalSource::default()
                };
                State::local(&name, source, Constraints::new().custom_name("[internal] load build context"))
            }
        };
        set_late(&self.main_context, &state);
    }

    /// What the target and all that it depends on tell; the target itself counts first.
    pub(super) fn outline(&self, target: StageId, text: &[u8]) -> Outline {
        let mut order: Vec<StageId> = self.stages.reachable(target).into_iter().collect();
        order.sort_unstable_by_key(|id| (*id != target, std::cmp::Reverse(*id)));
        let stage = &self.stages[target].stage;
        let captures = order.iter().map(|id| &self.stages[*id].capture);
        Outline::gather(stage.name.clone(), stage.doc_comment.clone(), captures, text)
    }

    pub(super) fn into_converted(self, target: StageId) -> Converted {
        let stage = &self.stages[target];
        let mut extras = Vec::new();
        if stage.scan_context {
            extras.push(("context".to_owned(), State::late(&self.main_context)));
        }
        let mut ignore_cache = stage.ignore_cache;
        let mut others: Vec<StageId> =
            self.stages.reachable(target).into_iter().filter(|id| *id != target).collect();
        others.sort_unstable();
        for other in others.into_iter().map(|id| &self.stages[id]).filter(|other| other.scan_stage) {
            extras.push((other.shown_name.clone(), other.state.clone()));
            ignore_cache |= other.ignore_cache;
        }
        Converted {
            state: stage.state.clone(),
            image: stage.image.clone(),
            base_image: stage.base_image.clone(),
            epoch: self.epoch,
            sbom: SbomTargets { core: stage.state.clone(), extras },
            ignore_cache,
            platform: self.platforms.target,
        }
    }
}

fn set_late(output: &LateOutput, state: &State) {
    output.set(state.output().cloned()).expect("contexts are set once, at the end");
}

/// The paths to ask for; none if everything is used, or nothing.
fn follow_paths(used: &BTreeSet<String>) -> Vec<String> {
    if used.contains("/") {
        return Vec::new();
    }
    let relative = |path: &String| join(".", path.trim_start_matches('/'));
    let mut paths: Vec<String> = used.iter().map(relative).collect();
    paths.sort();
    paths
}
