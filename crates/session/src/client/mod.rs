//! The client's end: a gRPC server inside the tunnel, with the services that this build needs and no others.

mod agent;
mod agent_filter;
mod auth;
mod content;
mod error;
mod exporter;
mod files;
mod secrets;
mod targets;
mod upload;

pub use agent::{AgentSource, AgentSpec};
pub use auth::{CredentialSource, TokenSeed};
pub use content::LayoutStore;
pub use error::Error;
pub use exporter::{ChosenExporter, ExporterChoice};
pub use secrets::{SecretSource, SecretValue};
pub use targets::{OpenFile, Target, TargetFile};
pub use upload::UploadSource;

use std::convert::Infallible;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use kiln_proto::content::content_server::ContentServer;
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::filesync::auth_server::AuthServer;
use kiln_proto::filesync::file_sync_server::FileSyncServer;
use kiln_proto::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use kiln_proto::moby::exporter::v1::exporter_server::ExporterServer;
use kiln_proto::moby::sshforward::v1::ssh_server::SshServer;
use kiln_proto::moby::upload::v1::upload_server::UploadServer;
use kiln_proto::{CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES};
use kiln_spool::Spools;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic::transport::Channel;
use tonic::{Request, Response};

use crate::fsync::LocalDir;
use crate::keys;
use crate::random;
use crate::tunnel::{QUEUE_MESSAGES, Tunnel};

/// Calls that a daemon may have open at once.
const CALLS_MAX: u32 = 64;

/// A session that is not open yet.
pub struct Session {
    id: String,
    shared_key: String,
    gives_handles: bool,
    routes: RoutesBuilder,
    methods: Vec<String>,
}

impl Session {
    /// A session with the health service alone. Sessions with equal keys share on the daemon what their folders sent before.
    ///
    /// # Errors
    /// [`Error::Random`] when this machine has no random numbers to give.
    pub async fn new(shared_key: &str) -> Result<Session, Error> {
        let mut session = Session {
            id: random::name().ok_or(Error::Random)?,
            shared_key: shared_key.to_owned(),
            gives_handles: false,
            routes: RoutesBuilder::default(),
            methods: Vec::new(),
        };
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
        session.add(health, &["Check", "Watch"]);
        Ok(session)
    }

    /// Id of the session, for the build request.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Gives a daemon the handles of files that it would otherwise send, if it shows to run on this machine as this user. For sessions over
    /// a Unix socket: elsewhere the daemon would ask in vain. Such a daemon may open a file before it is known what becomes of it, and
    /// says less about it then: of an image its name, not its digest.
    pub fn give_handles(&mut self) {
        self.gives_handles = true;
    }

    /// Adds a service with the names of its methods.
    pub fn add<S>(&mut self, service: S, methods: &[&str])
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.methods.extend(methods.iter().map(|method| format!("/{}/{method}", S::NAME)));
        self.routes.add_service(service);
    }

    /// Sends directories, by the names that the build gives them. Nothing else of this host can be asked for. Lists of files that are too
    /// long for memory are in `spools`.
    pub fn directories(&mut self, dirs: Vec<(String, LocalDir)>, spools: Spools) {
        let service = FileSyncServer::new(files::Service::new(dirs, spools));
        let service = service.max_decoding_message_size(MESSAGE_BYTES_MAX);
        self.add(service, &["DiffCopy", "TarStream"]);
    }

    /// Takes results, by the number of the exporter that they come from. Lists of files that are too long for memory are in `spools`.
    pub fn targets(&mut self, targets: Vec<(u32, Target)>, spools: Spools) {
        self.add(targets::Service::new(targets, spools), &["DiffCopy"]);
    }

    /// Answers for secrets.
    pub fn secrets(&mut self, source: Arc<dyn SecretSource>) {
        self.add(SecretsServer::new(secrets::Service(source)), &["GetSecret"]);
    }

    /// Answers for credentials.
    pub fn credentials(&mut self, source: Arc<dyn CredentialSource>) {
        let methods: &[&str] = if source.fetches_tokens() {
            &["Credentials", "FetchToken", "GetTokenAuthority", "VerifyTokenAuthority"]
        } else {
            &["Credentials"]
        };
        self.add(AuthServer::new(auth::Service(source)), methods);
    }

    /// Forwards ssh agents.
    pub fn agents(&mut self, agents: Vec<AgentSpec>) {
        self.add(SshServer::new(agent::Service::new(agents)), &["CheckAgent", "ForwardAgent"]);
    }

    /// Sends bodies that were announced.
    pub fn uploads(&mut self, uploads: Arc<UploadSource>) {
        self.add(UploadServer::new(upload::Service(uploads)), &["Pull"]);
    }

    /// Offers folders that are OCI image layouts, by their store ids (`oci:NAME`, `local:FOLDER`).
    pub fn stores(&mut self, stores: Vec<(String, LayoutStore)>) {
        let service = ContentServer::new(content::Service::new(stores))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        self.add(
            service,
            &["Info", "List", "Read", "Status", "ListStatuses", "Write", "Abort", "Update", "Delete"],
        );
    }

    /// Chooses exporters once the result is known.
    pub fn exporters(&mut self, choice: Arc<dyn ExporterChoice>) {
        self.add(ExporterServer::new(exporter::Service(choice)), &["FindExporters", "FinalizeExport"]);
    }

    /// Opens the session with a daemon and answers until the daemon ends it; runs beside the build and is dropped after it.
    ///
    /// # Errors
    /// When the session cannot be opened, or breaks.
    pub async fn serve(self, channel: Channel) -> Result<(), Error> {
        let (send, receive) = mpsc::channel(QUEUE_MESSAGES);
        let mut request = Request::new(ReceiverStream::new(receive));
        self.announce(request.metadata_mut())?;
        let mut control = ControlClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let answer = async move { control.session(request).await.map(Response::into_inner) };
        let tunnel = Tunnel::opening(answer, send);
        // Nothing but this future keeps the connection: dropping it ends the session.
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_concurrent_streams(CALLS_MAX)
            .serve_connection(TokioIo::new(tunnel), TowerToHyperService::new(self.routes.routes().prepare()))
            .await
            .map_err(Error::Serve)
    }

    fn announce(&self, metadata: &mut MetadataMap) -> Result<(), Error> {
        let value =
            |text: &str| text.parse::<AsciiMetadataValue>().map_err(|_| Error::NotAscii(text.to_owned()));
        metadata.insert(keys::SESSION_ID, value(&self.id)?);
        metadata.insert(keys::SESSION_NAME, value("kiln")?);
        metadata.insert(keys::SHARED_KEY, value(&self.shared_key)?);
        if self.gives_handles {
            metadata.insert(keys::HANDLES, AsciiMetadataValue::from_static("1"));
        }
        for method in &self.methods {
            metadata.append(keys::METHOD, value(method)?);
        }
        Ok(())
    }
}
