//! The `git` program, kept on a short leash: no configuration but what is given here, no hooks, no prompts, no transports
//! beyond those of the network, credentials in the environment of the one process that needs them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// Most of git's answers are a few lines; a list of refs may be long.
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// What of an error text is kept.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Transports that remotes and their submodules may use.
const NETWORK: &str = "http:https:ssh:git";

/// Where git is and what surrounds it.
#[derive(Clone, Debug)]
pub struct GitSettings {
    /// The program.
    pub program: PathBuf,
    /// Variables that reach it: `PATH` and those of proxies, nothing else.
    pub env: Vec<(String, String)>,
}

/// Takes what git prints: stream 1 or 2, and bytes.
pub type Output = Arc<dyn Fn(i32, Bytes) + Send + Sync>;

/// Why git did not do it.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("failed to run git")]
    Start(#[source] std::io::Error),
    /// With what it said.
    #[error("git stderr:\n{stderr}: {status}")]
    Failed { status: String, stderr: String },
    #[error("the answer of git is longer than {OUTPUT_BYTES_MAX} bytes")]
    TooLong,
}

impl GitError {
    /// What git said.
    pub fn stderr(&self) -> &str {
        match self {
            GitError::Failed { stderr, .. } => stderr,
            _ => "",
        }
    }
}

/// How to run git for one source. Cheap to clone.
#[derive(Clone)]
pub struct Git {
    settings: Arc<GitSettings>,
    output: Output,
    git_dir: Option<PathBuf>,
    work_tree: Option<PathBuf>,
    /// A header for one remote, with the prefix of addresses it is for.
    auth: Option<(String, kiln_registry::Secret)>,
    ssh_agent: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
    local: bool,
    /// Never shown: a remote with a password in it, and what to show instead.
    redacted: Option<(String, String)>,
}

impl Git {
    pub fn new(settings: Arc<GitSettings>, output: Output) -> Git {
        Git {
            settings,
            output,
            git_dir: None,
            work_tree: None,
            auth: None,
            ssh_agent: None,
            known_hosts: None,
            local: false,
            redacted: None,
        }
    }

    /// In this repository.
    pub fn git_dir(mut self, dir: &Path) -> Git {
        self.git_dir = Some(dir.to_owned());
        self
    }

    /// With this folder of files.
    pub fn work_tree(mut self, dir: &Path) -> Git {
        self.work_tree = Some(dir.to_owned());
        self
    }

    /// With an authorization header for addresses below `scope`.
    pub fn auth(mut self, scope: String, header: kiln_registry::Secret) -> Git {
        self.auth = Some((scope, header));
        self
    }

    /// With this agent's socket.
    pub fn ssh_agent(mut self, socket: &Path) -> Git {
        self.ssh_agent = Some(socket.to_owned());
        self
    }

    /// Trusting the hosts in this file, and only these.
    pub fn known_hosts(mut self, file: &Path) -> Git {
        self.known_hosts = Some(file.to_owned());
        self
    }

    /// Between repositories of this daemon: the only command that may read another folder.
    pub fn local(mut self) -> Git {
        self.local = true;
        self
    }

    /// Shows `remote` without its password in all that git says.
    pub fn redacting(mut self, remote: &str) -> Git {
        let shown = redact(remote);
        self.redacted = (shown != remote).then(|| (remote.to_owned(), shown));
        self
    }

    /// Runs git and gives what it wrote to its standard output. Where the other side refuses shallow transfers or single
    /// commits, it is asked again without.
    ///
    /// # Errors
    /// See [`GitError`].
    pub async fn run<T: AsRef<str>>(&self, args: &[T]) -> Result<String, GitError> {
        let mut args: Vec<String> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        loop {
            let error = match self.once(&args).await {
                Err(error @ GitError::Failed { .. }) => error,
                other => return other,
            };
            let said = error.stderr();
            let shallow = args.iter().any(|arg| arg == "--depth=1");
            if shallow && (said.contains("--depth") || said.contains("shallow")) {
                args.retain(|arg| arg != "--depth=1");
                continue;
            }
            let single =
                args.len() > 2 && args[0] == "fetch" && args.last().is_some_and(|arg| is_commit(arg));
            if single && (said.contains("not our ref") || said.contains("unadvertised object")) {
                args.pop();
                continue;
            }
            return Err(error);
        }
    }

