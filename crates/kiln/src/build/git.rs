//! Where the context comes from, for provenance and labels: repository, commit, and place within it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::settings::Settings;

/// What is wanted of a context's repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `vcs:*` attributes, which end in the provenance (`BUILDX_GIT_INFO`).
    pub info: bool,
    /// Labels of the image (`BUILDX_GIT_LABELS`).
    pub labels: bool,
    /// `-dirty` after the commit of a changed work tree (`BUILDX_GIT_CHECK_DIRTY`).
    pub check_dirty: bool,
}

impl Wanted {
    /// From the environment. Without a provenance nobody reads the attributes, and running git takes time.
    pub fn of(settings: &Settings, has_provenance: bool) -> Self {
        let labels = settings.var("BUILDX_GIT_LABELS");
        Self {
            info: has_provenance && settings.flag("BUILDX_GIT_INFO") != Some(false),
            labels: labels.as_deref() == Some("full") || settings.flag("BUILDX_GIT_LABELS") == Some(true),
            check_dirty: settings.flag("BUILDX_GIT_CHECK_DIRTY") == Some(true),
        }
    }
}

/// Attributes for a context folder; empty outside of a repository.
pub fn attributes(
    wanted: Wanted,
    context: &Path,
    dockerfile: &str,
    locals: &BTreeMap<String, PathBuf>,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if !wanted.info && !wanted.labels {
        return found;
    }
    let Some(root) = git(context, &["rev-parse", "--show-toplevel"]) else { return found };
    let root = PathBuf::from(root);
    let mut add = |info: &str, label: &str, value: &str| {
        if wanted.info {
            found.insert(format!("vcs:{info}"), value.to_owned());
        }
        if wanted.labels {
            found.insert(format!("label:org.opencontainers.image.{label}"), value.to_owned());
        }
    };
    if let Some(mut commit) = git(context, &["rev-parse", "--verify", "HEAD"]) {
        if wanted.check_dirty && git(context, &["status", "--porcelain", "--ignored"]).is_some() {
            commit.push_str("-dirty");
        }
        add("revision", "revision", &commit);
    }
    if let Some(url) = git(context, &["remote", "get-url", "origin"]) {
        add("source", "source", &without_password(&url));
    }
    if wanted.labels {
        let file = if dockerfile.is_empty() { context.join("Dockerfile") } else { PathBuf::from(dockerfile) };
        if let Some(place) = place_within(&root, &file) {
            found.insert("label:com.docker.image.source.entrypoint".to_owned(), place);
        }
    }
    if wanted.info {
        for (name, dir) in locals {
            if let Some(place) = place_within(&root, dir) {
                found.insert(format!("vcs:localdir:{name}"), place);
            }
        }
    }
    found
}

/// One line of git's, where it succeeds and says something.
fn git(dir: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        // Nothing that a repository's own configuration names is to be run.
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// A password in an address must not end in a provenance.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    match authority.rsplit_once('@') {
        Some((user, host)) if user.contains(':') || scheme.starts_with("http") => {
            format!("{scheme}://xxxxx:xxxxx@{host}/{path}")
        }
        _ => url.to_owned(),
    }
}

fn place_within(root: &Path, path: &Path) -> Option<String> {
    let (root, path) = (std::fs::canonicalize(root).ok()?, std::fs::canonicalize(path).ok()?);
    let place = path.strip_prefix(root).ok()?.to_str()?;
    Some(if place.is_empty() { ".".to_owned() } else { place.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    #[test]
    fn nothing_is_asked_without_need() {
        assert!(!Wanted::of(&settings(&[]), false).info);
        assert!(Wanted::of(&settings(&[]), true).info);
        assert!(!Wanted::of(&settings(&[("BUILDX_GIT_INFO", "0")]), true).info);
        assert!(Wanted::of(&settings(&[("BUILDX_GIT_LABELS", "full")]), false).labels);
    }

    #[test]
    fn passwords_are_hidden() {
        assert_eq!(without_password("https://me:pw@x.test/a.git"), "https://xxxxx:xxxxx@x.test/a.git");
        assert_eq!(without_password("https://token@x.test/a"), "https://xxxxx:xxxxx@x.test/a");
        assert_eq!(without_password("git@x.test:a/b"), "git@x.test:a/b");
        assert_eq!(without_password("ssh://git@x.test/a"), "ssh://git@x.test/a");
    }

    #[test]
    fn a_repository_is_described() {
        let dir = tempfile::tempdir().unwrap();
        let run = |arguments: &[&str]| {
            let base = ["-c", "user.name=n", "-c", "user.email=e@x.test", "-c", "init.defaultBranch=m"];
            let done =
                Command::new("git").current_dir(dir.path()).args(base).args(arguments).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/Dockerfile"), "FROM scratch\n").unwrap();
        run(&["init", "-q"]);
        run(&["add", "."]);
        run(&["commit", "-q", "-m", "x"]);
        run(&["remote", "add", "origin", "https://u:p@x.test/r.git"]);
        let wanted = Wanted { info: true, labels: true, check_dirty: true };
        let context = dir.path().join("sub");
        let locals = BTreeMap::from([("context".to_owned(), context.clone())]);
        let found = attributes(wanted, &context, "", &locals);
        assert_eq!(found["vcs:revision"].len(), 40);
        assert_eq!(found["vcs:source"], "https://xxxxx:xxxxx@x.test/r.git");
        assert_eq!(found["vcs:localdir:context"], "sub");
        assert_eq!(found["label:com.docker.image.source.entrypoint"], "sub/Dockerfile");
        std::fs::write(dir.path().join("new"), "").unwrap();
        assert!(attributes(wanted, &context, "", &locals)["vcs:revision"].ends_with("-dirty"));
        let outside = tempfile::tempdir().unwrap();
        assert!(attributes(wanted, outside.path(), "", &locals).is_empty());
    }
}
