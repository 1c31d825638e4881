//! What a remote says a ref stands for, and getting it into the daemon's own copy of the repository.

use std::path::Path;

use super::cli::{Git, GitError, is_commit, redact};
use crate::source::identifier::GitId;

/// Why a repository could not be used. Texts are BuildKit's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepositoryError {
    #[error("failed to fetch remote {remote}")]
    Fetch {
        remote: String,
        #[source]
        source: GitError,
    },
    #[error("error fetching default branch for repository {remote}")]
    DefaultBranch {
        remote: String,
        #[source]
        source: GitError,
    },
    #[error("could not find default branch for repository: {0}")]
    NoDefaultBranch(String),
    #[error("repository does not contain ref {reference}, output: {output:?}")]
    NoRef { reference: String, output: String },
    #[error("invalid commit sha {0:?}")]
    NoCommit(String),
    #[error("invalid checksum {0} for Git URL, expected hex commit hash")]
    BadChecksum(String),
    #[error("expected checksum to match {expected}, got {actual}")]
    Checksum { expected: String, actual: String },
    #[error("{0}")]
    FetchByCommit(String),
    #[error(
        "fetched ref {reference} does not match expected commit {commit} and commit can not be found in the repository"
    )]
    Moved { reference: String, commit: String },
    #[error("failed to {what} {remote}")]
    Step {
        what: &'static str,
        remote: String,
        #[source]
        source: GitError,
    },
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("invalid subdir {subdir}")]
    Subdir {
        subdir: String,
        #[source]
        source: crate::error::PathError,
    },
    #[error("git subpath {subdir:?} contains non-directory {path:?}")]
    SubdirNotDir { subdir: String, path: String },
    #[error("failed to {what} `{path}`")]
    File {
        what: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl RepositoryError {
    /// A new copy of the repository may help: a tag was moved, or a branch became a folder of branches.
    pub fn wants_fresh_copy(&self) -> bool {
        let RepositoryError::Fetch { source, .. } = self else { return false };
        let said = source.stderr();
        said.contains("rejected") && said.contains("(would clobber existing tag)")
            || said.contains("some local refs could not be updated;")
                && (said.contains("(unable to update local ref)") || said.contains("refname conflict"))
    }
}

/// What a ref stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The full name of the ref, or the commit itself.
    pub reference: String,
    /// Commit, or tag object.
    pub checksum: String,
    /// The commit behind an annotated tag, where the repository is not kept.
    pub commit_checksum: Option<String>,
}

impl Resolved {
    fn commit(commit: &str) -> Resolved {
        Resolved { reference: commit.to_owned(), checksum: commit.to_owned(), commit_checksum: None }
    }

    /// The commit that the files come from, as far as it is known.
    pub fn commit_for_key(&self, keep_git_dir: bool) -> &str {
        match &self.commit_checksum {
            Some(commit) if !keep_git_dir => commit,
            _ => &self.checksum,
        }
    }
}

/// What can be said without asking the remote: the ref is a commit, or the commit is to be fetched by its name.
///
/// # Errors
/// A checksum that is none or does not fit.
pub fn resolve_offline(id: &GitId) -> Result<Option<Resolved>, RepositoryError> {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex(&id.checksum) {
        return Err(RepositoryError::BadChecksum(id.checksum.clone()));
    }
    if is_commit(&id.reference) {
        if !id.reference.starts_with(&id.checksum) {
            let (expected, actual) = (id.checksum.clone(), id.reference.clone());
            return Err(RepositoryError::Checksum { expected, actual });
        }
        return Ok(Some(Resolved::commit(&id.reference)));
    }
    if !id.fetch_by_commit {
        return Ok(None);
    }
    if id.checksum.is_empty() {
        return Err(RepositoryError::FetchByCommit(
            "fetch-by-commit requires a checksum or a commit SHA ref".into(),
        ));
    }
    if !is_commit(&id.checksum) {
        let text = format!("fetch-by-commit requires a full commit SHA checksum, got {:?}", id.checksum);
        return Err(RepositoryError::FetchByCommit(text));
    }
    // The same names as a remote would give, so that keys are the same.
    let reference = match id.reference.as_str() {
        "" => id.checksum.clone(),
        full if full.starts_with("refs/") => full.to_owned(),
        short => format!("refs/heads/{short}"),
    };
    Ok(Some(Resolved { reference, ..Resolved::commit(&id.checksum) }))
}

