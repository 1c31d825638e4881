//! Starts the embedded daemon and waits until it is ready.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt as _;

use super::paths::Paths;
use crate::error::{Context as _, Error, Result};
use crate::settings::Settings;

/// What the daemon writes to the pipe when its socket accepts connections.
const READY: &[u8] = b"ready\n";
/// A daemon that is not ready by then never will be; mending a large store after a crash takes seconds at most.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A daemon that closed the pipe has this long to end, so that the error can say how it did.
const END_POLL: Duration = Duration::from_millis(5);
const END_POLLS: usize = 200;
/// A log longer than this is put aside when the next daemon starts.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// How much of the log explains a failed start.
const LOG_TAIL_BYTES: u64 = 4 << 10;

/// Starts a daemon; it has accepted its socket when this returns.
pub async fn start(settings: &Settings, paths: &Paths) -> Result<()> {
    let program = find_program(settings)?;
    let log = open_log(&paths.log)?;
    let log_start = log.metadata().when("read the daemon's log")?.len();
    let (ready, signal) = pipe_with(PipeFlags::CLOEXEC).when("make a pipe")?;
    // The daemon inherits this end under the same number. Nothing else is started meanwhile that could inherit it too.
    rustix::io::fcntl_setfd(&signal, FdFlags::empty()).when("pass a pipe on")?;
    let errors = log.try_clone().when("open the daemon's log")?;
    let mut child = Command::new(&program)
        .arg("--addr")
        .arg(format!("unix://{}", paths.socket.display()))
        .arg("--root")
        .arg(&paths.state)
        .arg("--idle-timeout")
        .arg(settings.idle_timeout())
        .arg("--ready-fd")
        .arg(signal.as_raw_fd().to_string())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .when(format!("start `{}`", program.display()))?;
    drop(signal);

    let mut said = Vec::new();
    let mut pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(ready).when("read a pipe")?;
    let hear = async {
        // An end without the word is a daemon that has ended.
        while !said.starts_with(READY) && matches!(pipe.read_buf(&mut said).await, Ok(count) if count > 0) {}
    };
    let heard = tokio::time::timeout(START_TIMEOUT, hear).await;
    let why = match heard {
        Ok(()) if said.starts_with(READY) => {
            // The daemon is nobody's child from now on: this process ends long before it.
            return Ok(());
        }
        Ok(()) => match ended(&mut child).await {
            Some(status) => format!("it ended with {status}"),
            None => "it did not say that it is ready".to_owned(),
        },
        Err(_) => {
            // It is of no use to anyone, and nobody else could have found it yet.
            let _ = child.kill();
            format!("it was not ready after {} s", START_TIMEOUT.as_secs())
        }
    };
    let _ = child.try_wait();
    let tail = log_tail(&paths.log, log_start);
    let tail = if tail.is_empty() { String::new() } else { format!("\n{tail}") };
    Err(Error::environment(format!("the daemon `{}` could not be started: {why}{tail}", program.display()))
        .hint(format!("its log is {}", paths.log.display())))
}

/// A process that closed the pipe is about to end, or closed it by mistake.
async fn ended(child: &mut Child) -> Option<ExitStatus> {
    for _ in 0..END_POLLS {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        tokio::time::sleep(END_POLL).await;
    }
    None
}

fn find_program(settings: &Settings) -> Result<PathBuf> {
    let own = std::env::current_exe().ok();
    // A link (as among the Docker CLI's plugins) leads to the folder where both programs are.
    let own = own.map(|path| std::fs::canonicalize(&path).unwrap_or(path));
    let candidates = settings.daemon_candidates(own.as_deref());
    let found = candidates.iter().find(|path| is_program(path));
    found.cloned().ok_or_else(|| {
        let beside = own.as_deref().and_then(Path::parent).map(|dir| dir.display().to_string());
        Error::environment("the daemon `kilnd` was not found").hint(format!(
            "put it beside kiln in {}, or on the PATH, or name it in KILN_KILND",
            beside.unwrap_or_default()
        ))
    })
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn open_log(path: &Path) -> Result<File> {
    let what = format!("write the daemon's log `{}`", path.display());
    if std::fs::metadata(path).is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("log.old")).when(&what)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).when(&what)
}

/// The last of what the log got since `start`.
fn log_tail(path: &Path, start: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut tail = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).trim_end().to_owned())
    };
    // Without the log the error says less, but says it.
    read().unwrap_or_default()
}
