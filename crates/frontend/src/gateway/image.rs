//! The frontend `gateway.v0`: a frontend that is the program of an image. It runs in a container and speaks
//! gRPC over its standard input and output.

use super::forwarder::Forwarder;
use super::registry::Gateway;
use super::stdio::Stdio;
use crate::{
    Bridge, Container, ContainerMount, ContainerRequest, Detail, Error, FrontendRequest, MetaRequest,
    ProcessIo, ProcessRequest, Refs, Solution, SolveRequest, WorkerInfo,
};
use kiln_llb::{Constraints, FileActions, ImageSource, MarshalOptions, MkfileInfo, State};
use kiln_oci::{Digest, Image, Platform, Reference, gojson};
use kiln_proto::frontend::llb_bridge_server::LlbBridgeServer;
use kiln_proto::prost::Message;
use kiln_proto::{CONNECTION_WINDOW_BYTES, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES, errdefs, pb};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tonic::Code;
use tonic::transport::Server;

/// The frontend's name in requests.
pub const NAME: &str = "gateway.v0";

const IMAGE_SCHEME: &str = "docker-image://";
/// Marks the image's layers in the list of what takes space.
const RECORD_TYPE: &str = "frontend";
const CAPS: &str = "frontend.caps";
const INPUTS_CAP: &str = "moby.buildkit.frontend.inputs";
/// Where a frontend finds the graph that its own image came from.
const METADATA_DIR: &str = "/run/config/buildkit/metadata";
const METADATA_FILE: &str = "/frontend.bin";
const LABEL_CAPS: &str = "moby.buildkit.frontend.caps";
const LABEL_NO_NETWORK: &str = "moby.buildkit.frontend.network.none";

/// Which images may be frontends.
#[derive(Clone, Debug, Default)]
pub struct AllowedImages(BTreeSet<String>);

impl AllowedImages {
    /// Only images of these repositories; none: all images.
    pub fn new<'a>(repositories: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let name = |text: &str| Reference::parse(text).map(|reference| reference.name());
        let names = repositories.into_iter().map(name).collect::<Result<_, _>>();
        Ok(AllowedImages(names.map_err(|error| Error::of(&error))?))
    }

    fn check(&self, source: &str, reference: &Reference) -> Result<(), Error> {
        if self.0.is_empty() || self.0.contains(&reference.name()) {
            return Ok(());
        }
        Err(Error::unknown(format!("'{source}' is not an allowed gateway source")))
    }
}

/// A frontend's image that was found.
struct Found {
    state: State,
    image: Image,
}

/// Runs the frontend whose image the option `source` names.
pub async fn run<B: Bridge>(
    bridge: &Arc<B>,
    request: &FrontendRequest,
    allowed: &AllowedImages,
) -> Result<Solution<B::Ref>, Error> {
    if request.opts.contains_key("gateway-devel") {
        return Err(Error::unknown("development gateway is no longer supported"));
    }
    let source = request.opts.get("source");
    let source = source.ok_or_else(|| Error::unknown("no source specified for gateway"))?;
    let reference = Reference::parse(source).map_err(|error| Error::of(&error))?;
    allowed.check(source, &reference)?;
    let found = find(&**bridge, reference.with_default_tag()).await?;
    check_caps(request, &found.image)?;

    let platform = build_platform(&**bridge);
    let root = promise(&**bridge, &found.state, &platform, request).await?;
    let graph = bridge.definition(&root).encode_to_vec();
    let file = FileActions::new().mkfile(METADATA_FILE, 0o400, graph, MkfileInfo::default());
    let metadata =
        State::scratch().file(file, Constraints::new().custom_name("[internal] frontend metadata"))?;
    let metadata = promise(&**bridge, &metadata, &platform, request).await?;

    let no_network = found.image.config.labels.get(LABEL_NO_NETWORK);
    let no_network = no_network.and_then(|word| kiln_dockerfile::values::parse_bool(word)) == Some(true);
    let mount = |dest: &str, readonly, reference| ContainerMount {
        mount: pb::Mount { dest: dest.to_owned(), readonly, ..Default::default() },
        reference: Some(reference),
    };
    let container = bridge.new_container(ContainerRequest {
        id: format!("frontend of {}", request.build_id),
        mounts: vec![mount("/", false, root), mount(METADATA_DIR, true, metadata)],
        network: if no_network { pb::NetMode::None } else { pb::NetMode::Unset },
        platform: Some(platform),
        extra_hosts: Vec::new(),
        hostname: String::new(),
    });
    let container = container.await?;
    let forwarder = Forwarder::new(bridge.clone(), request.inputs.clone());
    let process = process(&found.image, request, &bridge.workers())?;
    let ended = serve(&*container, process, &forwarder).await;
    let released = container.release().await;
    // What the frontend said comes before how it ended: first its error, then how it ended, then its result.
    let answer = match (ended, forwarder.take_answer()) {
        (_, Err(error)) if forwarder.is_answered() => Err(error),
        (Err(error), _) => Err(error),
        (Ok(()), answer) => answer,
    };
    forwarder.close().await;
    if let Err(error) = released {
        tracing::warn!(%error, "releasing a frontend's container failed");
    }
    answer
}

