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

use crate::keys;
use crate::socket;
use crate::tunnel::{QUEUE_MESSAGES, Tunnel};

/// Where an agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSource {
    /// A socket that speaks the agent's protocol, or any other protocol that is passed on as it is.
    Socket(PathBuf),
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
        let AgentSource::Socket(path) = self.find(id)?;
        let stream = UnixStream::connect(path).await.map_err(|error| {
            Status::unavailable(format!("cannot reach the ssh agent at {}: {error}", path.display()))
        })?;
        let (send, receive) = mpsc::channel(QUEUE_MESSAGES);
        tokio::spawn(socket::join(stream, Tunnel::new(request.into_inner(), send)));
        Ok(Response::new(Box::pin(ReceiverStream::new(receive).map(Ok))))
    }
}