/// Asks the remote.
///
/// # Errors
/// See [`RepositoryError`].
pub async fn resolve(git: &Git, id: &GitId) -> Result<Resolved, RepositoryError> {
    let remote = &id.remote;
    let reference =
        if id.reference.is_empty() { default_branch(git, remote).await? } else { id.reference.clone() };
    let output = git
        .run(&["ls-remote", "--", remote, &reference, &format!("{reference}^{{}}")])
        .await
        .map_err(|source| RepositoryError::Fetch { remote: redact(remote), source })?;
    let under = |prefix: &str| format!("{prefix}{}", reference.strip_prefix(prefix).unwrap_or(&reference));
    let (partial, head, tag) = (under("refs/"), under("refs/heads/"), under("refs/tags/"));
    let peeled_tag = format!("{tag}^{{}}");
    let find = |name: &str| {
        output
            .lines()
            .find_map(|line| line.split_once('\t').filter(|(_, found)| *found == name).map(|(sha, _)| sha))
    };
    // Of a branch and a tag with the same name git takes the branch.
    let branch = find(&partial).map(|sha| (sha, partial)).or_else(|| find(&head).map(|sha| (sha, head)));
    let peeled = if branch.is_some() { None } else { find(&peeled_tag) };
    let Some((sha, full)) = branch.or_else(|| find(&tag).map(|sha| (sha, tag))) else {
        return Err(RepositoryError::NoRef { reference, output });
    };
    if !is_commit(sha) {
        return Err(RepositoryError::NoCommit(sha.to_owned()));
    }
    let fits = |sha: &str| sha.starts_with(&id.checksum);
    if !fits(sha) && !peeled.is_some_and(fits) {
        let actual = peeled.map_or_else(|| sha.to_owned(), |peeled| format!("{sha} or {peeled}"));
        return Err(RepositoryError::Checksum { expected: id.checksum.clone(), actual });
    }
    Ok(Resolved {
        reference: full,
        checksum: sha.to_owned(),
        commit_checksum: peeled.filter(|_| !id.keep_git_dir).map(str::to_owned),
    })
}

async fn default_branch(git: &Git, remote: &str) -> Result<String, RepositoryError> {
    let output = git
        .run(&["ls-remote", "--symref", "--", remote, "HEAD"])
        .await
        .map_err(|source| RepositoryError::DefaultBranch { remote: redact(remote), source })?;
    let branch = output.split("refs/heads/").nth(1).and_then(|rest| rest.split_whitespace().next());
    match branch {
        Some(branch) if !branch.starts_with('-') => Ok(branch.to_owned()),
        _ => Err(RepositoryError::NoDefaultBranch(redact(remote))),
    }
}

/// Makes the bare repository in `dir` that fetches go to.
///
/// # Errors
/// See [`RepositoryError`].
pub async fn init(git: &Git, dir: &Path, remote: &str, sha256: bool) -> Result<(), RepositoryError> {
    let git = git.clone().git_dir(dir);
    let failed = |source| RepositoryError::Step { what: "init repo for", remote: redact(remote), source };
    let format: &[&str] = if sha256 { &["--object-format=sha256"] } else { &[] };
    git.run(&[&["init", "--bare"], format].concat()).await.map_err(failed)?;
    git.run(&["remote", "add", "--", "origin", remote]).await.map_err(failed)?;
    Ok(())
}

/// A fetched ref in the bare repository.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// What checkouts name: the ref, or the commit.
    pub reference: String,
    /// What the ref was called by who asked; empty where it was the default branch's turn.
    pub asked: String,
}

