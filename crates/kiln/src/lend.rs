//! What this machine lends to a build through the session: folders, secrets, agents, credentials, and places for results.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_registry::{Login, Secret as SecretText};
use kiln_session::client::{
    AgentSource, AgentSpec, CredentialSource, LayoutStore, SecretSource as SessionSecrets, SecretValue,
    Session, Target as SessionTarget, TargetFile, UploadSource,
};
use kiln_session::fsync::{LocalDir, Spools};

use crate::build::{Caches, Export, FileSink, Inputs, Options, Target};
use crate::docker::credentials::Credentials;
use crate::error::{Context as _, Error, Result};
use crate::flags::{Secret, SecretSource, SshAgent};
use crate::load::Loading;
use crate::settings::Settings;
use crate::ssh::{self, Agent};

/// A secret that is longer is none (BuildKit's limit).
const SECRET_BYTES_MAX: u64 = 500 * 1024;

/// All that is lent; nothing else of this machine can be asked for.
pub struct Lent {
    directories: Vec<(String, LocalDir)>,
    stores: Vec<(String, LayoutStore)>,
    targets: Vec<(u32, SessionTarget)>,
    files: Vec<FileSink>,
    secrets: Arc<Secrets>,
    agents: Vec<Agent>,
    uploads: Option<Arc<UploadSource>>,
    credentials: Arc<Logins>,
}

impl Lent {
    /// Collects it. A secret's file must be there now, but is read when a step asks for it.
    pub fn new(
        options: &Options,
        inputs: &Inputs,
        exports: &[Export],
        caches: &Caches,
        loading: &Loading,
        credentials: Arc<Credentials>,
        settings: &Settings,
    ) -> Result<Self> {
        let directories = inputs
            .locals
            .iter()
            .map(|(name, path)| (name.clone(), LocalDir::context(path.clone())))
            .collect();
        let layouts =
            inputs.layouts.iter().map(|(id, path)| (id.clone(), LayoutStore::read_only(path.clone())));
        let caches = caches.stores.iter().map(|(id, (path, writable))| {
            let store = if *writable {
                LayoutStore::writable(path.clone())
            } else {
                LayoutStore::read_only(path.clone())
            };
            (id.clone(), store)
        });
        let mut lent = Self {
            directories,
            stores: layouts.chain(caches).collect(),
            targets: Vec::new(),
            files: Vec::new(),
            secrets: Arc::new(Secrets::new(&options.secrets, settings)?),
            agents: agents(options, settings)?,
            uploads: None,
            credentials: Arc::new(Logins(credentials)),
        };
        for (number, export) in (0..).zip(exports) {
            lent.add_target(number, export, loading)?;
        }
        Ok(lent)
    }

    fn add_target(&mut self, number: u32, export: &Export, loading: &Loading) -> Result<()> {
        let target = match &export.target {
            Target::Nowhere => return Ok(()),
            Target::File(path) => {
                let sink = FileSink::create(path)?;
                self.files.push(sink.clone());
                file_target(move || sink.clone())
            }
            Target::Stdout => file_target(std::io::stdout),
            Target::Engine | Target::Store => {
                let sink =
                    loading.sink(number).ok_or_else(|| Error::ours("an image to load without a place"))?;
                file_target(move || sink.clone())
            }
            Target::Folder { path, delete } => SessionTarget::Dir { path: path.clone(), delete: *delete },
            Target::Layout(path) => {
                // The exporter has one name for all of them.
                if self.stores.iter().any(|(id, _)| id == "export") {
                    return Err(Error::user("only one output with tar=false is possible"));
                }
                std::fs::create_dir_all(path).when(format!("create the folder `{}`", path.display()))?;
                self.stores.push(("export".to_owned(), LayoutStore::writable(path.clone())));
                return Ok(());
            }
        };
        self.targets.push((number, target));
        Ok(())
    }

