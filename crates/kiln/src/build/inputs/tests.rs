use std::io::Cursor;

use super::*;
use crate::build::options::tests::parse;
use crate::settings::tests::settings;

fn find(arguments: &[&str], stdin: &'static [u8], home: &Path) -> Result<Inputs> {
    let home = home.to_str().unwrap();
    let options = parse(arguments, &[]).unwrap();
    inputs(&options, &settings(&[("HOME", home)]), || Box::new(Cursor::new(stdin)))
}

fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("Dockerfile"), "FROM scratch\n").unwrap();
    dir
}

#[test]
fn a_folder_is_context_and_has_the_dockerfile() {
    let dir = folder();
    let path = dir.path().to_str().unwrap();
    let found = find(&[path], b"", dir.path()).unwrap();
    assert_eq!(found.locals["context"], found.locals["dockerfile"]);
    assert_eq!(found.attrs, BTreeMap::from([("filename".to_owned(), "Dockerfile".to_owned())]));
    let again = find(&[path], b"", dir.path()).unwrap();
    assert_eq!(found.shared_key, again.shared_key);
    assert_eq!(found.shared_key.split(':').count(), 3);
}

#[test]
fn the_dockerfile_may_be_elsewhere() {
    let (dir, other) = (folder(), folder());
    std::fs::rename(other.path().join("Dockerfile"), other.path().join("x.Dockerfile")).unwrap();
    let file = other.path().join("x.Dockerfile");
    let found = find(&["-f", file.to_str().unwrap(), dir.path().to_str().unwrap()], b"", dir.path()).unwrap();
    assert_eq!(found.locals["dockerfile"], other.path());
    assert_eq!(found.attrs["filename"], "x.Dockerfile");
}

#[test]
fn a_lower_case_name_will_do() {
    let dir = folder();
    std::fs::rename(dir.path().join("Dockerfile"), dir.path().join("dockerfile")).unwrap();
    let found = find(&[dir.path().to_str().unwrap()], b"", dir.path()).unwrap();
    assert_eq!(found.attrs["filename"], "dockerfile");
}

#[test]
fn standard_input_is_dockerfile_or_context() {
    let dir = folder();
    let found = find(&["-"], b"FROM scratch\n", dir.path()).unwrap();
    assert_eq!(std::fs::read_dir(&found.locals["context"]).unwrap().count(), 0);
    assert_eq!(std::fs::read(found.locals["dockerfile"].join("Dockerfile")).unwrap(), b"FROM scratch\n");
    assert_eq!(
        (found.attrs["dockerfilekey"].as_str(), found.dockerfile_shown.as_str()),
        ("dockerfile", "stdin")
    );

    let found = find(&["-"], &[0x1f, 0x8b, 0x08, 0, 1, 2], dir.path()).unwrap();
    let mut body = Vec::new();
    found.upload.unwrap().read_to_end(&mut body).unwrap();
    assert_eq!(body, [0x1f, 0x8b, 0x08, 0, 1, 2]);
    assert!(found.locals.is_empty());

    let found = find(&["-f", "-", dir.path().to_str().unwrap()], b"FROM y\n", dir.path()).unwrap();
    assert_ne!(found.locals["context"], found.locals["dockerfile"]);
    assert_eq!(std::fs::read(found.locals["dockerfile"].join("Dockerfile")).unwrap(), b"FROM y\n");
}

#[test]
fn a_dockerfile_may_come_later() {
    let dir = folder();
    let mut found = find(&["-f", "https://x.test/D", dir.path().to_str().unwrap()], b"", dir.path()).unwrap();
    assert_eq!(found.dockerfile_url.as_deref(), Some("https://x.test/D"));
    assert!(!found.locals.contains_key("dockerfile"));
    found.keep_dockerfile(b"FROM z\n", &settings(&[])).unwrap();
    assert_eq!(std::fs::read(found.locals["dockerfile"].join("Dockerfile")).unwrap(), b"FROM z\n");
    assert_eq!(found.attrs["filename"], "Dockerfile");
}

#[test]
fn remote_contexts_go_to_the_daemon() {
    let dir = folder();
    let found = find(&["-f", "sub/Dockerfile", "https://x.test/r.git?ref=v1"], b"", dir.path()).unwrap();
    let expected = [
        ("context", "https://x.test/r.git?ref=v1"),
        ("filename", "sub/Dockerfile"),
        ("frontend.caps", "moby.buildkit.frontend.gitquerystring"),
    ];
    assert_eq!(found.attrs, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert!(found.locals.is_empty());
}

#[test]
fn named_contexts_have_their_places() {
    let dir = folder();
    let path = dir.path().to_str().unwrap();
    let local = format!("sub={path}");
    let line = ["--build-context", &local, "--build-context", "base=docker-image://alpine", path];
    let found = find(&line, b"", dir.path()).unwrap();
    assert_eq!(found.attrs["context:sub"], "local:sub");
    assert_eq!(found.attrs["context:base"], "docker-image://alpine");
    assert_eq!(found.attrs["frontend.caps"], "moby.buildkit.frontend.contexts+forward");
    assert!(found.attrs.contains_key("sharedkey:localdir:sub"));
    assert_eq!(found.locals["sub"], dir.path());
    assert!(find(&["--build-context", "a=/nonexistent", path], b"", dir.path()).is_err());
}

#[test]
fn what_cannot_be_is_told() {
    let dir = folder();
    let path = dir.path().to_str().unwrap();
    let file = dir.path().join("Dockerfile");
    let cases: [(&[&str], &str); 6] = [
        (&["/nonexistent"], "not found"),
        (&[file.to_str().unwrap()], "is not a directory"),
        (&["-f", "/nonexistent/Dockerfile", path], "no such file"),
        (&["-f", path, path], "is a directory"),
        (&["-f", "-", "-"], "both build context and dockerfile"),
        (&["-"], "nothing came"),
    ];
    for (line, expected) in cases {
        let error = find(line, b"", dir.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{line:?}: {error}");
    }
    std::fs::write(dir.path().join("Dockerfile.rego"), "x").unwrap();
    assert!(find(&[path], b"", dir.path()).unwrap_err().to_string().contains("source policy"));
}