fn build_platform<B: Bridge>(bridge: &B) -> Platform {
    let first = bridge.workers().into_iter().next().and_then(|worker| worker.platforms.into_iter().next());
    first.unwrap_or_else(kiln_oci::platform::default_for_host)
}

async fn find<B: Bridge>(bridge: &B, reference: Reference) -> Result<Found, Error> {
    let source = pb::SourceOp { identifier: format!("{IMAGE_SCHEME}{reference}"), attrs: BTreeMap::new() };
    let meta = bridge.resolve_source_meta(source, MetaRequest::default()).await;
    let meta =
        meta.map_err(|error| error.context(format!("failed to resolve source metadata for {reference}")))?;
    let identifier = meta.source.identifier;
    let Some(image) = meta.image else {
        let text = format!("ref mutated by policy to non-image: {IMAGE_SCHEME}{reference} -> {identifier}");
        return Err(Error::unknown(text));
    };
    let name = identifier.strip_prefix(IMAGE_SCHEME).unwrap_or(&identifier);
    let mut reference = Reference::parse_for_fetch(name).map_err(|error| Error::of(&error))?;
    if let Ok(digest) = Digest::parse(&image.digest) {
        reference = reference.with_digest(digest);
    }
    let source = ImageSource { record_type: RECORD_TYPE.to_owned(), ..ImageSource::default() };
    let state = State::image(&reference.to_string(), source, Constraints::new())?;
    let image = serde_json::from_slice(&image.config).map_err(|error| Error::of(&error))?;
    Ok(Found { state, image })
}

/// The names in a list of capabilities, without what is behind `+`.
fn caps(list: &str) -> BTreeSet<&str> {
    let name = |cap: &'_ str| cap.split('+').next().unwrap_or_default().len();
    list.split(',').map(|cap| &cap[..name(cap)]).filter(|cap| !cap.is_empty()).collect()
}

/// Refuses a frontend that does not say that it can what the client needs.
fn check_caps(request: &FrontendRequest, image: &Image) -> Result<(), Error> {
    let has = caps(image.config.labels.get(LABEL_CAPS).map(String::as_str).unwrap_or_default());
    let mut needs = caps(request.opts.get(CAPS).map(String::as_str).unwrap_or_default());
    if !request.inputs.is_empty() {
        needs.insert(INPUTS_CAP);
    }
    let Some(missing) = needs.difference(&has).next() else { return Ok(()) };
    let detail = Detail::FrontendCap(errdefs::FrontendCap { name: (*missing).to_owned() });
    Err(Error::new(Code::Unimplemented, format!("unsupported frontend capability {missing}")).with(detail))
}

/// A state as the promise of a result.
async fn promise<B: Bridge>(
    bridge: &B,
    state: &State,
    platform: &Platform,
    request: &FrontendRequest,
) -> Result<B::Ref, Error> {
    let definition = state.marshal(&MarshalOptions::new(platform.clone(), &request.build_id))?;
    let solution =
        bridge.solve(SolveRequest { definition: Some(definition), ..SolveRequest::default() }).await?;
    match solution.refs {
        Refs::Single(Some(reference)) => Ok(reference),
        _ => Err(Error::unknown("gateway source didn't return default result")),
    }
}

/// A worker as frontends find it in their environment.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkerJson<'a> {
    id: &'a str,
    labels: &'a BTreeMap<String, String>,
    platforms: &'a [Platform],
    gc_policy: Option<()>,
    buildkit_version: VersionJson,
    cdi_devices: Option<()>,
}

