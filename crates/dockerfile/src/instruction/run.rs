//! `RUN`, and the command lines of `CMD` and `ENTRYPOINT`.

use super::InstructionError;
use super::device::{Device, parse_device};
use super::flags::{FlagKind, Flags};
use super::mount::check_mount;
use crate::error::Error;
use crate::parser::{Heredoc, Statement};

/// A command: either words, or one text for a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    pub words: Vec<String>,
    /// Heredocs of the text.
    pub files: Vec<Heredoc>,
    /// The shell runs it: it was not written as a JSON array.
    pub prepend_shell: bool,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: CommandLine,
    /// The values of `--mount`, each a record whose values may hold variables.
    pub mounts: Vec<String>,
    pub devices: Vec<Device>,
    pub network: Network,
    pub security: Security,
}

/// The value of `--network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Default,
    None,
    Host,
}

/// The value of `--security`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Sandbox,
    Insecure,
}

/// Words of a JSON array as they are; otherwise the text, if there is any.
pub(super) fn handle_json(words: &[String], json: bool) -> Vec<String> {
    if json || words.is_empty() { words.to_vec() } else { vec![words.join(" ")] }
}

pub(super) fn command_line(statement: &Statement, words: &[String], json: bool) -> CommandLine {
    CommandLine { words: handle_json(words, json), files: statement.heredocs.clone(), prepend_shell: !json }
}

pub(super) fn run(statement: &Statement, words: &[String], json: bool) -> Result<Run, Error> {
    let known = [
        ("device", FlagKind::Texts),
        ("mount", FlagKind::Texts),
        ("network", FlagKind::Text),
        ("security", FlagKind::Text),
    ];
    let flags = Flags::parse(&statement.flags, &known)?;
    let devices =
        flags.texts("device").iter().map(|device| parse_device(device)).collect::<Result<_, _>>()?;
    let mounts = flags.texts("mount");
    for mount in &mounts {
        check_mount(mount)?;
    }
    let network = match flags.text("network") {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => return Err(InstructionError::Network(other.to_owned()).into()),
    };
    let security = match flags.text("security") {
        None | Some("sandbox") => Security::Sandbox,
        Some("insecure") => Security::Insecure,
        Some(other) => return Err(InstructionError::Security(other.to_owned()).into()),
    };
    Ok(Run { command: command_line(statement, words, json), mounts, devices, network, security })
}
