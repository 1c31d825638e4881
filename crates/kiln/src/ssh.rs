//! ssh agents for the build: the user's, or one of our own that holds the keys which were named.
//!
//! Keys are read and used by OpenSSH's own `ssh-agent` and `ssh-add`: nothing here sees them.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::error::{Context as _, Error, Result};
use crate::flags::SshAgent;
use crate::settings::Settings;

/// An agent is there in a few milliseconds.
const START_TIMEOUT: Duration = Duration::from_secs(5);
const START_POLL: Duration = Duration::from_millis(2);

/// Where an agent answers, and the agent itself where it is ours.
#[derive(Debug)]
pub struct Agent {
    /// What steps call it.
    pub id: String,
    /// Its socket.
    pub socket: PathBuf,
    /// Ends with this.
    _own: Option<KeyAgent>,
}

/// Finds, or starts, what one `--ssh` names.
pub fn agent(wanted: &SshAgent, settings: &Settings) -> Result<Agent> {
    let id = wanted.id.clone();
    let [first, rest @ ..] = &wanted.paths[..] else {
        let socket = settings.var("SSH_AUTH_SOCK").map(PathBuf::from).ok_or_else(|| {
            Error::user(format!("invalid empty ssh agent socket for {id:?}: make sure SSH_AUTH_SOCK is set"))
                .hint("start an agent with `eval $(ssh-agent)`, or name a socket or keys: --ssh default=PATH")
        })?;
        check_socket(&socket)?;
        return Ok(Agent { id, socket, _own: None });
    };
    if rest.is_empty() && is_socket(Path::new(first))? {
        return Ok(Agent { id, socket: PathBuf::from(first), _own: None });
    }
    for path in &wanted.paths {
        if is_socket(Path::new(path))? {
            return Err(Error::user(format!("only a single socket is allowed for the ssh agent {id:?}")));
        }
    }
    let own = KeyAgent::start(&wanted.paths, settings)?;
    Ok(Agent { id, socket: own.socket(), _own: Some(own) })
}

fn is_socket(path: &Path) -> Result<bool> {
    let found = std::fs::metadata(path).map_err(|error| {
        Error::user(format!("cannot use the ssh socket or key `{}`", path.display())).because(error)
    })?;
    Ok(found.file_type().is_socket())
}

fn check_socket(path: &Path) -> Result<()> {
    if is_socket(path)? {
        return Ok(());
    }
    Err(Error::user(format!("SSH_AUTH_SOCK is `{}`, which is not a socket", path.display())))
}

/// An agent of our own.
#[derive(Debug)]
struct KeyAgent {
    dir: TempDir,
    agent: Child,
}

impl KeyAgent {
    fn start(keys: &[String], settings: &Settings) -> Result<Self> {
        // The folder is this user's alone, so the socket in it is too.
        let dir = tempfile::Builder::new()
            .prefix("kiln-ssh-")
            .tempdir_in(settings.temporary_dir())
            .when("make a folder for an ssh agent")?;
        let missing = |error: std::io::Error| {
            Error::environment("cannot start `ssh-agent` for the keys of --ssh")
                .because(error)
                .hint("install the OpenSSH client, or give the socket of an agent that runs already")
        };
        let agent = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(dir.path().join("agent"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(missing)?;
        let own = Self { dir, agent };
        let since = Instant::now();
        while !own.socket().exists() {
            if since.elapsed() > START_TIMEOUT {
                return Err(Error::environment("the `ssh-agent` for the keys of --ssh does not start"));
            }
            std::thread::sleep(START_POLL);
        }
        keys.iter().try_for_each(|key| own.add(key))?;
        Ok(own)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    fn add(&self, key: &str) -> Result<()> {
        let output = Command::new("ssh-add")
            .arg("-q")
            .arg("--")
            .arg(key)
            .env("SSH_AUTH_SOCK", self.socket())
            // A key with a passphrase cannot be asked for in the middle of a build.
            .env("SSH_ASKPASS_REQUIRE", "never")
            .process_group_of_its_own()
            .stdin(Stdio::null())
            .output()
            .when("run `ssh-add` for the keys of --ssh")?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it gave no reason").trim();
        Err(Error::user(format!("cannot use the ssh key `{key}`: {said}"))
            .hint("a key with a passphrase must be in an agent: add it with `ssh-add` and use --ssh default"))
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        // It is our own child and holds nothing but a copy of the keys.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// `ssh-add` asks for passphrases at the terminal, which it cannot reach from a group in the background.
trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    fn wanted(paths: &[&str]) -> SshAgent {
        SshAgent { id: "default".into(), paths: paths.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn sockets_are_used_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let text = path.to_str().unwrap();
        assert_eq!(agent(&wanted(&[text]), &settings(&[])).unwrap().socket, path);
        assert_eq!(agent(&wanted(&[]), &settings(&[("SSH_AUTH_SOCK", text)])).unwrap().socket, path);
        assert!(agent(&wanted(&[]), &settings(&[])).is_err());
        assert!(agent(&wanted(&[text, text]), &settings(&[])).is_err());
        assert!(agent(&wanted(&["/nonexistent"]), &settings(&[])).is_err());
        assert!(agent(&wanted(&[]), &settings(&[("SSH_AUTH_SOCK", "/etc/hostname")])).is_err());
    }

    #[test]
    fn keys_get_an_agent_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let key = |name: &str, passphrase: &str| {
            let path = dir.path().join(name);
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-C", name, "-N", passphrase, "-f"])
                .arg(&path)
                .status();
            assert!(made.expect("OpenSSH's programs are there").success());
            path.to_str().unwrap().to_owned()
        };
        let (a, b, locked) = (key("a", ""), key("b", ""), key("locked", "secret"));
        let started = agent(&wanted(&[&a, &b]), &settings(&[])).unwrap();
        let list = Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &started.socket).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&list.stdout).lines().count(), 2);
        let socket = started.socket.clone();
        drop(started);
        assert!(!socket.exists());
        let error = agent(&wanted(&[&locked]), &settings(&[])).unwrap_err();
        assert!(error.to_string().contains("locked"), "{error}");
    }
}
