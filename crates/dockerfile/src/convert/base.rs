//! Bases of stages: the stages that are needed, the configs of their images, and what named contexts put
//! in their place.

use super::Converter;
use super::contexts::{Loaded, NamedContext};
use super::error::ConvertError;
use super::image::{empty_image, read_image};
use super::names::step_name;
use super::resolver::{ImageAnswer, ImageConfigRequest, ImageStore, ResolvedImage};
use super::stages::{SCRATCH, StageId, StageState};
use crate::error::Error;
use crate::limits::ONBUILD_ROUNDS_MAX;
use crate::lint::Rule;
use crate::shell::NoEnv;
use crate::suggest::Case;
use crate::values::quote;
use futures::future::try_join_all;
use kiln_llb::{Constraints, ImageSource, SourceLocation, State};
use kiln_oci::{Image, Platform, Reference};
use std::collections::HashSet;

/// Images that people mean more often than others.
const COMMON_IMAGES: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// The key of the description that holds an instruction's code.
pub(super) const DESCRIPTION_COMMAND: &str = "com.docker.dockerfile.v1.command";

/// What is looked up for a stage.
enum Lookup {
    /// What stands in the place of the stage.
    Stage(NamedContext),
    /// What stands in the place of its base image.
    Base(NamedContext),
    Image(ImageConfigRequest),
}

/// What was found.
enum Found {
    Stage(Loaded),
    Base(Loaded),
    Image(ResolvedImage),
}

