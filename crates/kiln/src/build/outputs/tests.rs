use super::*;
use crate::build::options::tests::parse;
use crate::settings::tests::settings;

const EMBEDDED: Surroundings =
    Surroundings { embedded: true, engine: EngineState::Absent, stdout_is_terminal: false };
const REMOTE: Surroundings = Surroundings { embedded: false, ..EMBEDDED };
const ENGINE: Surroundings = Surroundings { engine: EngineState::Present { takes_oci: false }, ..EMBEDDED };
const NEW_ENGINE: Surroundings =
    Surroundings { engine: EngineState::Present { takes_oci: true }, ..EMBEDDED };

fn apply(arguments: &[&str], around: Surroundings) -> Result<(Vec<Export>, Option<String>)> {
    let line: Vec<&str> = arguments.iter().copied().chain(["."]).collect();
    exports(&parse(&line, &[]).unwrap(), &settings(&[]), around)
}

/// `kind {attrs} target` of each.
fn shown(arguments: &[&str], around: Surroundings) -> Vec<String> {
    let (found, _) = apply(arguments, around).unwrap();
    found.iter().map(|export| format!("{} {:?} {:?}", export.kind, export.attrs, export.target)).collect()
}

#[test]
fn a_named_image_is_kept_by_the_embedded_daemon() {
    assert_eq!(shown(&["-t", "a", "-t", "b:1"], EMBEDDED), [r#"image {"name": "a,b:1"} Nowhere"#]);
    let (found, warning) = apply(&["-t", "a"], REMOTE).unwrap();
    assert!(found.is_empty() && warning.unwrap().contains("remote driver"));
    let (found, warning) = apply(&[], EMBEDDED).unwrap();
    assert!(found.is_empty() && warning.is_some());
    assert_eq!(shown(&["-q"], EMBEDDED), ["image {} Nowhere"]);
    assert_eq!(apply(&["--call=check", "-t", "a"], EMBEDDED).unwrap(), (vec![], None));
}

#[test]
fn push_is_an_image_that_leaves() {
    let pushed = r#"image {"name": "a", "push": "true", "unpack": "false"} Nowhere"#;
    assert_eq!(shown(&["--push", "-t", "a"], REMOTE), [pushed]);
    assert_eq!(shown(&["-o", "type=registry", "-t", "a"], REMOTE), [pushed]);
    assert_eq!(shown(&["-o", "type=image", "--push", "-t", "a"], REMOTE), [pushed]);
    assert!(apply(&["--push"], REMOTE).unwrap_err().to_string().contains("tag is needed"));
    assert!(apply(&["--push", "-t", "A B"], REMOTE).unwrap_err().to_string().contains("invalid tag"));
}

#[test]
fn load_goes_where_images_are() {
    assert_eq!(shown(&["--load", "-t", "a"], EMBEDDED), [r#"image {"name": "a"} Nowhere"#]);
    assert_eq!(shown(&["--load", "-t", "a"], ENGINE), [r#"docker {"name": "a"} Engine"#]);
    assert_eq!(
        shown(&["--load", "-t", "a"], NEW_ENGINE),
        [r#"oci {"name": "a", "prefer-image-digest": "true"} Engine"#]
    );
    assert_eq!(shown(&["-o", "type=docker", "-t", "a"], REMOTE), [r#"oci {"name": "a"} Store"#]);
    let two = ["--load", "--platform", "linux/amd64,linux/arm64"];
    assert!(apply(&two, ENGINE).is_err());
    assert!(apply(&two, EMBEDDED).is_ok());
    assert!(apply(&two, NEW_ENGINE).is_ok());
}

#[test]
fn files_and_folders() {
    assert_eq!(shown(&["-o", "out"], REMOTE), [r#"local {} Folder { path: "out", delete: false }"#]);
    assert_eq!(shown(&["-o", "-"], REMOTE), ["tar {} Stdout"]);
    assert_eq!(
        shown(&["-o", "type=oci,dest=x.tar", "-t", "a"], REMOTE),
        [r#"oci {"name": "a"} File("x.tar")"#]
    );
    assert_eq!(shown(&["-o", "type=oci,tar=false,dest=x"], REMOTE), [r#"oci {"tar": "false"} Layout("x")"#]);
    assert_eq!(shown(&["-o", "type=docker,dest=x.tar"], ENGINE), [r#"docker {} File("x.tar")"#]);
    assert_eq!(shown(&["-o", "type=cacheonly"], REMOTE), [] as [&str; 0]);
}

#[test]
fn annotations_are_for_every_output() {
    let found = shown(&["--annotation", "k=v", "-o", "type=oci,dest=x", "-o", "type=image,name=a"], REMOTE);
    assert!(found.iter().all(|export| export.contains(r#""annotation.k": "v""#)), "{found:?}");
}

#[test]
fn what_cannot_be_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let terminal = Surroundings { stdout_is_terminal: true, ..REMOTE };
    let cases: [(Vec<String>, Surroundings, &str); 8] = [
        (vec!["type=local".into()], REMOTE, "dest is required"),
        (vec!["type=local,dest=-".into()], REMOTE, "cannot be stdout"),
        (vec![format!("type=local,dest={}", file.display())], REMOTE, "is a file"),
        (vec![format!("type=tar,dest={folder}")], REMOTE, "is a directory"),
        (vec!["type=oci".into(), "type=tar".into()], REMOTE, "multiple outputs"),
        (vec!["type=oci".into()], terminal, "refusing to write to console"),
        (vec!["type=image,dest=x".into()], REMOTE, "has no dest"),
        (vec![format!("type=local,dest={folder},mode=delete")], REMOTE, "requires --allow"),
    ];
    for (outputs, around, expected) in cases {
        let line: Vec<&str> = outputs.iter().flat_map(|output| ["-o", output.as_str()]).collect();
        let error = apply(&line, around).unwrap_err().to_string();
        assert!(error.contains(expected), "{outputs:?}: {error}");
    }
    assert!(apply(&["-o", "type=local,dest=sub/new,mode=delete"], REMOTE).is_ok());
    assert!(apply(&["-o", "type=local,dest=../x,mode=delete"], REMOTE).is_err());
    assert!(apply(&["-o", "type=local,dest=new/../..,mode=delete"], REMOTE).is_err());
    assert!(apply(&["-o", "type=local,dest=x,mode=wipe"], REMOTE).is_err());
}
