//! One user's world in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::programs::kiln_binary;
use crate::registry::Registry;

/// How long a stopped daemon may take to be gone.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// HOME, the XDG folders and an embedded `kilnd` of its own. Dropping it ends that daemon.
pub struct Place {
    folder: TempDir,
}

/// What a finished program left.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Gives this back when the program succeeded.
    ///
    /// # Panics
    /// With all that it printed, when it did not.
    #[track_caller]
    pub fn success(self) -> Output {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Gives this back when the program failed.
    ///
    /// # Panics
    /// With all that it printed, when it succeeded.
    #[track_caller]
    pub fn failure(self) -> Output {
        assert_ne!(self.code, 0, "expected a failure; stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

impl Place {
    pub fn new() -> Place {
        let folder = tempfile::Builder::new().prefix("kiln-").tempdir().expect("a folder for the test");
        for name in ["home", "run", "data", "config", "work"] {
            std::fs::create_dir(folder.path().join(name)).expect("the test's folders");
        }
        Place { folder }
    }

    /// A path in this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the configuration that the embedded daemon reads (`buildkitd.toml` syntax).
    pub fn daemon_config(&self, toml: &str) {
        self.write("config/kiln/kilnd.toml", toml);
    }

    /// Makes `registry` the mirror of the default registry, so that `FROM busybox` is asked there.
    pub fn use_mirror(&self, registry: &Registry) {
        let host = registry.host();
        self.daemon_config(&format!(
            "[registry.\"docker.io\"]\n  mirrors = [\"{host}\"]\n[registry.\"{host}\"]\n  http = true\n"
        ));
    }

    /// Writes a file, with its folders.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("the file's folder");
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// `kiln` with this world's environment and nothing else of the caller's but PATH.
    pub fn kiln(&self) -> Command {
        let mut command = Command::new(kiln_binary("kiln"));
        self.enter(&mut command);
        command
    }

    /// Runs `kiln` with arguments, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        finish(self.kiln().args(arguments))
    }

    /// Gives a command this world's environment.
    pub fn enter(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("KILN_KILND", kiln_binary("kilnd"))
            .current_dir(self.path("work"))
            .stdin(Stdio::null());
    }

    /// The process ids of the `kilnd`s that serve this world.
    pub fn daemons(&self) -> Vec<u32> {
        let mark = self.folder.path().display().to_string();
        let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| is_daemon_of(*pid, &mark))
            .collect()
    }

    /// Ends this world's daemons with a signal (`TERM`, `KILL`) and waits until they are gone.
    pub fn stop_daemons(&self, signal: &str) {
        let pids = self.daemons();
        for pid in &pids {
            let _ = Command::new("kill")
                .arg(format!("-{signal}"))
                .arg(pid.to_string())
                .stderr(Stdio::null())
                .status();
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while pids.iter().any(|pid| Path::new(&format!("/proc/{pid}/exe")).exists())
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Default for Place {
    fn default() -> Place {
        Place::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop_daemons("TERM");
        self.stop_daemons("KILL");
    }
}

/// Runs a command to its end and keeps what it printed.
pub(crate) fn finish(command: &mut Command) -> Output {
    let child: Child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let output = child.wait_with_output().expect("a started program ends");
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether a process is a `kilnd` whose command line names this world's folder.
fn is_daemon_of(pid: u32, mark: &str) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split('\0');
    let program = words.next().unwrap_or_default();
    program.ends_with("kilnd") && words.any(|word| word.contains(mark))
}
