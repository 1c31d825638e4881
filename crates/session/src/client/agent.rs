//! ssh agents for the daemon: the user's own, reached through its socket, or one started for the keys that were named.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;

use async_trait::async_trait;
use futures::{Stream, StreamExt};
use kiln_proto::moby::sshforward::v1::ssh_server::Ssh;
use kiln_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::agent_filter;
use crate::keys;
use crate::socket;
use crate::tunnel::{QUEUE_MESSAGES, Tunnel};

/// Where an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSource {
    /// An agent's socket, for listing keys and signing only.
    Socket(PathBuf),
    /// A socket of any protocol, passed on as it is.
    Raw(PathBuf),
}

/// One agent under the id that `RUN --mount=type=ssh,id=…` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSpec {
    pub id: String,
    pub source: AgentSource,
}

pub(super) struct Service {
    agents: HashMap<String, AgentSource>,
}

impl Service {
    pub(super) fn new(agents: Vec<AgentSpec>) -> Service {
        Service { agents: agents.into_iter().map(|agent| (agent.id, agent.source)).collect() }
    }

    fn find(&self, id: &str) -> Result<&AgentSource, Status> {
        let id = if id.is_empty() { "default" } else { id };
        self.agents.get(id).ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<BytesMessage, Status>> + Send>>;

#[async_trait]
impl Ssh for Service {
    type ForwardAgentStream = Messages;

    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.find(&request.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Messages>, Status> {
        let id = request.metadata().get(keys::SSH_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        let source = self.find(id)?.clone();
        let (AgentSource::Socket(path) | AgentSource::Raw(path)) = &source;
        let stream = UnixStream::connect(path).await.map_err(|error| {
            Status::unavailable(format!("cannot reach the ssh agent at {}: {error}", path.display()))
        })?;
        let (send, receive) = mpsc::channel(QUEUE_MESSAGES);
        let build = Tunnel::new(request.into_inner(), send);
        tokio::spawn(async move {
            match source {
                AgentSource::Raw(_) => socket::join(stream, build).await,
                AgentSource::Socket(_) => {
                    if let Err(error) = agent_filter::pass(build, stream).await {
                        tracing::debug!(%error, "a forwarded agent broke");
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive).map(Ok))))
    }
}