#[derive(Serialize)]
struct VersionJson {
    package: &'static str,
    version: &'static str,
    revision: &'static str,
}

fn process(
    image: &Image,
    request: &FrontendRequest,
    workers: &[WorkerInfo],
) -> Result<ProcessRequest, Error> {
    let config = &image.config;
    let mut env = config.env.clone();
    let opts = request.opts.iter().enumerate();
    env.extend(opts.map(|(index, (key, value))| format!("BUILDKIT_FRONTEND_OPT_{index}={key}={value}")));
    env.push(format!("BUILDKIT_SESSION_ID={}", request.session_id));
    let worker = |worker: &'_ WorkerInfo| -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(WorkerJson {
            id: &worker.id,
            labels: &worker.labels,
            platforms: &worker.platforms,
            gc_policy: None,
            buildkit_version: VersionJson { package: "", version: "", revision: "" },
            cdi_devices: None,
        })
    };
    let workers = workers.iter().map(worker).collect::<Result<Vec<_>, _>>();
    let workers = workers.and_then(|workers| gojson::to_vec(&workers)).map_err(|error| Error::of(&error))?;
    env.push(format!("BUILDKIT_WORKERS={}", String::from_utf8_lossy(&workers)));
    env.push("BUILDKIT_EXPORTEDPRODUCT=".to_owned());
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    Ok(ProcessRequest {
        args: if config.entrypoint.is_empty() { vec!["/run".to_owned()] } else { config.entrypoint.clone() },
        env,
        user: String::new(),
        cwd: or(&config.working_dir, "/"),
        remove_mount_stubs_recursive: true,
        ..ProcessRequest::default()
    })
}

/// Serves the frontend until it ends.
async fn serve<B: Bridge>(
    container: &dyn Container,
    request: ProcessRequest,
    forwarder: &Arc<Forwarder<B>>,
) -> Result<(), Error> {
    let (ours, io) = Stdio::pair();
    let io = ProcessIo { stdin: Some(io.stdin), stdout: Some(io.stdout), stderr: None };
    let process = container.start(request, io).await?;
    let bridge = LlbBridgeServer::new(Gateway::of(forwarder.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    // Go's gRPC clients ask for the service's health by the empty name.
    let (_, health) = tonic_health::server::health_reporter();
    let connection = tokio_stream::iter([Ok::<_, std::io::Error>(ours)]);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(bridge)
        .add_service(health)
        .serve_with_incoming(connection);
    let mut server = std::pin::pin!(server);
    let mut wait = std::pin::pin!(process.wait());
    let end = tokio::select! {
        end = &mut wait => end?,
        served = &mut server => {
            if let Err(error) = served {
                tracing::debug!(%error, "a frontend's connection broke");
            }
            // It has closed its end, so it is about to go.
            wait.await?
        }
    };
    match (end.code, end.error) {
        (0, None) => Ok(()),
        (_, Some(error)) => Err(Error::unknown(error)),
        (code, None) => Err(Error::unknown(format!("exit code: {code}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_images_run() {
        let check = |allowed: &AllowedImages, source: &str| {
            allowed
                .check(source, &Reference::parse(source).expect("reference"))
                .map_err(|error| error.to_string())
        };
        assert_eq!(check(&AllowedImages::default(), "any/thing"), Ok(()));
        let allowed = AllowedImages::new(["docker/dockerfile", "r.example.com/x:tag"]).expect("names");
        assert_eq!(check(&allowed, "docker.io/docker/dockerfile:1"), Ok(()));
        assert_eq!(check(&allowed, "r.example.com/x"), Ok(()));
        assert_eq!(check(&allowed, "other"), Err("'other' is not an allowed gateway source".into()));
    }

    #[test]
    fn capabilities_are_compared_by_name() {
        let mut image = Image::default();
        image.config.labels.insert(LABEL_CAPS.into(), "a,b".into());
        let mut request = FrontendRequest::default();
        request.opts.insert(CAPS.into(), "a+forward,b".into());
        assert!(check_caps(&request, &image).is_ok());
        request.inputs.insert("context".into(), pb::Definition::default());
        let error = check_caps(&request, &image).expect_err("inputs");
        assert_eq!(error.to_string(), "unsupported frontend capability moby.buildkit.frontend.inputs");
    }
}
