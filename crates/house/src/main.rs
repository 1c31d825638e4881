//! `kiln-house`: holds the source tree to its own rules.
//!
//! Run from anywhere in the workspace: `cargo run -q -p kiln-house`. Prints each finding on a line of its own and ends with
//! exit code 1 when there is one. The rules are data (`docs/layers.toml`) or short functions here; nothing is fixed in place.
#![forbid(unsafe_code)]

mod documents;
mod foreign;
mod layers;
mod licences;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let root = match workspace_root() {
        Ok(root) => root,
        Err(error) => {
            eprintln!("kiln-house: {error}");
            return ExitCode::from(2);
        }
    };
    let checks: [(&str, fn(&Path) -> Result<Vec<String>, String>); 4] = [
        ("layers", layers::check),
        ("licences", licences::check),
        ("foreign text", foreign::check),
        ("documents", documents::check),
    ];
    let mut findings = 0;
    for (name, check) in checks {
        match check(&root) {
            Ok(found) => {
                findings += found.len();
                for finding in &found {
                    println!("{name}: {finding}");
                }
                if found.is_empty() {
                    println!("{name}: in order");
                }
            }
            Err(error) => {
                findings += 1;
                println!("{name}: could not be checked: {error}");
            }
        }
    }
    if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn workspace_root() -> Result<PathBuf, String> {
    let text = output(Command::new(env!("CARGO")).args([
        "locate-project",
        "--workspace",
        "--message-format",
        "plain",
    ]))?;
    let manifest = PathBuf::from(text.trim());
    manifest
        .parent()
        .map(Path::to_path_buf)
        .ok_or_else(|| format!("no parent folder of {}", manifest.display()))
}

/// Runs a program and gives what it printed; a failure carries what it said on standard error.
fn output(command: &mut Command) -> Result<String, String> {
    let done = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !done.status.success() {
        return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&done.stderr).trim()));
    }
    String::from_utf8(done.stdout).map_err(|error| format!("{command:?}: {error}"))
}

/// The files git tracks, as paths below the root.
fn tracked_files(root: &Path) -> Result<Vec<String>, String> {
    let text = output(Command::new("git").current_dir(root).args(["ls-files", "-z"]))?;
    Ok(text.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}
