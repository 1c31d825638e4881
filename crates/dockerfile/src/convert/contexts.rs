//! Named contexts: what a build puts in the place of a stage or a base image.

use super::Converter;
use super::error::ConvertError;
use super::image::{read_image, split_entry};
use super::resolver::{ImageAnswer, ImageConfigRequest, ImageStore, ResolvedImage};
use super::stages::{SCRATCH, UsedPaths};
use crate::error::Error;
use crate::git_ref::{self, GitRef};
use crate::ignore::parse_ignore;
use crate::limits::CONTEXT_REDIRECTS_MAX;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_llb::{
    Constraints, FileInfo, GitSource, HttpSource, ImageSource, LateOutput, LocalDiffer, LocalSource,
    OciLayoutSource, State,
};
use kiln_oci::{Digest, Image, Platform, Reference};
use std::collections::BTreeMap;

const IGNORE_FILE: &str = ".dockerignore";

/// The key of an input's metadata that holds the image config.
const INPUT_CONFIG_KEY: &str = "containerimage.config";

/// A named context that was given for a stage or an image.
#[derive(Debug, Clone)]
pub(super) struct NamedContext {
    /// The short name of the reference.
    name: String,
    /// The name under which it was given, possibly with a platform.
    given_name: String,
    specifier: String,
    platform: Option<Platform>,
}

/// A context from the client, whose source is made when it is known which of its paths are used.
pub(super) struct LateLocal {
    pub(super) output: LateOutput,
    pub(super) local: String,
    pub(super) name: String,
    pub(super) source: LocalSource,
    pub(super) paths: UsedPaths,
}

/// What a named context turned out to be.
pub(super) struct Loaded {
    state: State,
    image: Option<Image>,
    late: Option<LateLocal>,
}

impl Loaded {
    fn state(state: State) -> Self {
        Self { state, image: None, late: None }
    }
}

/// A context, or where a source policy sends it.
enum Step {
    Loaded(Box<Loaded>),
    Redirected(String),
}