/// Fetches what `resolved` says into the bare repository of `git`, unless it is there.
///
/// # Errors
/// See [`RepositoryError`].
pub async fn fetch(
    git: &Git,
    dir: &Path,
    id: &GitId,
    resolved: &Resolved,
) -> Result<Fetched, RepositoryError> {
    let asked =
        if id.reference.is_empty() { default_branch(git, &id.remote).await? } else { id.reference.clone() };
    let by_commit = id.fetch_by_commit && !id.checksum.is_empty();
    let wanted = if by_commit { id.checksum.clone() } else { asked.clone() };
    let present = is_commit(&wanted)
        && git.run(&["cat-file", "-e", "--", &format!("{wanted}^{{commit}}")]).await.is_ok();
    if !present {
        fetch_ref(git, dir, id, &asked, &wanted, &resolved.checksum).await?;
    }
    let fetched = Fetched { reference: wanted, asked };
    check(git, id, &fetched.reference).await?;
    Ok(fetched)
}

async fn fetch_ref(
    git: &Git,
    dir: &Path,
    id: &GitId,
    asked: &str,
    wanted: &str,
    commit: &str,
) -> Result<(), RepositoryError> {
    let failed = |source| RepositoryError::Fetch { remote: redact(&id.remote), source };
    // A lock that a killed git left behind would stop every later one; nobody else works here now.
    let _ = std::fs::remove_file(dir.join("shallow.lock"));
    let is_shallow = || dir.join("shallow").symlink_metadata().is_ok();
    // Local refs are needed so that the next fetch can say what is there already.
    let target = if asked.starts_with("refs/tags/") { asked.to_owned() } else { format!("tags/{asked}") };
    let mut args = vec!["fetch".to_owned()];
    if id.fetch_by_commit || !is_commit(wanted) {
        args.extend(["--depth=1".into(), "--no-tags".into()]);
    } else {
        args.push("--tags".into());
        if is_shallow() {
            args.push("--unshallow".into());
        }
    }
    args.push("origin".into());
    if is_commit(asked) {
        args.push(asked.to_owned());
    } else {
        args.extend(["--force".into(), "--".into(), format!("{wanted}:{target}")]);
    }
    git.run(&args).await.map_err(failed)?;
    if git.run(&["rev-parse", wanted]).await?.trim() == commit {
        return Ok(());
    }
    // The remote moved on since its ref was looked up: the commit of then may still be had.
    let local_ref = if target.starts_with("refs/") { target } else { format!("refs/{target}") };
    let has_commit = async || git.run(&["cat-file", "-e", commit]).await.is_ok();
    if !has_commit().await {
        let mut args = vec!["fetch", "--tags"];
        if is_shallow() {
            args.push("--unshallow");
        }
        args.extend(["origin", commit]);
        git.run(&args).await.map_err(failed)?;
        git.run(&["reflog", "expire", "--all", "--expire=now"]).await?;
        if !has_commit().await {
            return Err(RepositoryError::Moved { reference: asked.to_owned(), commit: commit.to_owned() });
        }
    }
    git.run(&["update-ref", &local_ref, commit, "--no-deref"]).await?;
    Ok(())
}

/// The fetched ref is what the checksum says, itself or, for an annotated tag, the commit behind it.
async fn check(git: &Git, id: &GitId, reference: &str) -> Result<(), RepositoryError> {
    if id.checksum.is_empty() {
        return Ok(());
    }
    let step = |source| RepositoryError::Step { what: "rev-parse for", remote: redact(&id.remote), source };
    let parsed = git.run(&["rev-parse", reference]).await.map_err(step)?;
    let actual = parsed.trim();
    if actual.starts_with(&id.checksum) {
        return Ok(());
    }
    let peeled = git.run(&["rev-parse", &format!("{reference}^{{}}")]).await.unwrap_or_default();
    let peeled = peeled.trim();
    if !peeled.is_empty() && peeled.starts_with(&id.checksum) {
        return Ok(());
    }
    let actual = if peeled.is_empty() || peeled == actual {
        actual.to_owned()
    } else {
        format!("{actual} or {peeled}")
    };
    Err(RepositoryError::Checksum { expected: id.checksum.clone(), actual })
}
