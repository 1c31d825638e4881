//! A client of BuildKit's Control API, for `kilnd` and for an original `buildkitd` alike.
//!
//! [`Client::dial`] reaches a daemon at an [`Address`]; its calls take and give the wire's messages, streams as they come. Typed
//! errors that daemons attach to a failed build come out of [`details`]. There is no display here, no flag and no environment.
//! What a build asks its client for (files, secrets, credentials) is the session's, in `kiln-session`: it runs over
//! [`Client::channel`].
#![forbid(unsafe_code)]

mod address;
mod connect;
pub mod details;
mod error;
mod history;

pub use address::{Address, ParseError};
pub use connect::TlsOptions;
pub use error::Error;

use std::time::Duration;

use kiln_proto::MESSAGE_BYTES_MAX;
use kiln_proto::control::control_client::ControlClient;
use kiln_proto::control::{
    DiskUsageRequest, InfoRequest, ListWorkersRequest, PruneRequest, SolveRequest, SolveResponse,
    StatusRequest, StatusResponse, UsageRecord,
};
use kiln_proto::types::{BuildkitVersion, WorkerRecord};
use tonic::transport::Channel;
use tonic::{Request, Streaming};

/// How long a daemon may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Metadata key that routes calls of the gateway service to a running build.
pub const BUILD_ID_KEY: &str = "buildkit-controlapi-buildid";

/// A connection to one daemon. Clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    over_socket: bool,
}

impl Client {
    /// Connects to a daemon.
    ///
    /// # Errors
    /// [`Error::Connect`] when nobody answers there, [`Error::Tls`] when the certificates cannot be used.
    pub async fn dial(address: &Address, tls: Option<&TlsOptions>) -> Result<Client, Error> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connect::channel(address, tls)).await;
        let channel = connected.map_err(|_| Error::TimedOut { address: address.to_string() })??;
        Ok(Client { channel, over_socket: matches!(address, Address::Unix(_)) })
    }

    /// Uses a connection made elsewhere.
    pub fn over(channel: Channel) -> Client {
        Client { channel, over_socket: false }
    }

    /// Whether it goes over a Unix socket, as to daemons on the same machine.
    pub fn is_over_socket(&self) -> bool {
        self.over_socket
    }

    /// The connection itself, for services that this type has no call for.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Builds, and returns when the build has ended.
    ///
    /// # Errors
    /// The daemon's; [`details::Details::of`] reads what it attached.
    pub async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Error> {
        Ok(self.control().solve(request).await?.into_inner())
    }

    /// The progress of a build, from its start to its end. May be asked for before the build has been.
    pub async fn status(&self, build: &str) -> Result<Streaming<StatusResponse>, Error> {
        Ok(self.control().status(StatusRequest { r#ref: build.to_owned() }).await?.into_inner())
    }

    /// What the daemon is. Daemons older than this call give `None`.
    pub async fn info(&self) -> Result<Option<BuildkitVersion>, Error> {
        match self.control().info(InfoRequest {}).await {
            Ok(info) => Ok(info.into_inner().buildkit_version),
            Err(status) if status.code() == tonic::Code::Unimplemented => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// The workers, the default one first.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, Error> {
        Ok(self.control().list_workers(ListWorkersRequest { filter: Vec::new() }).await?.into_inner().record)
    }

    /// What takes room in the cache.
    pub async fn disk_usage(&self, request: DiskUsageRequest) -> Result<Vec<UsageRecord>, Error> {
        Ok(self.control().disk_usage(request).await?.into_inner().record)
    }

    /// Removes cache records; each comes as it goes.
    pub async fn prune(&self, request: PruneRequest) -> Result<Streaming<UsageRecord>, Error> {
        Ok(self.control().prune(request).await?.into_inner())
    }

    /// A request that the daemon hands to the gateway of a running build.
    pub fn for_build<T>(message: T, build: &str) -> Result<Request<T>, Error> {
        let mut request = Request::new(message);
        let id = build.parse().map_err(|_| Error::BuildId(build.to_owned()))?;
        request.metadata_mut().insert(BUILD_ID_KEY, id);
        Ok(request)
    }
}
