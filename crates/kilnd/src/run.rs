//! The daemon from its command line to its end: settle, open, listen, serve, drain.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kiln_exec::userns::{self, Entered};
use kiln_proto::MESSAGE_BYTES_MAX;
use kiln_proto::content::content_server::ContentServer;
use kiln_proto::control::control_server::ControlServer;
use kiln_proto::frontend::llb_bridge_server::LlbBridgeServer;
use kiln_proto::images::images_server::ImagesServer;
use kiln_proto::trace::trace_service_server::TraceServiceServer;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::content::ContentService;
use crate::control::ControlService;
use crate::daemon::{self, Daemon};
use crate::images::ImageService;
use crate::listen::{self, SocketOwner};
use crate::settings::flags::Flags;
use crate::settings::{self, Address, Settings};
use crate::traces::TraceSink;
use crate::{logging, ready, surroundings};

/// How long running builds may take to end once the daemon was told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the daemon ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Settings(#[from] settings::Error),
    #[error("this user cannot run builds: no user namespace could be made")]
    UserNamespace(#[source] kiln_exec::Error),
    #[error(transparent)]
    Daemon(#[from] daemon::Error),
    #[error(transparent)]
    Listen(#[from] listen::Error),
    #[error("the API's server failed")]
    Serve(#[source] tonic::transport::Error),
    #[error("the daemon's threads cannot be started")]
    Runtime(#[source] std::io::Error),
}

/// Runs a daemon to its end. Has to be called before the process has threads.
///
/// # Errors
/// When it cannot start, or its server fails.
pub fn run(flags: Flags) -> Result<(), Error> {
    crate::memory::limit_arenas();
    // Read first: in a user namespace everybody is root.
    let around = surroundings::read();
    let rootless = match userns::enter().map_err(Error::UserNamespace)? {
        Entered::Privileged => None,
        Entered::Rootless(mapping) => Some(mapping),
    };
    let settings = settings::resolve(flags, &around)?;
    logging::start(&settings.log_level, settings.log_json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("kilnd")
        .build()
        .map_err(Error::Runtime)?;
    let done = runtime.block_on(serve(settings, rootless));
    // A blocked thread does not keep the process: what it writes has its final name only once it is whole.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

async fn serve(settings: Settings, rootless: Option<userns::Mapping>) -> Result<(), Error> {
    // Modes of what is created from here on are set explicitly: layers hold files of any mode.
    rustix::process::umask(rustix::fs::Mode::empty());
    let sockets: Vec<std::path::PathBuf> = settings
        .addresses
        .iter()
        .filter_map(|address| match address {
            Address::Unix(path) => Some(path.clone()),
            _ => None,
        })
        .collect();
    let owner = SocketOwner { uid: settings.socket_uid, group: settings.socket_group.clone() };
    let (addresses, tls) = (settings.addresses.clone(), settings.tls.clone());
    let (idle_timeout, ready_fd) = (settings.idle_timeout, settings.ready_fd);
    let daemon = Arc::new(Daemon::new(settings, rootless, surroundings::step_log_limits()).await?);
    let connections = listen::listen(&addresses, &owner, tls.as_ref(), &daemon.activity).await?;
    let policies = daemon.gc_policies();
    if !policies.is_empty() {
        tokio::spawn(daemon.garbage.clone().collect(daemon.store.clone(), policies));
    }
    let control = ControlServer::new(ControlService(daemon.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let gateway = LlbBridgeServer::new(daemon.gateway.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let images = ImagesServer::new(ImageService(daemon.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("", tonic_health::ServingStatus::Serving).await;
    let server = Server::builder()
        .initial_stream_window_size(kiln_proto::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(kiln_proto::CONNECTION_WINDOW_BYTES)
        .max_frame_size(kiln_proto::FRAME_BYTES_MAX)
        .add_service(control)
        .add_service(gateway)
        .add_service(images)
        .add_service(ContentServer::new(ContentService(daemon.clone())))
        .add_service(health)
        .add_service(TraceServiceServer::new(TraceSink));
    tracing::info!(root = %daemon.settings.root.display(), ?addresses, "kilnd answers");
    ready::announce(ready_fd);
    let stop = stop(daemon.clone(), idle_timeout);
    let served = server.serve_with_incoming_shutdown(ReceiverStream::new(connections).boxed(), stop).await;
    ready::notify("STOPPING=1");
    for socket in sockets {
        let _ = std::fs::remove_file(socket);
    }
    let store = daemon.store.clone();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || store.flush()).await {
        tracing::warn!(%error, "the state could not be written out");
    }
    served.map_err(Error::Serve)
}

/// Returns when the daemon should end: a signal (after running builds had a while to end), or no work for long enough.
async fn stop(daemon: Arc<Daemon>, idle_timeout: Option<Duration>) {
    let mut terminate = signal(SignalKind::terminate()).ok();
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    let idle = async {
        match idle_timeout {
            Some(timeout) => daemon.activity.idle_for(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = received(&mut terminate) => tracing::info!("told to stop"),
        _ = received(&mut interrupt) => tracing::info!("interrupted"),
        () = idle => {
            tracing::info!("idle for long enough");
            return;
        }
    }
    let drained = async {
        while daemon.builds.count() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(DRAIN_TIMEOUT, drained) => {}
        _ = received(&mut terminate) => {}
        _ = received(&mut interrupt) => {}
    }
    // Connections that stay open would keep the server: their clients see it go.
    let root = daemon.settings.root.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(2)).await;
        tracing::warn!(root = %root.display(), "clients that stay connected are left");
        std::process::exit(0);
    });
}

async fn received(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
