//! Where the programs under test and their helpers are.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder that holds the built programs, such as `target/debug`: the tests themselves run from its `deps/`.
fn bin_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let deps = test.parent().expect("a test lies in a folder");
    if deps.ends_with("deps") {
        deps.parent().expect("deps lies in the profile's folder").to_path_buf()
    } else {
        deps.to_path_buf()
    }
}

/// The workspace's target folder, for things that are made once and kept between runs.
pub fn target_folder() -> PathBuf {
    bin_folder().parent().expect("the profile's folder lies in the target folder").to_path_buf()
}

/// One of Kiln's own programs (`kiln`, `kilnd`).
///
/// # Panics
/// When it has not been built: `cargo test` of one package does not build the programs of another.
pub fn kiln_binary(name: &str) -> PathBuf {
    let path = bin_folder().join(name);
    assert!(path.exists(), "{} is not built: run `cargo build` first (`make test` does)", path.display());
    path
}

/// Whether a program is on PATH.
pub fn have(name: &str) -> bool {
    find(name).is_some()
}

/// A program from PATH, by name.
///
/// # Panics
/// When it is not installed, naming the command that installs it.
pub fn program(name: &str) -> Command {
    let path = find(name)
        .unwrap_or_else(|| panic!("`{name}` is not installed: `make setup` installs what the tests need"));
    Command::new(path)
}

fn find(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| is_file(path))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file())
}
