//! Reads the Dockerfile, and the ignore file beside it.

use super::context::internal;
use super::resolver::Service;
use crate::{Bridge, Error, SolveRequest};
use bytes::Bytes;
use kiln_llb::{Graph, LocalDiffer, LocalSource, SourceMap, State};
use kiln_proto::pb;
use std::sync::Arc;

const LANGUAGE: &str = "Dockerfile";
const IGNORE_SUFFIX: &str = ".dockerignore";

/// The Dockerfile.
pub(super) struct Definition {
    /// As a source that steps point into.
    pub(super) source_map: Arc<SourceMap>,
    /// Digest of the vertex that it was read from; warnings are shown there.
    pub(super) vertex: String,
}

impl Definition {
    pub(super) fn text(&self) -> &[u8] {
        &self.source_map.data
    }

    pub(super) fn source_info(&self) -> pb::SourceInfo {
        pb::SourceInfo::from(&*self.source_map)
    }
}

/// An ignore file with the name it goes by in errors.
#[derive(Clone, Debug)]
pub(super) struct IgnoreFile {
    pub(super) name: String,
    pub(super) text: Bytes,
}

impl<B: Bridge> Service<'_, B> {
    /// Reads the Dockerfile.
    pub(super) async fn read_definition(&self) -> Result<Definition, Error> {
        let context = self.context().await?;
        let filename = &context.filename;
        let state = match &context.dockerfile {
            Some(state) => state.clone(),
            None => self.local_definition(&context.dockerfile_local, filename),
        };
        let graph = self.marshal(&state)?;
        let vertex = head(&graph)?;
        let request = SolveRequest { definition: Some(graph.clone()), ..SolveRequest::default() };
        let reference = self
            .solve_single(request)
            .await
            .map_err(|error| error.context("failed to resolve dockerfile"))?;
        let reference = reference.ok_or_else(|| Error::unknown("failed to read dockerfile: no result"))?;
        let data = match self.bridge.read_file(&reference, filename, None).await {
            Ok(data) => Ok(data),
            Err(error) => match lower_case(filename) {
                Some(lower) => self.bridge.read_file(&reference, &lower, None).await.map_err(|_| error),
                None => Err(error),
            },
        };
        let data = data.map_err(|error| error.context("failed to read dockerfile"))?;
        let ignore = format!("{filename}{IGNORE_SUFFIX}");
        if let Ok(text) = self.bridge.read_file(&reference, &ignore, None).await {
            // The first one counts; the Dockerfile is read once.
            let _ = self.ignore_file.set(Some(IgnoreFile { name: ignore, text }));
        }
        let source_map = SourceMap {
            filename: filename.clone(),
            language: LANGUAGE.to_owned(),
            data,
            definition: Some(graph),
        };
        Ok(Definition { source_map: Arc::new(source_map), vertex })
    }

    fn local_definition(&self, local: &str, filename: &str) -> State {
        let mut paths = vec![filename.to_owned(), format!("{filename}{IGNORE_SUFFIX}")];
        paths.extend(lower_case(filename));
        let source = LocalSource {
            session_id: Some(self.session_of(local)),
            follow_paths: paths,
            shared_key_hint: local.to_owned(),
            differ: Some((LocalDiffer::None, false)),
            ..LocalSource::default()
        };
        State::local(local, source, internal(&format!("load build definition from {filename}")))
    }

    /// The patterns of the context's ignore file.
    pub(super) async fn ignore_patterns(&self) -> Result<Vec<String>, Error> {
        let file = self.ignore_file.get_or_try_init(|| self.read_ignore_file()).await?;
        let Some(IgnoreFile { name, text }) = file else { return Ok(Vec::new()) };
        kiln_dockerfile::parse_ignore(text)
            .map_err(|error| Error::of(&error).context(format!("failed parsing {name}")))
    }

    async fn read_ignore_file(&self) -> Result<Option<IgnoreFile>, Error> {
        let local = super::context::CONTEXT;
        let source = LocalSource {
            session_id: Some(self.session_of(local)),
            follow_paths: vec![IGNORE_SUFFIX.to_owned()],
            shared_key_hint: format!("{local}-{IGNORE_SUFFIX}"),
            differ: Some((LocalDiffer::None, false)),
            ..LocalSource::default()
        };
        let state = State::local(local, source, internal(&format!("load {IGNORE_SUFFIX}")));
        let request = SolveRequest { definition: Some(self.marshal(&state)?), ..SolveRequest::default() };
        let Some(reference) = self.solve_single(request).await? else { return Ok(None) };
        // A context that cannot be had is an error where it is used.
        let text = self.bridge.read_file(&reference, IGNORE_SUFFIX, None).await.ok();
        Ok(text.map(|text| IgnoreFile { name: IGNORE_SUFFIX.to_owned(), text }))
    }
}

/// The other spelling that a file called `Dockerfile` may have.
fn lower_case(filename: &str) -> Option<String> {
    match filename.rsplit_once('/') {
        None => (filename == "Dockerfile").then(|| "dockerfile".to_owned()),
        Some((folder, "Dockerfile")) => Some(format!("{folder}/dockerfile")),
        Some(_) => None,
    }
}

/// The digest of the vertex whose result a graph is.
fn head(graph: &pb::Definition) -> Result<String, Error> {
    if graph.def.is_empty() {
        return Ok(String::new());
    }
    Ok(Graph::load(graph)?.result().vertex.to_string())
}
