//! The plugin protocol of the Docker CLI.
//!
//! As `~/.docker/cli-plugins/docker-buildx`, this program is first asked `docker-cli-plugin-metadata`, and then run as
//! `docker-buildx [global flags] buildx build …`. `docker build …` becomes that too.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};

/// The question that the Docker CLI asks each of its plugins.
pub const METADATA_COMMAND: &str = "docker-cli-plugin-metadata";
/// Set by the Docker CLI when it runs a plugin.
pub const ORIGINAL_CLI_VARIABLE: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";
/// Address of a socket that the Docker CLI closes when the plugin shall stop.
pub const SOCKET_VARIABLE: &str = "DOCKER_CLI_PLUGIN_SOCKET";
/// The plugin's name to the Docker CLI, after which the plugin's own arguments begin.
const NAME: &str = "buildx";

/// Flags that stand before the plugin's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobalFlags {
    /// `--config`: folder of the configuration.
    pub config: Option<PathBuf>,
    /// `-H`, `--host`: the engine's address.
    pub host: Option<String>,
    /// `-c`, `--context`: the Docker context.
    pub context: Option<String>,
    /// `-D`, `--debug`.
    pub debug: bool,
}

/// How this program was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Tell the Docker CLI what this plugin is.
    Metadata,
    /// Run as a plugin: `docker buildx …`.
    Plugin {
        /// What the Docker CLI was told.
        docker: GlobalFlags,
        /// The plugin's own arguments.
        arguments: Vec<String>,
    },
    /// Run by a person under our own name, or as `docker-buildx` without the Docker CLI.
    Standalone {
        /// All arguments but the program's name.
        arguments: Vec<String>,
    },
}

impl Invocation {
    /// Tells the three apart. `program` is `argv[0]`; `called_by_docker` is whether the Docker CLI says so.
    pub fn of(program: &str, arguments: Vec<String>, called_by_docker: bool) -> Result<Self> {
        if arguments.first().is_some_and(|first| first == METADATA_COMMAND) {
            return Ok(Invocation::Metadata);
        }
        let is_plugin = Path::new(program).file_name().is_some_and(|name| name == "docker-buildx");
        if !is_plugin || !called_by_docker {
            return Ok(Invocation::Standalone { arguments });
        }
        let (docker, arguments) = split_global_flags(arguments)?;
        Ok(Invocation::Plugin { docker, arguments })
    }
}

/// The answer to [`METADATA_COMMAND`].
pub fn metadata() -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Metadata {
        schema_version: &'static str,
        vendor: &'static str,
        version: &'static str,
        short_description: &'static str,
    }
    let metadata = Metadata {
        schema_version: "0.1.0",
        vendor: "Kiln",
        version: concat!("v", env!("CARGO_PKG_VERSION"), "-kiln"),
        short_description: "Build images with Kiln",
    };
    serde_json::to_string_pretty(&metadata).expect("only strings")
}

fn split_global_flags(arguments: Vec<String>) -> Result<(GlobalFlags, Vec<String>)> {
    let mut flags = GlobalFlags::default();
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        if argument == NAME {
            return Ok((flags, rest.collect()));
        }
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument.clone(), None),
        };
        let mut value = || {
            inline
                .clone()
                .or_else(|| rest.next())
                .ok_or_else(|| Error::user(format!("flag needs an argument: {name}")))
        };
        match name.as_str() {
            "--config" => flags.config = Some(PathBuf::from(value()?)),
            "-H" | "--host" => flags.host = Some(value()?),
            "-c" | "--context" => flags.context = Some(value()?),
            "-l" | "--log-level" => {
                let level = value()?;
                flags.debug |= level == "debug" || level == "trace";
            }
            // Certificates of the engine; they matter to who talks to an engine over TLS, which this program does not.
            "--tlscacert" | "--tlscert" | "--tlskey" => drop(value()?),
            "-D" | "--debug" => flags.debug = inline.as_deref() != Some("false"),
            "--tls" | "--tlsverify" => {}
            _ => return Err(Error::user(format!("unknown flag of docker: {argument}"))),
        }
    }
    Err(Error::user("called as a plugin of docker without a command"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(arguments: &[&str]) -> Vec<String> {
        arguments.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn tells_who_calls() {
        let metadata = list(&[METADATA_COMMAND]);
        assert_eq!(Invocation::of("kiln", metadata, false).unwrap(), Invocation::Metadata);
        let arguments = list(&["build", "."]);
        let standalone = Invocation::Standalone { arguments: arguments.clone() };
        assert_eq!(Invocation::of("/x/kiln", arguments.clone(), true).unwrap(), standalone);
        assert_eq!(Invocation::of("docker-buildx", arguments, false).unwrap(), standalone);
    }

    #[test]
    fn global_flags_stand_before_the_name() {
        let arguments =
            list(&["--config", "/c", "-H=unix:///s", "--tlscert", "x", "-D", "buildx", "build", "-D", "."]);
        let found = Invocation::of("/p/docker-buildx", arguments, true).unwrap();
        let docker = GlobalFlags {
            config: Some("/c".into()),
            host: Some("unix:///s".into()),
            context: None,
            debug: true,
        };
        assert_eq!(found, Invocation::Plugin { docker, arguments: list(&["build", "-D", "."]) });
        for wrong in [&["build"] as &[&str], &["--config"], &["--what", "buildx"]] {
            assert!(Invocation::of("docker-buildx", list(wrong), true).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn metadata_is_what_docker_reads() {
        let found: serde_json::Value = serde_json::from_str(&metadata()).unwrap();
        assert_eq!(found["SchemaVersion"], "0.1.0");
        assert!(found["Vendor"].as_str().is_some_and(|vendor| !vendor.is_empty()));
    }
}
