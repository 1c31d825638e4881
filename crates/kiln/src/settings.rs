//! What the environment says. The only place of this program that reads it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_progress::Colors;

use crate::docker::GlobalFlags;
use crate::flags;

/// Variables by name; a test passes a map.
pub trait Environment: Send + Sync {
    /// A variable's value, where it is set and is text.
    fn var(&self, name: &str) -> Option<String>;
}

/// The process's own variables.
#[derive(Debug)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl Environment for BTreeMap<String, String> {
    fn var(&self, name: &str) -> Option<String> {
        self.get(name).cloned()
    }
}

/// Settings from the environment and from the Docker CLI's global flags. Each is read when it is asked for.
pub struct Settings {
    environment: Box<dyn Environment>,
    docker: GlobalFlags,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("docker", &self.docker).finish_non_exhaustive()
    }
}

impl Settings {
    /// Settings from these variables.
    pub fn new(environment: impl Environment + 'static, docker: GlobalFlags) -> Self {
        Self { environment: Box::new(environment), docker }
    }

    /// A variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<String> {
        self.environment.var(name).filter(|value| !value.is_empty())
    }

    /// A variable that is set, empty or not: for build arguments and secrets that the user names.
    pub fn raw_var(&self, name: &str) -> Option<String> {
        self.environment.var(name)
    }

    /// A variable that holds a truth value.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.var(name).and_then(|value| flags::boolean(&value))
    }

    /// The Docker CLI's global flags.
    pub fn docker(&self) -> &GlobalFlags {
        &self.docker
    }

    /// The home folder.
    pub fn home(&self) -> Option<PathBuf> {
        self.var("HOME").map(PathBuf::from)
    }

    /// Where `config.json` of the Docker CLI is.
    pub fn docker_config_dir(&self) -> Option<PathBuf> {
        let given = self.docker.config.clone().or_else(|| self.var("DOCKER_CONFIG").map(PathBuf::from));
        given.or_else(|| Some(self.home()?.join(".docker")))
    }

    /// Where Buildx keeps its builders.
    pub fn buildx_config_dir(&self) -> Option<PathBuf> {
        self.var("BUILDX_CONFIG")
            .map(PathBuf::from)
            .or_else(|| Some(self.docker_config_dir()?.join("buildx")))
    }

    /// The Docker Engine's address, where one is given.
    pub fn docker_host(&self) -> Option<String> {
        self.docker.host.clone().or_else(|| self.var("DOCKER_HOST"))
    }

    /// The Docker context, where one is chosen outside of the configuration.
    pub fn docker_context(&self) -> Option<String> {
        self.docker.context.clone().or_else(|| self.var("DOCKER_CONTEXT"))
    }

    /// Where Kiln keeps state: `$KILN_ROOT`, else `kiln` below the XDG data folder.
    pub fn state_dir(&self) -> Option<PathBuf> {
        let given = self.var("KILN_ROOT").map(PathBuf::from);
        let data = || self.var("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || Some(self.home()?.join(".local/share"));
        given.or_else(|| Some(data().or_else(home)?.join("kiln")))
    }

    /// Where short-lived files go.
    pub fn temporary_dir(&self) -> PathBuf {
        self.var("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
    }

    /// Folders to try for sockets, best first; each belongs to this user alone or is made so.
    pub fn runtime_dirs(&self, uid: u32) -> Vec<PathBuf> {
        let given = self.var("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let system = PathBuf::from(format!("/run/user/{uid}"));
        let state = self.state_dir().map(|state| state.join("run"));
        given.into_iter().chain(Some(system)).map(|dir| dir.join("kiln")).chain(state).collect()
    }

    /// The daemon's program: `$KILN_KILND`, else beside this one, else on the path.
    pub fn daemon_candidates(&self, own_program: Option<&Path>) -> Vec<PathBuf> {
        if let Some(given) = self.var("KILN_KILND") {
            return vec![PathBuf::from(given)];
        }
        let beside = own_program.and_then(Path::parent).map(|dir| dir.join("kilnd"));
        let path = self.var("PATH").unwrap_or_default();
        let on_path =
            std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join("kilnd"));
        beside.into_iter().chain(on_path).collect()
    }

    /// How long an idle embedded daemon stays, as the daemon's own flag takes it (`KILN_IDLE_TIMEOUT`).
    pub fn idle_timeout(&self) -> String {
        self.var("KILN_IDLE_TIMEOUT").unwrap_or_else(|| "10m".to_owned())
    }

    /// Colours of a live display.
    pub fn colors(&self) -> (Colors, Vec<String>) {
        if self.var("NO_COLOR").is_some() {
            return (Colors::none(), Vec::new());
        }
        Colors::parse(self.var("BUILDKIT_COLORS").as_deref())
    }

    /// Rows of output below a running step.
    pub fn log_lines(&self) -> usize {
        let given = self.var("BUILDKIT_TTY_LOG_LINES").and_then(|text| text.parse().ok());
        given.filter(|lines| *lines > 0).unwrap_or(kiln_progress::display::LOG_LINES)
    }

    /// Nanoseconds between two drawings.
    pub fn redraw_nanos(&self) -> i64 {
        let given = self.var("TTY_DISPLAY_RATE").and_then(|text| text.parse::<i64>().ok());
        given
            .filter(|ms| (1..60_000).contains(ms))
            .map_or(kiln_progress::display::REDRAW_NANOS, |ms| ms * 1_000_000)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Settings from a list of variables.
    pub fn settings(variables: &[(&str, &str)]) -> Settings {
        let map: BTreeMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::new(map, GlobalFlags::default())
    }

    #[test]
    fn folders_follow_xdg() {
        let found = settings(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")]);
        assert_eq!(found.state_dir(), Some("/h/.local/share/kiln".into()));
        let dirs = ["/r/kiln", "/run/user/7/kiln", "/h/.local/share/kiln/run"].map(PathBuf::from);
        assert_eq!(found.runtime_dirs(7), dirs);
        let found = settings(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d"), ("XDG_RUNTIME_DIR", "relative")]);
        assert_eq!(found.state_dir(), Some("/d/kiln".into()));
        assert_eq!(found.runtime_dirs(0)[0], PathBuf::from("/run/user/0/kiln"));
        assert_eq!(settings(&[]).state_dir(), None);
        assert_eq!(settings(&[("KILN_ROOT", "/k")]).state_dir(), Some("/k".into()));
    }

    #[test]
    fn docker_flags_win_over_variables() {
        let map = BTreeMap::from([("DOCKER_HOST".to_owned(), "unix:///env".to_owned())]);
        let flags = GlobalFlags { host: Some("unix:///flag".into()), ..GlobalFlags::default() };
        assert_eq!(Settings::new(map, flags).docker_host().as_deref(), Some("unix:///flag"));
    }

    #[test]
    fn wrong_numbers_fall_back() {
        let found =
            settings(&[("BUILDKIT_TTY_LOG_LINES", "0"), ("TTY_DISPLAY_RATE", "x"), ("NO_COLOR", "1")]);
        assert_eq!((found.log_lines(), found.redraw_nanos()), (6, 100_000_000));
        assert_eq!(found.colors().0, Colors::none());
    }
}
