//! Git sources: bound to sessions, the store and the cache.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kiln_registry::Secret;
use kiln_session::daemon::{ForwardedAgent, SessionGroup};
use kiln_solver::Progress;
use kiln_store::{CommitInfo, LayerMeta, NamedLayer, NamedSpec, RecordType, Ref, Sharing};

use super::checkout::checkout;
use super::cli::{Git, redact};
use super::remote::{self, Fetched, Resolved};
use crate::Worker;
use crate::context::BuildContext;
use crate::encode::{Encoder, Hash};
use crate::error::{Error, Result};
use crate::ops::private::{Access, PrivateFile};
use crate::source::identifier::GitId;

/// Sockets and trusted hosts are read by git, which runs as this daemon does.
const OWN: Access = Access { uid: 0, gid: 0, mode: 0o600 };

/// What can be said of a repository without its files.
#[derive(Clone, Debug)]
pub struct GitMetadata {
    /// Full name of the ref.
    pub reference: String,
    /// Commit, or tag object.
    pub checksum: String,
    /// The commit behind an annotated tag.
    pub commit_checksum: String,
    /// The objects themselves, where they were asked for.
    pub commit_object: Bytes,
    pub tag_object: Bytes,
}

/// A way to run git for one source, and what has to stay while it runs.
struct Ready {
    git: Git,
    _agent: Option<ForwardedAgent>,
    _known_hosts: Option<PrivateFile>,
}

impl GitId {
    /// Key of what would be checked out.
    pub(crate) fn key(&self, resolved: &Resolved) -> Hash {
        let mut encoder = Encoder::new("kiln.source.git.v1");
        encoder.str(resolved.commit_for_key(self.keep_git_dir));
        // With its `.git` a checkout also says by which name it was fetched.
        encoder.option(self.keep_git_dir.then_some(&resolved.reference), |encoder, name| {
            encoder.str(name);
        });
        encoder.str(&self.subdir).bool(self.skip_submodules).bool(self.mtime_of_commit);
        encoder.finish()
    }
}

impl Worker {
    /// Finds out what the ref of a git source stands for.
    pub(crate) async fn resolve_git(
        &self,
        id: &GitId,
        build: &BuildContext,
        sessions: &SessionGroup,
        progress: &Progress,
    ) -> Result<Resolved> {
        if let Some(resolved) = remote::resolve_offline(id)? {
            return Ok(resolved);
        }
        let ready = self.git(id, sessions, Some(progress)).await?;
        let keep = if id.keep_git_dir { "keep" } else { "" };
        let name = format!("git:{keep}:{}#{}@{}", id.remote, id.reference, id.checksum);
        let ask = async {
            let resolved = remote::resolve(&ready.git, id).await?;
            let commit = resolved.commit_checksum.unwrap_or_default();
            Ok(format!("{}\n{}\n{commit}", resolved.reference, resolved.checksum))
        };
        let text = build.resolve_once(&name, ask).await?;
        let mut lines = text.split('\n').map(str::to_owned);
        Ok(Resolved {
            reference: lines.next().unwrap_or_default(),
            checksum: lines.next().unwrap_or_default(),
            commit_checksum: lines.next().filter(|commit| !commit.is_empty()),
        })
    }

    /// The files of a git source.
    pub(crate) async fn checkout_git(
        &self,
        id: &GitId,
        resolved: &Resolved,
        sessions: &SessionGroup,
        progress: &Progress,
    ) -> Result<Ref> {
        // The same files for the same remote and commit need no git at all.
        let topic = format!("git-snapshot:{}:{}", id.remote, crate::encode::digest_of(id.key(resolved)));
        if let Some((known, _, _)) = self.store().values().refs(&topic)?.into_iter().next() {
            return Ok(known);
        }
        let ready = self.git(id, sessions, Some(progress)).await?;
        let (bare, fetched) = self.fetch_git(id, resolved, &ready.git).await?;
        let meta = LayerMeta {
            description: format!("git snapshot for {}#{}", redact(&id.remote), id.reference),
            record_type: RecordType::SourceGitCheckout,
            created_ms: None,
        };
        let layer = self.store().new_layer(&Ref::scratch(), meta)?;
        let git = ready.git.clone().git_dir(bare.dir());
        checkout(&git, bare.dir(), id, &fetched, resolved.checksum.len() == 64, layer.dir()).await?;
        let result = self.blocking(move || layer.commit(CommitInfo::default())).await??;
        self.store().values().set_for_ref(&result, "git-snapshot", b"", Some(&topic))?;
        Ok(result)
    }

    /// What the ref of a git source stands for, with the objects behind it if wanted.
    pub(crate) async fn git_metadata(
        &self,
        id: &GitId,
        build: &BuildContext,
        sessions: &SessionGroup,
        progress: &Progress,
        objects: bool,
    ) -> Result<GitMetadata> {
        let resolved = self.resolve_git(id, build, sessions, progress).await?;
        let mut metadata = GitMetadata {
            commit_checksum: resolved.commit_checksum.clone().unwrap_or_default(),
            reference: resolved.reference.clone(),
            checksum: resolved.checksum.clone(),
            commit_object: Bytes::new(),
            tag_object: Bytes::new(),
        };
        if !objects {
            return Ok(metadata);
        }
        let ready = self.git(id, sessions, Some(progress)).await?;
        let (bare, _) = self.fetch_git(id, &resolved, &ready.git).await?;
        let git = ready.git.clone().git_dir(bare.dir());
        let run = async |args: &[&str]| git.run(args).await.map_err(|error| Error::Git(error.into()));
        match run(&["cat-file", "-t", &metadata.checksum]).await?.trim() {
            "tag" => {
                if metadata.commit_checksum.is_empty() {
                    let peeled = format!("{}^{{commit}}", metadata.checksum);
                    metadata.commit_checksum = run(&["rev-parse", &peeled]).await?.trim().to_owned();
                }
                metadata.tag_object = run(&["cat-file", "tag", &metadata.checksum]).await?.into();
            }
            _ => metadata.commit_checksum.clear(),
        }
        let commit =
            if metadata.commit_checksum.is_empty() { &metadata.checksum } else { &metadata.commit_checksum };
        metadata.commit_object = run(&["cat-file", "commit", commit]).await?.into();
        Ok(metadata)
    }