    async fn once(&self, args: &[String]) -> Result<String, GitError> {
        let mut child = Group(self.command(args).spawn().map_err(GitError::Start)?);
        let (stdout, stderr) = (child.0.stdout.take(), child.0.stderr.take());
        let (out, err) = tokio::join!(
            self.collect(stdout, 1, OUTPUT_BYTES_MAX),
            self.collect(stderr, 2, ERROR_BYTES_MAX),
        );
        let status = child.0.wait().await.map_err(GitError::Start)?;
        if !status.success() {
            return Err(GitError::Failed { status: status_text(status), stderr: self.shown(&err.0) });
        }
        if out.1 {
            return Err(GitError::TooLong);
        }
        Ok(String::from_utf8_lossy(&out.0).into_owned())
    }

    fn command(&self, args: &[String]) -> Command {
        // The shell is there for the mask only: files of a checkout have the modes that git's authors mean them to have,
        // whatever the daemon's own mask is.
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask 022 && exec \"$0\" \"$@\""]).arg(&self.settings.program);
        for setting in [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "protocol.file.allow=user",
            "init.defaultBranch=master",
            "advice.detachedHead=false",
            "gc.auto=0",
        ] {
            command.args(["-c", setting]);
        }
        if let Some(dir) = &self.work_tree {
            command.arg("--work-tree").arg(dir).current_dir(dir);
        }
        if let Some(dir) = &self.git_dir {
            command.arg("--git-dir").arg(dir);
        }
        command.args(args).env_clear().envs(self.settings.env.iter().map(|(key, value)| (key, value)));
        command.envs([
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "/bin/false"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("HOME", "/dev/null"),
            ("LC_ALL", "C"),
            ("GIT_ALLOW_PROTOCOL", if self.local { "file" } else { NETWORK }),
        ]);
        let mut ssh = "ssh -F /dev/null -o BatchMode=yes".to_owned();
        match &self.known_hosts {
            Some(file) => ssh.push_str(&format!(" -o UserKnownHostsFile={}", file.display())),
            None => ssh.push_str(" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"),
        }
        command.env("GIT_SSH_COMMAND", ssh);
        if let Some(socket) = &self.ssh_agent {
            command.env("SSH_AUTH_SOCK", socket);
        }
        if let Some((scope, header)) = &self.auth {
            // Not as an argument, which every user of the machine could read.
            command.env("GIT_CONFIG_COUNT", "1");
            command.env("GIT_CONFIG_KEY_0", format!("http.{scope}.extraheader"));
            command.env("GIT_CONFIG_VALUE_0", format!("Authorization: {}", header.reveal()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Git starts helpers of its own, which have to end with it.
        command.process_group(0).kill_on_drop(true);
        command
    }

    /// All of a stream, cut to `max`; and whether it was cut.
    async fn collect(
        &self,
        stream: Option<impl AsyncRead + Unpin>,
        number: i32,
        max: usize,
    ) -> (Vec<u8>, bool) {
        let Some(mut stream) = stream else { return (Vec::new(), false) };
        let (mut kept, mut cut) = (Vec::new(), false);
        let mut buffer = vec![0_u8; 16 << 10];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            let chunk = &buffer[..length];
            let room = max.saturating_sub(kept.len());
            cut |= room < length;
            kept.extend_from_slice(&chunk[..length.min(room)]);
            (self.output)(number, self.shown(chunk).into());
        }
        (kept, cut)
    }

    fn shown(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes);
        match &self.redacted {
            Some((secret, shown)) => text.replace(secret.as_str(), shown),
            None => text.into_owned(),
        }
    }
}

fn status_text(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}

/// A child with all its descendants, which go when it does.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let Some(pid) = self.0.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) else {
            return;
        };
        // Still there, so its number is still its own.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
}

/// A remote without the password (and the name) that it may carry.
pub fn redact(remote: &str) -> String {
    let Some((scheme, rest)) = remote.split_once("://") else { return remote.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let Some((user, host)) = rest[..end].rsplit_once('@') else { return remote.to_owned() };
    let shown = if user.contains(':') { "xxxxx:xxxxx" } else { "xxxxx" };
    format!("{scheme}://{shown}@{host}{}", &rest[end..])
}

/// Whether a ref is the full name of a commit: 40 hexadecimal digits, or 64.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(redact("https://user:secret@host/x.git"), "https://xxxxx:xxxxx@host/x.git");
        assert_eq!(redact("https://token@host:8080/x"), "https://xxxxx@host:8080/x");
        assert_eq!(redact("https://host/a@b"), "https://host/a@b");
        assert_eq!(redact("git@host:x"), "git@host:x");
    }

    #[test]
    fn commits_are_full_hashes() {
        assert!(is_commit(&"a1".repeat(20)) && is_commit(&"0f".repeat(32)));
        assert!(!is_commit("main") && !is_commit(&"A1".repeat(20)) && !is_commit("a1b2"));
    }
}