impl Converter<'_> {
    /// Looks up the bases of all stages that the target needs, until triggers bring in no more of them.
    pub(super) async fn resolve_stages(&mut self, target: StageId) -> Result<HashSet<StageId>, Error> {
        for _ in 0..ONBUILD_ROUNDS_MAX {
            let reachable = self.stages.reachable(target);
            self.resolve_bases(&reachable).await?;
            if !self.take_triggers(&reachable)? {
                return Ok(reachable);
            }
        }
        Err(ConvertError::OnbuildRounds(ONBUILD_ROUNDS_MAX).into())
    }

    async fn resolve_bases(&mut self, reachable: &HashSet<StageId>) -> Result<(), Error> {
        let mut lookups = Vec::new();
        for id in self.stages.ids() {
            let needed = self.options.all_stages || reachable.contains(&id);
            let stage = &mut self.stages[id];
            if stage.base.is_some() || stage.dispatched || stage.resolved {
                continue;
            }
            // What is not needed yet may be when triggers are known.
            stage.resolved = needed;
            stage.dispatched = stage.unregistered;
            if stage.stage.base_name == SCRATCH && stage.named_context.is_none() {
                stage.state = State::scratch();
                stage.image = empty_image(&self.platforms.target);
                stage.platform = Some(self.platforms.target.clone());
                continue;
            }
            let written = stage.stage.base_name.clone();
            let location = stage.stage.location.clone();
            if let Some(lookup) = self.plan_lookup(id, needed).map_err(|error| error.at(&location))? {
                lookups.push((id, written, lookup));
            }
        }
        let answers = lookups.into_iter().map(|(id, written, lookup)| self.look_up(id, written, lookup));
        for (id, written, found) in try_join_all(answers).await? {
            let location = self.stages[id].stage.location.clone();
            self.take_base(id, &written, found).map_err(|error| error.at(&location))?;
        }
        Ok(())
    }

    /// Finds out where the base of a stage is to be looked up. What is not needed is only named.
    fn plan_lookup(&mut self, id: StageId, needed: bool) -> Result<Option<Lookup>, Error> {
        let written = self.stages[id].stage.base_name.clone();
        let reference = Reference::parse(&written).map_err(|error| {
            let error = Error::from(ConvertError::Reference(error));
            error.within(format!("failed to parse stage name {}", quote(&written)))
        })?;
        let platform = self.platform_of(id);
        let name = reference.with_default_tag().to_string();
        self.stages[id].stage.base_name.clone_from(&name);
        if !needed {
            self.stages[id].platform = Some(platform);
            return Ok(None);
        }
        if let Some(context) = &self.stages[id].named_context {
            return Ok(Some(Lookup::Stage(context.clone())));
        }
        if let Some(context) = self.find_context(&name, Some(&platform))? {
            return Ok(Some(Lookup::Base(context)));
        }
        let shown = if self.options.multi_platform { format!("{platform} ") } else { String::new() };
        Ok(Some(Lookup::Image(ImageConfigRequest {
            log_name: format!("[{shown}internal] load metadata for {name}"),
            reference: name,
            store: ImageStore::Registry(self.options.resolve_mode),
            platform,
        })))
    }

    fn platform_of(&self, id: StageId) -> Platform {
        self.stages[id].platform.clone().unwrap_or_else(|| self.platforms.target.clone())
    }

    async fn look_up(
        &self,
        id: StageId,
        written: String,
        lookup: Lookup,
    ) -> Result<(StageId, String, Found), Error> {
        let stage = &self.stages[id];
        let found = match lookup {
            Lookup::Stage(context) => self.load_context(&context, &stage.paths).await.map(Found::Stage),
            Lookup::Base(context) => self.load_context(&context, &stage.paths).await.map(Found::Base),
            Lookup::Image(request) => {
                let answer = match self.resolver.image_config(request).await {
                    Ok(ImageAnswer::Image(image)) => Ok(image),
                    Ok(ImageAnswer::OtherSource { error, .. }) | Err(error) => Err(Error::resolve(error)),
                };
                answer.map(Found::Image).map_err(|error| {
                    let common = COMMON_IMAGES.iter().flat_map(|name| {
                        [(*name).to_owned(), format!("docker.io/library/{name}"), format!("{name}:latest")]
                    });
                    let common: Vec<String> = common.collect();
                    let known = self.stages.names().chain(common.iter().map(String::as_str));
                    error.within(written.clone()).suggest(&written, known, Case::Sensitive)
                })
            }
        };
        match found {
            Ok(found) => Ok((id, written, found)),
            Err(error) => Err(error.at(&stage.stage.location)),
        }
    }

    fn take_base(&mut self, id: StageId, written: &str, found: Found) -> Result<(), Error> {
        match found {
            Found::Stage(loaded) => {
                let (state, image) = self.take_loaded(loaded);
                let stage = &mut self.stages[id];
                stage.dispatched = true;
                stage.state = state;
                if let Some(mut image) = image {
                    image.created = None;
                    if !image.architecture.is_empty() && !image.os.is_empty() {
                        stage.platform = Some(image.platform());
                    }
                    stage.image = image;
                }
            }
            Found::Base(loaded) => {
                let (state, image) = self.take_loaded(loaded);
                let platform = self.platform_of(id);
                let image = image.unwrap_or_else(|| empty_image(&platform));
                let stage = &mut self.stages[id];
                stage.state = state.platform(platform.clone());
                stage.platform = Some(platform);
                stage.set_base_image(image);
            }
            Found::Image(resolved) => self.take_image(id, written, resolved)?,
        }
        Ok(())
    }

    fn take_image(&mut self, id: StageId, written: &str, resolved: ResolvedImage) -> Result<(), Error> {
        let mut reference = Reference::parse(&resolved.reference).map_err(|error| {
            let error = Error::from(ConvertError::Reference(error));
            error.within(format!("failed to parse ref {}", quote(&resolved.reference)))
        })?;
        let image =
            read_image(&resolved.config).map_err(|error| ConvertError::ImageConfig(error.to_string()))?;
        let mut platform = self.platform_of(id);
        if self.stages[id].platform.is_none() && self.platforms.implicit_target {
            platform = self.detected_platform(&image, platform);
        }
        if let Some(digest) = resolved.digest {
            reference = reference.with_digest(digest);
        }
        let name = reference.to_string();
        let has_no_layers =
            image.rootfs.diff_ids.is_empty() && image.history.iter().all(|entry| entry.empty_layer);
        self.stages[id].stage.base_name.clone_from(&name);
        self.stages[id].state = if has_no_layers {
            State::scratch()
        } else {
            self.check_platform(id, written, &platform, &image);
            let multi_platform = self.options.multi_platform;
            let stage = &mut self.stages[id];
            let step = step_name(stage, &format!("FROM {name}"), multi_platform, Some(&platform), &NoEnv);
            let constraints = Constraints::new()
                .platform(platform.clone())
                .description(DESCRIPTION_COMMAND, stage.stage.code.clone())
                .custom_name(step);
            let location = stage.stage.location.clone();
            let constraints = self.at(constraints, &location);
            let source = ImageSource { resolve_mode: self.options.resolve_mode, ..ImageSource::default() };
            State::image(&name, source, constraints)?
        };
        let stage = &mut self.stages[id];
        stage.platform = Some(platform);
        stage.set_base_image(image);
        Ok(())
    }

    /// Where nobody asked for a platform, the one of the image is taken if builds run on it.
    fn detected_platform(&self, image: &Image, platform: Platform) -> Platform {
        let same =
            |platform: &&Platform| platform.os == image.os && platform.architecture == image.architecture;
        if same(&&platform) {
            return platform;
        }
        self.options.build_platforms.iter().find(same).cloned().unwrap_or(platform)
    }

    fn check_platform(&self, id: StageId, name: &str, expected: &Platform, image: &Image) {
        if expected.os == image.os && expected.architecture == image.architecture {
            return;
        }
        let actual = image.platform().normalized().to_string();
        let expected = expected.normalized().to_string();
        let detail = format!(
            "Base image {name} was pulled with platform {}, expected {} for current build",
            quote(&actual),
            quote(&expected)
        );
        self.lint.report(Rule::InvalidBaseImagePlatform, &self.stages[id].stage.location, detail);
    }

    /// Adds a place in the Dockerfile to a step.
    pub(super) fn at(&self, constraints: Constraints, location: &[crate::location::Range]) -> Constraints {
        match &self.options.source_map {
            Some(source) if !location.is_empty() => {
                let ranges = location.iter().map(crate::json::pb_range).collect();
                constraints.location(SourceLocation { source: source.clone(), ranges })
            }
            _ => constraints,
        }
    }
}

impl StageState {
    fn set_base_image(&mut self, image: Image) {
        self.base_image = Some(image.clone());
        self.image = image;
        self.image.created = None;
    }
}
