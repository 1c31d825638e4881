//! The embedded builder: this user's own daemon, started when it is needed.
//!
//! What holds:
//! * Two builds that find no daemon start one between them: the one with the lock starts, the other finds it running.
//! * A socket that nobody answers at (a crash, a kill) is replaced by a new daemon's.
//! * A daemon of another version is replaced when no build runs on it; else the error says so.
//! * In the usual case, a warm daemon of this version, there is one connect and one small file to read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use kiln_client::{Address, Client, Error as ClientError};
use kiln_proto::control::BuildHistoryRequest;
use kiln_proto::control::control_client::ControlClient;
use tokio::net::UnixStream;

use super::paths::Paths;
use super::{Builder, EMBEDDED, lock, spawn};
use crate::error::{Context as _, Error, Result};
use crate::settings::Settings;

/// Version that both programs say.
const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));
/// An asked daemon has this long to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_POLL: Duration = Duration::from_millis(10);

/// Connects to the daemon, starting or replacing it where necessary.
pub async fn connect(settings: &Settings) -> Result<Builder> {
    let paths = Paths::prepare(settings)?;
    if let Some(client) = answering(&paths).await?
        && version_matches(&paths, &client).await?
    {
        return Ok(builder(&paths, client));
    }
    let _starting = lock::take(&paths.lock).await?;
    // Somebody may have started it while this process waited.
    if let Some(client) = answering(&paths).await? {
        if version_matches(&paths, &client).await? {
            return Ok(builder(&paths, client));
        }
        replace(&paths, &client).await?;
    }
    spawn::start(settings, &paths).await?;
    let client = answering(&paths).await?.ok_or_else(|| {
        Error::environment("the daemon ended right after it was started")
            .hint(format!("its log is {}", paths.log.display()))
    })?;
    let found = daemon_version(&client).await?;
    remember_version(&paths, &found);
    if found != VERSION {
        return Err(Error::environment(format!("kiln is {VERSION}, but the kilnd that it found is {found}"))
            .hint("install both programs of one version side by side, or name the right one in KILN_KILND"));
    }
    Ok(builder(&paths, client))
}

/// The embedded daemon as it is now.
#[derive(Debug)]
pub struct Running {
    /// Where it answers, or would.
    pub address: Address,
    /// The connection, where it runs.
    pub client: Option<Client>,
}

/// Looks whether the daemon runs, without starting it.
pub async fn running(settings: &Settings) -> Result<Running> {
    let paths = Paths::prepare(settings)?;
    let client = answering(&paths).await?;
    Ok(Running { address: Address::Unix(paths.socket), client })
}

fn builder(paths: &Paths, client: Client) -> Builder {
    Builder {
        name: EMBEDDED.to_owned(),
        driver: EMBEDDED,
        address: Address::Unix(paths.socket.clone()),
        client,
    }
}

/// A connection where a daemon listens; nothing where the socket is not there or nobody is behind it.
async fn answering(paths: &Paths) -> Result<Option<Client>> {
    check_socket(&paths.socket)?;
    match Client::dial(&Address::Unix(paths.socket.clone()), None).await {
        Ok(client) => Ok(Some(client)),
        Err(ClientError::Connect { .. }) => Ok(None),
        Err(error) => Err(Error::environment("the daemon does not answer").because(error)),
    }
}

/// The folder is private already; this keeps a mistaken file there from being used.
fn check_socket(path: &Path) -> Result<()> {
    let uid = rustix::process::geteuid().as_raw();
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.uid() != uid => {
            Err(Error::environment(format!("the socket `{}` belongs to another user", path.display())))
        }
        _ => Ok(()),
    }
}

/// The file that whoever started the daemon left tells the version without a round trip.
async fn version_matches(paths: &Paths, client: &Client) -> Result<bool> {
    if let Ok(found) = std::fs::read_to_string(&paths.version)
        && let Some((version, inode)) = found.split_once(' ')
        && socket_inode(paths).is_some_and(|current| current == inode)
    {
        return Ok(version == VERSION);
    }
    let found = daemon_version(client).await?;
    remember_version(paths, &found);
    Ok(found == VERSION)
}

/// Names the daemon that made the socket: every start makes a new one.
fn socket_inode(paths: &Paths) -> Option<String> {
    let found = std::fs::symlink_metadata(&paths.socket).ok()?;
    Some(format!("{}:{}.{}", found.ino(), found.ctime(), found.ctime_nsec()))
}

fn remember_version(paths: &Paths, version: &str) {
    if let Some(inode) = socket_inode(paths) {
        // Only saves a round trip; without it the daemon is asked.
        let _ = std::fs::write(&paths.version, format!("{version} {inode}"));
    }
}

async fn daemon_version(client: &Client) -> Result<String> {
    let info = client
        .info()
        .await
        .map_err(|error| Error::environment("the daemon does not answer").because(error))?;
    Ok(info.map_or_else(|| "older".to_owned(), |version| version.version))
}

/// Ends a daemon of another version, if it is idle.
async fn replace(paths: &Paths, client: &Client) -> Result<()> {
    let found = daemon_version(client).await?;
    let busy = || {
        Error::environment(format!("a kilnd {found} is running for you, and this kiln is {VERSION}"))
            .hint("wait until its builds have ended, or stop it, and try again")
    };
    if has_builds(client).await {
        return Err(busy());
    }
    let stream = UnixStream::connect(&paths.socket).await.when("talk to the daemon")?;
    let pid = stream.peer_cred().when("find the daemon's process")?.pid().ok_or_else(busy)?;
    drop(stream);
    let pid = rustix::process::Pid::from_raw(pid).ok_or_else(busy)?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        .when("stop the daemon of another version")?;
    let since = Instant::now();
    while since.elapsed() < STOP_TIMEOUT {
        if rustix::process::test_kill_process(pid).is_err() {
            return Ok(());
        }
        tokio::time::sleep(STOP_POLL).await;
    }
    Err(busy())
}

/// Whether a build runs; a daemon that cannot tell counts as busy.
async fn has_builds(client: &Client) -> bool {
    let mut control = ControlClient::new(client.channel());
    let request =
        BuildHistoryRequest { active_only: true, early_exit: true, ..BuildHistoryRequest::default() };
    let Ok(answer) = control.listen_build_history(request).await else { return true };
    let mut events = answer.into_inner();
    loop {
        match events.message().await {
            Ok(Some(event)) if event.record.as_ref().is_some_and(|record| record.completed_at.is_none()) => {
                return true;
            }
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}
