//! The Dockerfile on this machine.

use std::path::Path;

use crate::error::{Error, Result};

/// `dockerfile`, where that is there and `Dockerfile` is not.
pub fn actual_name(dir: &Path, name: &str) -> String {
    if name != "Dockerfile" {
        return name.to_owned();
    }
    let Ok(entries) = std::fs::read_dir(dir) else { return name.to_owned() };
    let mut lower = false;
    for entry in entries.flatten() {
        if entry.file_name() == name {
            return name.to_owned();
        }
        lower |= entry.file_name() == "dockerfile";
    }
    if lower { "dockerfile".to_owned() } else { name.to_owned() }
}

/// Says at once what the daemon would find out later.
pub fn check(dir: &Path, name: &str, shown: &str) -> Result<()> {
    let path = dir.join(name);
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => {
            return Err(Error::user(format!("failed to read dockerfile: {shown} is a directory")));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::user(format!(
                "failed to read dockerfile: open {shown}: no such file or directory"
            ))
            .hint("name it with --file, which is relative to the current directory"));
        }
        Err(error) => {
            return Err(Error::user(format!("failed to read dockerfile: open {shown}")).because(error));
        }
    }
    let policy = dir.join(format!("{name}.rego"));
    if policy.exists() {
        return Err(Error::not_yet(format!("the source policy `{}`", policy.display()))
            .hint("move the file away to build without it"));
    }
    Ok(())
}
