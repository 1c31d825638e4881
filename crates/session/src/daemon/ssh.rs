//! The client's ssh agents, as sockets on this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kiln_proto::moby::sshforward::v1::CheckAgentRequest;
use kiln_proto::moby::sshforward::v1::ssh_client::SshClient;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::{Caller, Error};
use crate::keys;
use crate::socket;
use crate::tunnel::{QUEUE_MESSAGES, Tunnel};

const CHECK: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const FORWARD: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
/// The agent that is meant when none is named.
pub const DEFAULT_ID: &str = "default";
/// Connections to one forwarded socket at a time.
const CONNECTIONS_MAX: usize = 64;

/// A socket behind which the client's agent answers. It goes when this is dropped, with all its connections.
pub struct ForwardedAgent {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl ForwardedAgent {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ForwardedAgent {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Caller {
    /// Whether the client has this agent.
    ///
    /// # Errors
    /// [`Error::NoAgent`] when not.
    pub async fn check_agent(&self, id: &str) -> Result<(), Error> {
        let id = if id.is_empty() { DEFAULT_ID } else { id };
        let mut client = SshClient::new(self.channel_for(CHECK)?);
        client.check_agent(CheckAgentRequest { id: id.to_owned() }).await?;
        Ok(())
    }

    /// Makes a socket at `path`, of this owner and mode, each connection to which reaches the client's agent.
    ///
    /// # Errors
    /// [`Error::Socket`] when the socket cannot be made.
    pub fn forward_agent(
        &self,
        id: &str,
        path: &Path,
        uid: u32,
        gid: u32,
        mode: u32,
    ) -> Result<ForwardedAgent, Error> {
        self.channel_for(FORWARD)?;
        let listener = UnixListener::bind(path).map_err(Error::Socket)?;
        std::os::unix::fs::chown(path, Some(uid), Some(gid))
            .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
            .map_err(Error::Socket)?;
        let id = if id.is_empty() { DEFAULT_ID } else { id }.to_owned();
        let task = tokio::spawn(serve(self.clone(), id, listener));
        Ok(ForwardedAgent { path: path.to_path_buf(), task })
    }
}

async fn serve(caller: Caller, id: String, listener: UnixListener) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        tokio::select! {
            () = caller.closed() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let (send, receive) = mpsc::channel(QUEUE_MESSAGES);
                let mut request = Request::new(ReceiverStream::new(receive));
                let Ok(value) = id.parse() else { return };
                request.metadata_mut().insert(keys::SSH_ID, value);
                let mut client = SshClient::new(caller.channel());
                let answer = async move { client.forward_agent(request).await.map(tonic::Response::into_inner) };
                connections.spawn(socket::join(stream, Tunnel::opening(answer, send)));
            }
        }
    }
}