    /// Announces a context from standard input; its address goes into the request.
    pub fn take_upload(&mut self, inputs: &mut Inputs) -> Result<Option<String>> {
        let Some(body) = inputs.upload.take() else { return Ok(None) };
        let uploads = Arc::new(UploadSource::default());
        let address = uploads.add(crate::blocking::Reader::new(body)).when("announce the context")?;
        self.uploads = Some(uploads);
        Ok(Some(address))
    }

    /// Adds the services to a session.
    pub fn attach(&mut self, session: &mut Session) {
        session.credentials(self.credentials.clone());
        // Lists of a great many files are not kept in memory.
        let spools = Spools::new(std::env::temp_dir());
        if !self.directories.is_empty() {
            session.directories(std::mem::take(&mut self.directories), spools.clone());
        }
        if !self.targets.is_empty() {
            session.targets(std::mem::take(&mut self.targets), spools);
        }
        if !self.stores.is_empty() {
            session.stores(std::mem::take(&mut self.stores));
        }
        // Steps may ask for optional ones that are not there, and are to hear just that.
        session.secrets(self.secrets.clone());
        let spec = |agent: &Agent| AgentSpec {
            id: agent.id.clone(),
            source: AgentSource::Socket(agent.socket.clone()),
        };
        session.agents(self.agents.iter().map(spec).collect());
        if let Some(uploads) = &self.uploads {
            session.uploads(uploads.clone());
        }
    }

    /// Gives every file that was written its name.
    pub fn commit(&self) -> Result<()> {
        self.files.iter().try_for_each(FileSink::commit)
    }
}

fn file_target<F: TargetFile + 'static>(open: impl Fn() -> F + Send + Sync + 'static) -> SessionTarget {
    SessionTarget::File(Box::new(move |_| Ok(Some(Box::new(open()) as Box<dyn TargetFile>))))
}

fn agents(options: &Options, settings: &Settings) -> Result<Vec<Agent>> {
    let mut wanted = options.ssh.clone();
    if wanted.is_empty() && crate::build::is_git_ssh(&options.context) {
        wanted.push(SshAgent { id: "default".to_owned(), paths: Vec::new() });
    }
    wanted.iter().map(|wanted| ssh::agent(wanted, settings)).collect()
}

/// The user's logins, for a session.
pub struct Logins(pub Arc<Credentials>);

#[async_trait]
impl CredentialSource for Logins {
    async fn login(&self, host: &str) -> std::result::Result<Login, String> {
        let login = self.0.login(host).await.map_err(|error| error.to_string())?;
        Ok(Login { username: login.username, secret: SecretText::new(login.secret) })
    }
}

/// Where each secret is; values from the environment are taken now, files are read when asked for.
struct Secrets(Vec<(String, Value)>);

enum Value {
    Text(String),
    File(PathBuf),
    Missing,
}

impl Secrets {
    fn new(secrets: &[Secret], settings: &Settings) -> Result<Self> {
        let find = |secret: &Secret| match &secret.source {
            SecretSource::Env(name) => Ok(settings.raw_var(name).map_or(Value::Missing, Value::Text)),
            SecretSource::File(path) => {
                let found = std::fs::metadata(path)
                    .map_err(|error| Error::user(format!("failed to stat {path}")).because(error))?;
                if found.len() > SECRET_BYTES_MAX {
                    return Err(Error::user(format!("secret {} too big. max size 500KB", secret.id)));
                }
                Ok(Value::File(PathBuf::from(path)))
            }
        };
        secrets.iter().map(|secret| Ok((secret.id.clone(), find(secret)?))).collect::<Result<_>>().map(Self)
    }
}

#[async_trait]
impl SessionSecrets for Secrets {
    async fn secret(&self, id: &str) -> std::result::Result<Option<SecretValue>, String> {
        match self.0.iter().find(|(name, _)| name == id).map(|(_, value)| value) {
            None | Some(Value::Missing) => Ok(None),
            Some(Value::Text(text)) => Ok(Some(SecretValue(text.clone().into()))),
            Some(Value::File(path)) => match tokio::fs::read(path).await {
                Ok(data) => Ok(Some(SecretValue(data.into()))),
                Err(error) => Err(format!("cannot read the secret {id}: {error}")),
            },
        }
    }
}
