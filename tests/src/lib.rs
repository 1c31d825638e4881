//! What several end to end tests share. The tests are in `tests/`, a file a subject.
#![forbid(unsafe_code)]

use std::path::Path;

use kiln_testkit::{Place, Registry, bases, program};

/// A place whose `FROM busybox` is answered by a registry of its own.
pub fn place_with_busybox() -> (Place, Registry) {
    let registry = Registry::start();
    bases::push(&bases::busybox(), &registry, "library/busybox:latest");
    let place = Place::new();
    place.use_mirror(&registry);
    (place, registry)
}

/// The names in a tar archive, as `tar` lists them.
pub fn tar_names(archive: &Path) -> Vec<String> {
    let output = program("tar").arg("-tf").arg(archive).output().expect("tar starts");
    assert!(output.status.success(), "{} is no tar archive", archive.display());
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// What a file holds, as text.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether some file beneath a folder holds these bytes.
pub fn holds(folder: &Path, needle: &str) -> Option<String> {
    let output = program("grep")
        .args(["-r", "-l", "-a", "-F", "--", needle])
        .arg(folder)
        .output()
        .expect("grep starts");
    let found = String::from_utf8_lossy(&output.stdout);
    found.lines().next().map(str::to_owned)
}
