//! Debian's `docker-registry` on a free loopback port, with storage of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use crate::programs::program;

/// How long a registry may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running registry; it ends, and its storage goes, when this is dropped.
pub struct Registry {
    child: Child,
    port: u16,
    storage: TempDir,
}

impl Registry {
    /// Starts one that anybody may read and write, over plain HTTP.
    pub fn start() -> Registry {
        Registry::start_with("", |_| Vec::new())
    }

    /// Starts one that asks for a user and a password (htpasswd, bcrypt), over plain HTTP.
    pub fn start_with_password(htpasswd_line: &str) -> Registry {
        let line = format!("{htpasswd_line}\n");
        Registry::start_with(
            "auth:\n    htpasswd:\n        realm: test\n        path: {storage}/htpasswd\n",
            |_| vec![("htpasswd", line)],
        )
    }

    /// Starts one that anybody may read and write, over TLS with this certificate and key (PEM).
    pub fn start_with_tls(certificate: &std::path::Path, key: &std::path::Path) -> Registry {
        let (certificate, key) = (certificate.display(), key.display());
        // Still within the `http` section.
        Registry::start_with(
            &format!("    tls:\n        certificate: {certificate}\n        key: {key}\n"),
            |_| Vec::new(),
        )
    }

    fn start_with(extra: &str, files: impl FnOnce(&TempDir) -> Vec<(&'static str, String)>) -> Registry {
        let storage = tempfile::tempdir().expect("a folder for the registry");
        for (name, text) in files(&storage) {
            std::fs::write(storage.path().join(name), text).expect("the registry's files");
        }
        let folder = storage.path().display();
        let extra = extra.replace("{storage}", &folder.to_string());
        let config = format!(
            "version: 0.1\nlog:\n    level: info\nstorage:\n    filesystem:\n        rootdirectory: {folder}/data\n    \
             delete:\n        enabled: true\nhttp:\n    addr: 127.0.0.1:0\n{extra}"
        );
        let path = storage.path().join("config.yml");
        std::fs::write(&path, config).expect("the registry's configuration");
        let mut child = program("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts");
        let stderr = child.stderr.take().expect("its standard error is a pipe");
        let (found, port) = mpsc::channel();
        // Reads to the end: a full pipe would stop the registry.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(rest) = line.split("listening on 127.0.0.1:").nth(1) {
                    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                    if let Ok(port) = digits.parse() {
                        let _ = found.send(port);
                    }
                }
            }
        });
        let port = port.recv_timeout(START_TIMEOUT).expect("docker-registry says where it listens");
        Registry { child, port, storage }
    }

    /// `localhost:PORT`, the first part of a reference.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The file that holds a blob, by its digest (`sha256:<hex>`): for tests that damage or remove it.
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.rsplit(':').next().unwrap_or_default();
        let blobs = self.storage.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// The reference of a repository here.
    pub fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
