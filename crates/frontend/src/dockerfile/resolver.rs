//! Answers what the conversion asks, by way of the bridge.

use super::context::{CONTEXT, Context};
use super::definition::IgnoreFile;
use crate::{Bridge, Error, FrontendRequest, MetaRequest, Refs, Solution, SolveRequest};
use async_trait::async_trait;
use kiln_dockerfile::{
    FrontendOptions, ImageAnswer, ImageConfigRequest, ImageStore, MainContext, ResolveError, ResolvedImage,
    Resolver,
};
use kiln_llb::{MarshalOptions, State};
use kiln_oci::{Digest, Platform, Timestamp};
use kiln_proto::pb;
use kiln_session::patterns::PatternMatcher;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

const IMAGE_SCHEME: &str = "docker-image://";
const OCI_LAYOUT_SCHEME: &str = "oci-layout://";

type Slot<T> = Arc<OnceCell<T>>;

/// One run of the frontend.
pub(super) struct Service<'a, B: Bridge> {
    pub(super) bridge: &'a B,
    pub(super) request: &'a FrontendRequest,
    build_platform: Platform,
    local_session_ids: BTreeMap<String, String>,
    context: OnceCell<Context>,
    pub(super) ignore_file: OnceCell<Option<IgnoreFile>>,
    images: Mutex<HashMap<String, Slot<Result<ImageFound, Error>>>>,
}

/// An image, or what a source policy put in its place.
#[derive(Clone)]
enum ImageFound {
    Image(ResolvedImage),
    Other { identifier: String, error: Error },
}

impl<'a, B: Bridge> Service<'a, B> {
    pub(super) fn new(bridge: &'a B, request: &'a FrontendRequest, options: &FrontendOptions) -> Self {
        let build_platform = options.convert.build_platforms.first().cloned();
        Service {
            bridge,
            request,
            build_platform: build_platform.unwrap_or_else(kiln_oci::platform::default_for_host),
            local_session_ids: options.convert.local_session_ids.clone(),
            context: OnceCell::new(),
            ignore_file: OnceCell::new(),
            images: Mutex::default(),
        }
    }

    /// The main context, found once.
    pub(super) async fn context(&self) -> Result<&Context, Error> {
        self.context.get_or_try_init(|| self.find_context()).await
    }

    /// The session that a local directory comes from.
    pub(super) fn session_of(&self, local: &str) -> String {
        self.local_session_ids.get(local).unwrap_or(&self.request.session_id).clone()
    }

    /// A state as a graph.
    pub(super) fn marshal(&self, state: &State) -> Result<pb::Definition, Error> {
        Ok(state.marshal(&MarshalOptions::new(self.build_platform.clone(), &self.request.build_id))?)
    }

    /// Has a graph solved, which has a single result.
    pub(super) async fn solve_single(&self, request: SolveRequest) -> Result<Option<B::Ref>, Error> {
        single(self.bridge.solve(request).await?)
    }

    async fn find_image(&self, request: &ImageConfigRequest) -> Result<ImageFound, Error> {
        let reference = &request.reference;
        let mut attrs = BTreeMap::new();
        let (scheme, resolve_mode, oci_store) = match &request.store {
            ImageStore::Registry(mode) => (IMAGE_SCHEME, mode.as_str().to_owned(), None),
            ImageStore::OciLayout { session_id, store_id } => {
                let set = [
                    (kiln_llb::attrs::OCI_SESSION_ID, session_id),
                    (kiln_llb::attrs::OCI_STORE_ID, store_id),
                ];
                let set = set.into_iter().filter(|(_, value)| !value.is_empty());
                attrs.extend(set.map(|(key, value)| (key.to_owned(), value.clone())));
                (OCI_LAYOUT_SCHEME, String::new(), Some((session_id.clone(), store_id.clone())))
            }
        };
        let source = pb::SourceOp { identifier: format!("{scheme}{reference}"), attrs };
        let meta = MetaRequest {
            platform: Some(request.platform.clone()),
            log_name: request.log_name.clone(),
            resolve_mode,
            oci_store,
            ..MetaRequest::default()
        };
        let found = self.bridge.resolve_source_meta(source, meta).await;
        let found = found
            .map_err(|error| error.context(format!("failed to resolve source metadata for {reference}")))?;
        let identifier = found.source.identifier;
        let Some(image) = found.image else {
            let text =
                format!("ref mutated by policy to non-image: {IMAGE_SCHEME}{reference} -> {identifier}");
            return Ok(ImageFound::Other { identifier, error: Error::unknown(text) });
        };
        let reference = identifier.strip_prefix(IMAGE_SCHEME).unwrap_or(&identifier);
        let reference = reference.strip_prefix(OCI_LAYOUT_SCHEME).unwrap_or(reference).to_owned();
        Ok(ImageFound::Image(ResolvedImage {
            reference,
            digest: Digest::parse(&image.digest).ok(),
            config: image.config.to_vec(),
        }))
    }
}

/// The result of a graph.
pub(super) fn single<R>(solution: Solution<R>) -> Result<Option<R>, Error> {
    match solution.refs {
        Refs::Single(reference) => Ok(reference),
        Refs::Map(_) => Err(Error::unknown("failed to get single ref: result has multiple refs")),
    }
}

#[async_trait]
impl<B: Bridge> Resolver for Service<'_, B> {
    async fn image_config(&self, request: ImageConfigRequest) -> Result<ImageAnswer, ResolveError> {
        // The display name does not make another image of it.
        let key = format!("{:?} {:?} {}", request.store, request.platform, request.reference);
        let slot = {
            let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
            images.entry(key).or_default().clone()
        };
        match slot.get_or_init(|| self.find_image(&request)).await.clone()? {
            ImageFound::Image(image) => Ok(ImageAnswer::Image(image)),
            ImageFound::Other { identifier, error } => {
                Ok(ImageAnswer::OtherSource { identifier, error: error.into() })
            }
        }
    }

    async fn main_context(&self) -> Result<MainContext, ResolveError> {
        if let Some(state) = &self.context().await?.state {
            return Ok(MainContext::State(state.clone()));
        }
        let ignore = self.ignore_patterns().await;
        let ignore = ignore.map_err(|error| error.context("failed to read dockerignore patterns"))?;
        Ok(MainContext::Local { name: CONTEXT.to_owned(), session_id: self.session_of(CONTEXT), ignore })
    }

    fn is_ignored(&self, patterns: &[String], path: &str) -> bool {
        PatternMatcher::new(patterns).is_ok_and(|matcher| matcher.matches_or_parent_matches(path))
    }

    async fn read_file(&self, state: &State, path: &str) -> Result<Option<Vec<u8>>, ResolveError> {
        // Solved first: only a missing file is no error.
        let definition = Some(self.marshal(state)?);
        let request = SolveRequest { definition, evaluate: true, ..SolveRequest::default() };
        let Some(reference) = self.solve_single(request).await? else { return Ok(None) };
        match self.bridge.read_file(&reference, path, None).await {
            Ok(data) => Ok(Some(data.to_vec())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn input(&self, name: &str) -> Result<Option<State>, ResolveError> {
        Ok(Service::input(self, name)?)
    }

    async fn source_time(
        &self,
        identifier: &str,
        attrs: &BTreeMap<String, String>,
        log_name: &str,
    ) -> Result<Option<Timestamp>, ResolveError> {
        Ok(self.time_of_source(identifier, attrs, log_name).await?)
    }
}
