//! Logins for registries: from `config.json`, from `DOCKER_AUTH_CONFIG`, or from a credential helper program.

use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;

use super::config::{Auth, Config};
use crate::error::{Error, Result};
use crate::settings::Settings;

/// The key under which logins for Docker's own registry are kept.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// The user name with which a helper says that the secret is a token.
const TOKEN_USER: &str = "<token>";
/// What every helper says when it has no login.
const NOT_FOUND: &str = "credentials not found";
/// An answer longer than this is no login.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A user and a secret. An empty user means that the secret is a token. Cannot be printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password or token.
    pub secret: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(…)")
    }
}

/// All logins of the user.
#[derive(Debug)]
pub struct Credentials {
    config: Config,
    environment: Config,
    path: String,
    /// One helper at a time: some of them ask the user.
    running: Mutex<()>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl Credentials {
    /// The logins of this configuration.
    pub fn new(config: Config, settings: &Settings) -> Result<Self> {
        let environment = match settings.var("DOCKER_AUTH_CONFIG") {
            None => Config::default(),
            Some(text) => serde_json::from_str(&text).map_err(|_| {
                Error::environment("the variable DOCKER_AUTH_CONFIG is no valid configuration")
            })?,
        };
        Ok(Self {
            config,
            environment,
            path: settings.var("PATH").unwrap_or_default(),
            running: Mutex::new(()),
        })
    }

    /// The login for a registry; an empty one where there is none.
    pub async fn login(&self, host: &str) -> Result<Login> {
        let key = if HUB_HOSTS.contains(&host) { HUB_KEY } else { host };
        if let Some(auth) = find(&self.environment, key) {
            return read_auth(auth, host);
        }
        let helper =
            self.config.cred_helpers.get(&hostname(key)).or_else(|| self.config.cred_helpers.get(key));
        match helper.unwrap_or(&self.config.creds_store) {
            helper if !helper.is_empty() => self.ask(helper, key).await,
            _ => find(&self.config, key).map_or_else(|| Ok(Login::default()), |auth| read_auth(auth, host)),
        }
    }

    async fn ask(&self, helper: &str, key: &str) -> Result<Login> {
        let _running = self.running.lock().await;
        let program = format!("docker-credential-{helper}");
        let failed = |what: &str| {
            Error::environment(format!("the credential helper `{program}` {what} for {key}"))
                .hint(format!("see credsStore and credHelpers in the Docker CLI's config.json, and run: echo {key} | {program} get"))
        };
        if helper.contains('/') {
            return Err(failed("has no valid name"));
        }
        let found =
            std::env::split_paths(&self.path).map(|dir| dir.join(&program)).find(|path| path.is_file());
        let found = found.ok_or_else(|| failed("was not found on the PATH"))?;
        let answer = run(&found, key).await.map_err(|error| failed("failed").because(error))?;
        if !answer.status.success() {
            let said = [answer.stdout, answer.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            if said.contains(NOT_FOUND) {
                return Ok(Login::default());
            }
            let line = said.lines().next().unwrap_or("no message").trim();
            return Err(failed(&format!("failed ({line})")));
        }
        if answer.stdout.len() > ANSWER_BYTES_MAX {
            return Err(failed("answered too much"));
        }
        let answer: HelperAnswer =
            serde_json::from_slice(&answer.stdout).map_err(|_| failed("gave no valid answer"))?;
        let username = if answer.username == TOKEN_USER { String::new() } else { answer.username };
        Ok(Login { username, secret: answer.secret })
    }
}

async fn run(program: &Path, key: &str) -> std::io::Result<std::process::Output> {
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper may answer without reading its input.
        let _ = stdin.write_all(key.as_bytes()).await;
    }
    child.wait_with_output().await
}

/// The login of a registry: under its own key, or under one that means the same host.
fn find<'a>(config: &'a Config, key: &str) -> Option<&'a Auth> {
    config.auths.get(key).or_else(|| {
        let host = hostname(key);
        config.auths.iter().find(|(other, _)| hostname(other) == host).map(|(_, auth)| auth)
    })
}