    /// Fetches into this daemon's copy of the repository, which nobody else uses meanwhile.
    async fn fetch_git(&self, id: &GitId, resolved: &Resolved, git: &Git) -> Result<(NamedLayer, Fetched)> {
        let sha256 = resolved.checksum.len() == 64;
        let mut again = false;
        loop {
            let bare = self.bare_repository(id, git, sha256, again).await?;
            let in_bare = git.clone().git_dir(bare.dir());
            match remote::fetch(&in_bare, bare.dir(), id, resolved).await {
                Ok(fetched) => return Ok((bare, fetched)),
                Err(error) if !again && error.wants_fresh_copy() => again = true,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn bare_repository(&self, id: &GitId, git: &Git, sha256: bool, empty: bool) -> Result<NamedLayer> {
        let spec = NamedSpec {
            key: format!("git-remote:{}", id.remote),
            base: Ref::scratch(),
            sharing: Sharing::Locked,
            meta: LayerMeta {
                description: format!("shared git repo for {}", redact(&id.remote)),
                record_type: RecordType::Internal,
                created_ms: None,
            },
        };
        let bare = self.store().named(&spec).await?;
        let complete = bare.dir().join("config").exists() && bare.dir().join("kiln-ready").exists();
        if !complete || empty {
            clear(bare.dir()).map_err(Error::io("clear", bare.dir()))?;
            remote::init(git, bare.dir(), &id.remote, sha256).await?;
            // Without this mark the repository is one that a crash interrupted.
            let mark = bare.dir().join("kiln-ready");
            std::fs::write(&mark, b"").map_err(Error::io("write", &mark))?;
        }
        Ok(bare)
    }

    async fn git(&self, id: &GitId, sessions: &SessionGroup, progress: Option<&Progress>) -> Result<Ready> {
        let settings = self.settings().git.clone().ok_or_else(|| {
            Error::Text("git source cannot be used: no `git` program was found where the daemon runs".into())
        })?;
        let output: super::cli::Output = match progress.cloned() {
            Some(progress) => Arc::new(move |stream, data| progress.log(stream, data)),
            None => Arc::new(|_, _| {}),
        };
        let mut git = Git::new(settings, output).redacting(&id.remote);
        if let Some(header) = self.git_header(id, sessions).await? {
            git = git.auth(auth_scope(&id.remote), header);
        }
        let mut agent = None;
        if !id.ssh_agent.is_empty() {
            let forwarded = self.agent(&id.ssh_agent, sessions, OWN).await?;
            git = git.ssh_agent(forwarded.path());
            agent = Some(forwarded);
        }
        let mut known_hosts = None;
        if !id.known_hosts.is_empty() {
            let file = self.private().file(id.known_hosts.as_bytes(), OWN)?;
            git = git.known_hosts(file.path());
            known_hosts = Some(file);
        }
        Ok(Ready { git, _agent: agent, _known_hosts: known_hosts })
    }

    /// The first secret that the build has of those that may log in at the remote.
    async fn git_header(&self, id: &GitId, sessions: &SessionGroup) -> Result<Option<Secret>> {
        let host =
            id.remote.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
        let host = host.rsplit('@').next().unwrap_or_default();
        let (header, token) = (&id.auth_header_secret, &id.auth_token_secret);
        let names = [
            (!header.is_empty()).then(|| (format!("{header}.{host}"), false)),
            (!token.is_empty()).then(|| (format!("{token}.{host}"), true)),
            (!header.is_empty()).then(|| (header.clone(), false)),
            (!token.is_empty()).then(|| (token.clone(), true)),
        ];
        for (name, is_token) in names.into_iter().flatten() {
            // Without a session there are no secrets, which is no reason not to try.
            let Ok(Some(secret)) = self.secret(&name, true, sessions).await else { continue };
            let text = String::from_utf8_lossy(secret.reveal()).trim_end().to_owned();
            return Ok(Some(Secret::new(if is_token {
                use base64::Engine as _;
                let login =
                    base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{text}"));
                format!("basic {login}")
            } else {
                text
            })));
        }
        Ok(None)
    }
}

/// A login is sent to its remote only; on GitHub to all repositories, for submodules come from there.
fn auth_scope(remote: &str) -> String {
    let shared = ["https://github.com/", "https://www.github.com/"];
    shared.iter().find(|prefix| remote.starts_with(**prefix)).map_or(remote, |prefix| *prefix).to_owned()
}

fn clear(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.symlink_metadata()?.is_dir() {
            std::fs::remove_dir_all(path)?
        } else {
            std::fs::remove_file(path)?
        }
    }
    Ok(())
}
