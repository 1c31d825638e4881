//! Contexts that the daemon fetches itself.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::settings::Settings;

/// Hosts whose bare addresses (`github.com/user/repo`) mean git.
const BARE_GIT_HOST: &str = "github.com/";

/// Whether the daemon fetches this: a git repository, or a file over http.
pub fn is_remote(place: &str) -> bool {
    is_http(place) || is_git(place)
}

/// Whether it is a git repository that is reached over ssh, for which the agent is lent.
pub fn is_git_ssh(place: &str) -> bool {
    place.starts_with("ssh://") || scp_host(place).is_some()
}

pub fn is_http(place: &str) -> bool {
    place.starts_with("http://") || place.starts_with("https://")
}

fn is_git(place: &str) -> bool {
    place.starts_with("git://")
        || place.starts_with("ssh://")
        || place.starts_with(BARE_GIT_HOST)
        || scp_host(place).is_some()
}

/// The host of `user@host:path`.
fn scp_host(place: &str) -> Option<&str> {
    if place.contains("://") {
        return None;
    }
    let (user, rest) = place.split_once('@')?;
    let (host, path) = rest.split_once(':')?;
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    (is_word(user) && is_word(host) && !path.is_empty()).then_some(host)
}

/// Asks the frontend for what it must understand of a git address with a query (`?ref=…&subdir=…`).
pub fn add_git_caps(place: &str, key: &str, settings: &Settings, caps: &mut BTreeSet<String>) -> Result<()> {
    let before_fragment = place.split('#').next().unwrap_or_default();
    let Some((base, query)) = before_fragment.split_once('?') else { return Ok(()) };
    if query.is_empty() || !(is_git(place) || base.ends_with(".git")) {
        return Ok(());
    }
    if settings.flag("BUILDX_SEND_GIT_QUERY_AS_INPUT") == Some(true) {
        return Err(Error::not_yet("BUILDX_SEND_GIT_QUERY_AS_INPUT"));
    }
    let forward = if key == "context" { "" } else { "+forward" };
    caps.insert(format!("moby.buildkit.frontend.gitquerystring{forward}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_places_apart() {
        for place in [
            "https://x.test/a.git#main:sub",
            "git://x",
            "ssh://git@x/y",
            "git@x.test:a/b.git",
            "github.com/a/b",
        ] {
            assert!(is_remote(place), "{place}");
        }
        for place in ["dir", "./a@b:c", "../x", "/abs", "ftp://x", "a@b", "oci-layout://x@y:z"] {
            assert!(!is_remote(place), "{place}");
        }
        assert!(is_git_ssh("git@x.test:a") && is_git_ssh("ssh://x/y") && !is_git_ssh("https://x/y.git"));
    }
}