/// `https://host/v1/` is `host`.
fn hostname(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    bare.split('/').next().unwrap_or_default().to_owned()
}

fn read_auth(auth: &Auth, host: &str) -> Result<Login> {
    if !auth.identitytoken.is_empty() {
        return Ok(Login { username: String::new(), secret: auth.identitytoken.clone() });
    }
    if auth.auth.is_empty() {
        return Ok(Login { username: auth.username.clone(), secret: auth.password.clone() });
    }
    let wrong =
        || Error::environment(format!("the login for {host} in the Docker CLI's config.json is not valid"));
    let decoded = STANDARD.decode(auth.auth.trim()).map_err(|_| wrong())?;
    let text = String::from_utf8(decoded).map_err(|_| wrong())?;
    let (username, password) = text.split_once(':').ok_or_else(wrong)?;
    Ok(Login { username: username.to_owned(), secret: password.trim_end_matches('\0').to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::settings::tests::settings;

    fn login(config: &str, host: &str, variables: &[(&str, &str)]) -> Result<Login> {
        let config = serde_json::from_str(config).unwrap();
        let credentials = Credentials::new(config, &settings(variables)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(credentials.login(host))
    }

    fn pair(username: &str, secret: &str) -> Login {
        Login { username: username.into(), secret: secret.into() }
    }

    #[test]
    fn from_the_file() {
        let config = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHVi Omh1Yg=="},
            "r.test":{"auth":"dTpwOnE="},
            "https://old.test/v2/":{"username":"u","password":"p"},
            "t.test":{"identitytoken":"tok","auth":"dTo="}}}"#
            .replace(' ', "");
        let config = config.as_str();
        assert_eq!(login(config, "r.test", &[]).unwrap(), pair("u", "p:q"));
        assert_eq!(login(config, "old.test", &[]).unwrap(), pair("u", "p"));
        assert_eq!(login(config, "t.test", &[]).unwrap(), pair("", "tok"));
        assert_eq!(login(config, "registry-1.docker.io", &[]).unwrap(), pair("hub", "hub"));
        assert_eq!(login(config, "none.test", &[]).unwrap(), Login::default());
        assert!(login(r#"{"auths":{"r.test":{"auth":"!!"}}}"#, "r.test", &[]).is_err());
    }

    #[test]
    fn from_the_environment_first() {
        let variables = [("DOCKER_AUTH_CONFIG", r#"{"auths":{"r.test":{"auth":"ZTplbnY="}}}"#)];
        assert_eq!(
            login(r#"{"auths":{"r.test":{"auth":"dTpw"}}}"#, "r.test", &variables).unwrap(),
            pair("e", "env")
        );
    }

    #[test]
    fn from_a_helper() {
        let dir = tempfile::tempdir().unwrap();
        let helper = dir.path().join("docker-credential-test");
        let script = r#"#!/bin/sh
            read -r host
            case "$host" in
              known.test) echo '{"ServerURL":"x","Username":"u","Secret":"s"}';;
              token.test) echo '{"Username":"<token>","Secret":"t"}';;
              gone.test) echo 'credentials not found in native keychain'; exit 1;;
              *) echo 'keychain is locked' >&2; exit 1;;
            esac"#;
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().to_str().unwrap();
        let variables = [("PATH", path)];
        let config = r#"{"credsStore":"test","credHelpers":{"other.test":"missing"}}"#;
        assert_eq!(login(config, "known.test", &variables).unwrap(), pair("u", "s"));
        assert_eq!(login(config, "token.test", &variables).unwrap(), pair("", "t"));
        assert_eq!(login(config, "gone.test", &variables).unwrap(), Login::default());
        let error = login(config, "locked.test", &variables).unwrap_err().to_string();
        assert!(error.contains("keychain is locked"), "{error}");
        let error = login(config, "other.test", &variables).unwrap_err().to_string();
        assert!(error.contains("docker-credential-missing` was not found"), "{error}");
    }

    #[test]
    fn a_login_cannot_be_printed() {
        assert_eq!(format!("{:?}", pair("u", "secret")), "Login(…)");
    }
}