impl Converter<'_> {
    /// The context that was given for `name`, for this platform or for all.
    pub(super) fn find_context(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<NamedContext>, Error> {
        if name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
            return Ok(None);
        }
        self.find_any_context(name, platform.or(self.options.target_platform.as_ref()))
    }

    /// As [`Self::find_context`], for reserved names as well.
    pub(super) fn find_any_context(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<NamedContext>, Error> {
        if self.options.contexts.is_empty() && Reference::parse(name).is_ok() {
            return Ok(None);
        }
        let reference = Reference::parse(name)
            .map_err(|error| ConvertError::ContextName { name: name.to_owned(), error })?;
        let familiar = reference.familiar();
        let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
        let shown = platform.unwrap_or(&self.platforms.build).normalized();
        let found = [format!("{name}::{shown}"), name.to_owned()].into_iter().find_map(|given_name| {
            let specifier = self.options.contexts.get(&given_name)?.clone();
            Some(NamedContext { name: name.to_owned(), given_name, specifier, platform: platform.cloned() })
        });
        Ok(found)
    }

    /// Makes the state of a context. `paths` are those that will be used of it.
    pub(super) async fn load_context(
        &self,
        context: &NamedContext,
        paths: &UsedPaths,
    ) -> Result<Loaded, Error> {
        let mut specifier = context.specifier.clone();
        for _ in 0..=CONTEXT_REDIRECTS_MAX {
            match self.load_specifier(context, &specifier, paths).await? {
                Step::Loaded(loaded) => return Ok(*loaded),
                Step::Redirected(next) => specifier = next,
            }
        }
        Err(ConvertError::ContextRecursion(specifier).into())
    }

    async fn load_specifier(
        &self,
        context: &NamedContext,
        specifier: &str,
        paths: &UsedPaths,
    ) -> Result<Step, Error> {
        let name = &context.given_name;
        let Some((scheme, rest)) = specifier.split_once(':') else {
            let error =
                ConvertError::ContextSpecifier { specifier: specifier.to_owned(), name: name.clone() };
            return Err(error.into());
        };
        let loaded = match scheme {
            "docker-image" => return self.load_image(context, rest.strip_prefix("//").unwrap_or(rest)).await,
            "oci-layout" => self.load_layout(context, rest.strip_prefix("//").unwrap_or(rest)).await?,
            "http" | "https" => match git_ref::parse(specifier)? {
                Some(git) => Loaded::state(git_context(&git, specifier)),
                None => {
                    let file = FileInfo { filename: "context".to_owned(), ..FileInfo::default() };
                    let constraints = Constraints::new().custom_name(format!("[context {name}] {specifier}"));
                    Loaded::state(State::http(
                        specifier,
                        HttpSource { file, ..HttpSource::default() },
                        constraints,
                    ))
                }
            },
            "local" => self.load_local(context, rest, paths).await?,
            "input" => self.load_input(context, rest).await?,
            _ if scheme == "git" || scheme.starts_with("git@") => match git_ref::parse(specifier)? {
                Some(git) => Loaded::state(git_context(&git, specifier)),
                None => return Err(ConvertError::GitContext(specifier.to_owned()).into()),
            },
            _ => {
                let error = ConvertError::ContextSource { scheme: scheme.to_owned(), name: name.clone() };
                return Err(error.into());
            }
        };
        Ok(Step::Loaded(Box::new(loaded)))
    }

    async fn load_image(&self, context: &NamedContext, written: &str) -> Result<Step, Error> {
        if written == SCRATCH {
            return Ok(Step::Loaded(Box::new(Loaded::state(State::scratch()))));
        }
        let name = &context.given_name;
        let reference = Reference::parse(written).map_err(ConvertError::Reference)?.with_default_tag();
        let request = ImageConfigRequest {
            reference: reference.to_string(),
            store: ImageStore::Registry(self.options.resolve_mode),
            platform: self.context_platform(context),
            log_name: format!("[context {name}] load metadata for {written}"),
        };
        let resolved = match self.resolver.image_config(request).await.map_err(Error::resolve)? {
            ImageAnswer::Image(image) => image,
            ImageAnswer::OtherSource { identifier, .. } => {
                let (scheme, rest) = identifier
                    .split_once("://")
                    .ok_or_else(|| ConvertError::ContextRedirect(identifier.clone()))?;
                // Names of local contexts and inputs have no slashes in front.
                return Ok(Step::Redirected(match scheme {
                    "local" | "input" => format!("{scheme}:{rest}"),
                    _ => identifier,
                }));
            }
        };
        let constraints = self.context_constraints(context, &format!("[context {name}] {written}"));
        let state = State::image(&resolved.reference, ImageSource::default(), constraints)?;
        let mut image = read_config(&resolved)?;
        image.created = None;
        let state = with_image_config(&state, &image);
        Ok(Step::Loaded(Box::new(Loaded { state, image: Some(image), late: None })))
    }

    async fn load_layout(&self, context: &NamedContext, written: &str) -> Result<Loaded, Error> {
        let name = &context.given_name;
        let (store, digest) =
            written.split_once('@').ok_or_else(|| ConvertError::OciLayoutDigest(written.to_owned()))?;
        let store_id = store.split(':').next().unwrap_or_default().to_owned();
        let invalid = || ConvertError::OciLayoutReference(written.to_owned());
        if store_id.is_empty() {
            return Err(invalid().into());
        }
        let digest = Digest::parse(digest).map_err(|_| invalid())?;
        // The name is for people only: the layout is found by the store's id.
        let reference = Reference::parse(&context.name)
            .map_err(|_| ConvertError::OciLayoutReference(context.name.clone()))?
            .with_digest(digest);
        let session_id = self.options.session_id.clone();
        let request = ImageConfigRequest {
            reference: reference.to_string(),
            store: ImageStore::OciLayout { session_id: session_id.clone(), store_id: store_id.clone() },
            platform: self.context_platform(context),
            log_name: format!("[context {name}] load metadata for {reference}"),
        };
        let resolved = match self.resolver.image_config(request).await.map_err(Error::resolve)? {
            ImageAnswer::Image(image) => image,
            ImageAnswer::OtherSource { error, .. } => return Err(Error::resolve(error)),
        };
        let image = read_config(&resolved)?;
        let constraints =
            self.context_constraints(context, &format!("[context {name}] OCI load from client"));
        let source = OciLayoutSource { session_id, store_id, layer_limit: None };
        let state = State::oci_layout(&reference.to_string(), source, constraints);
        Ok(Loaded { state: with_image_config(&state, &image), image: Some(image), late: None })
    }

    async fn load_local(
        &self,
        context: &NamedContext,
        local: &str,
        paths: &UsedPaths,
    ) -> Result<Loaded, Error> {
        let name = &context.given_name;
        let session_id = Some(self.options.session_of(local));
        let ignore_source = LocalSource {
            session_id: session_id.clone(),
            follow_paths: vec![IGNORE_FILE.to_owned()],
            shared_key_hint: format!("context:{name}-{IGNORE_FILE}"),
            differ: Some((LocalDiffer::None, false)),
            ..LocalSource::default()
        };
        let constraints = Constraints::new().custom_name(format!("[context {name}] load {IGNORE_FILE}"));
        let ignore_state = State::local(local, ignore_source, constraints);
        let ignore_file =
            self.resolver.read_file(&ignore_state, IGNORE_FILE).await.map_err(Error::resolve)?;
        let exclude_patterns =
            parse_ignore(&ignore_file.unwrap_or_default()).map_err(ConvertError::Ignore)?;
        let shared_key = self.options.context_shared_keys.get(name).map(String::as_str).unwrap_or_default();
        let output = LateOutput::new(format!("context {name}"), None);
        let late = LateLocal {
            output: output.clone(),
            local: local.to_owned(),
            name: format!("[context {name}] load from client"),
            source: LocalSource {
                session_id,
                shared_key_hint: format!("context:{name}-{shared_key}"),
                exclude_patterns,
                ..LocalSource::default()
            },
            paths: paths.clone(),
        };
        Ok(Loaded { state: State::late(&output), image: None, late: Some(late) })
    }

    async fn load_input(&self, context: &NamedContext, input: &str) -> Result<Loaded, Error> {
        let state = self.resolver.input(input).await.map_err(Error::resolve)?.ok_or_else(|| {
            ConvertError::Input { input: input.to_owned(), name: context.given_name.clone() }
        })?;
        let Some(metadata) = self.options.input_metadata.get(input) else { return Ok(Loaded::state(state)) };
        let invalid = || ConvertError::InputMetadata(metadata.clone());
        let entries: BTreeMap<String, String> = serde_json::from_str(metadata).map_err(|_| invalid())?;
        let Some(config) = entries.get(INPUT_CONFIG_KEY) else { return Ok(Loaded::state(state)) };
        let config = STANDARD.decode(config).map_err(|_| invalid())?;
        let image = read_image(&config).map_err(|error| ConvertError::ImageConfig(error.to_string()))?;
        Ok(Loaded { state: with_image_config(&state, &image), image: Some(image), late: None })
    }

    /// Keeps what has to be settled at the end.
    pub(super) fn take_loaded(&mut self, loaded: Loaded) -> (State, Option<Image>) {
        self.local_contexts.extend(loaded.late);
        (loaded.state, loaded.image)
    }

    fn context_platform(&self, context: &NamedContext) -> Platform {
        context.platform.clone().unwrap_or_else(|| self.platforms.build.clone())
    }

    fn context_constraints(&self, context: &NamedContext, name: &str) -> Constraints {
        let constraints = Constraints::new().custom_name(name);
        match &context.platform {
            Some(platform) => constraints.platform(platform.clone()),
            None => constraints,
        }
    }
}

fn read_config(resolved: &ResolvedImage) -> Result<Image, ConvertError> {
    read_image(&resolved.config).map_err(|error| ConvertError::ImageConfig(error.to_string()))
}

/// The state with the variables, working directory and platform of an image config.
fn with_image_config(state: &State, image: &Image) -> State {
    let mut state = state.clone();
    for entry in &image.config.env {
        let (key, value) = split_entry(entry);
        if !key.is_empty() {
            state = state.add_env(key, value);
        }
    }
    if !image.config.working_dir.is_empty() {
        state = state.dir(&image.config.working_dir);
    }
    if !image.architecture.is_empty() && !image.os.is_empty() {
        state = state.platform(image.platform());
    }
    state
}

fn git_context(git: &GitRef, written: &str) -> State {
    let source = GitSource { keep_git_dir: git.keep_git_dir == Some(true), ..git.source() };
    State::git(
        &git.remote,
        source,
        Constraints::new().custom_name(format!("[internal] load git source {written}")),
    )
}
