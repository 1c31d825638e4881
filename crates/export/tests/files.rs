//! Results as files: folders and archives of the client.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use kiln_export::provenance::{BuildFacts, Capture, Provenance, ProvenanceOptions, Request};
use kiln_store::{CommitInfo, LayerMeta, Ref};
use support::{Receives, World, multi, single, text_map, world};

/// All paths below a folder with what is in them.
fn listing(folder: &Path) -> BTreeMap<String, String> {
    fn walk(root: &Path, folder: &Path, all: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                walk(root, &path, all);
            } else if meta.is_symlink() {
                all.insert(name, format!("-> {}", std::fs::read_link(&path).unwrap().display()));
            } else {
                all.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(folder, folder, &mut all);
    all
}

/// Two layers, the upper one of which replaces and links.
fn result(world: &World) -> Ref {
    let base = world.layer(&Ref::scratch(), "base", &[("a", "old"), ("dir/b", "b")]);
    let layer = world.store.new_layer(&base, LayerMeta::regular("top")).unwrap();
    support::write_files(layer.dir(), &[("a", "new"), ("bin/tool", "#!")]);
    std::fs::set_permissions(layer.dir().join("bin/tool"), PermissionsExt::from_mode(0o755)).unwrap();
    symlink("/etc/passwd", layer.dir().join("bin/link")).unwrap();
    layer.commit(CommitInfo::default()).unwrap()
}

#[tokio::test]
async fn into_a_folder() {
    let world = world(Receives::Folder { delete: false }).await;
    std::fs::create_dir(world.out()).unwrap();
    std::fs::write(world.out().join("mine"), "stays").unwrap();
    let source = single(&result(&world));
    world.export("local", &source, &[("source-date-epoch", "1000")]).await.unwrap();
    let expected = text_map(&[
        ("a", "new"),
        ("bin/link", "-> /etc/passwd"),
        ("bin/tool", "#!"),
        ("dir/b", "b"),
        ("mine", "stays"),
    ]);
    assert_eq!(listing(&world.out()), expected);
    let tool = world.out().join("bin/tool").metadata().unwrap();
    assert_eq!((tool.mode() & 0o7777, tool.mtime()), (0o755, 1000));
    assert_eq!(*world.told.0.lock().unwrap(), ["copying files"]);
}

#[tokio::test]
async fn nothing_else_stays() {
    let world = world(Receives::Folder { delete: true }).await;
    std::fs::create_dir(world.out()).unwrap();
    std::fs::write(world.out().join("mine"), "goes").unwrap();
    let other = world.layer(&Ref::scratch(), "other", &[("x/y", "z")]);
    let source = multi(&[("amd64", &result(&world)), ("arm64", &other)]);
    world.export("local", &source, &[("mode", "delete")]).await.unwrap();
    let expected = text_map(&[
        ("linux_amd64/a", "new"),
        ("linux_amd64/bin/link", "-> /etc/passwd"),
        ("linux_amd64/bin/tool", "#!"),
        ("linux_amd64/dir/b", "b"),
        ("linux_arm64/x/y", "z"),
    ]);
    assert_eq!(listing(&world.out()), expected);
}

#[tokio::test]
async fn platforms_side_by_side() {
    let world = world(Receives::Folder { delete: false }).await;
    let one = world.layer(&Ref::scratch(), "one", &[("dir/one", "1")]);
    let two = world.layer(&Ref::scratch(), "two", &[("dir/two", "2")]);
    let source = multi(&[("amd64", &one), ("arm64", &two)]);
    world.export("local", &source, &[]).await.unwrap();
    let split = text_map(&[("linux_amd64/dir/one", "1"), ("linux_arm64/dir/two", "2")]);
    assert_eq!(listing(&world.out()), split);
    // Into one folder, as long as nothing is there twice.
    std::fs::remove_dir_all(world.out()).unwrap();
    world.export("local", &source, &[("platform-split", "false")]).await.unwrap();
    assert_eq!(listing(&world.out()), text_map(&[("dir/one", "1"), ("dir/two", "2")]));
    let twice = multi(&[("amd64", &one), ("arm64", &one)]);
    let error = world.export("local", &twice, &[("platform-split", "false")]).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "cannot overwrite dir/one from linux/amd64 with linux/arm64 when split option is disabled"
    );
    for (attrs, message) in [
        (&[("mode", "x")], r#"invalid local exporter mode "x""#),
        (
            &[("platform-split", "x")],
            r#"non-bool value for platform-split: x: strconv.ParseBool: parsing "x": invalid syntax"#,
        ),
    ] {
        assert_eq!(world.export("local", &source, attrs).await.err().unwrap().to_string(), message);
    }
}

#[tokio::test]
async fn attestations_beside_files() {
    let world = world(Receives::Folder { delete: false }).await;
    let mut source = single(&world.layer(&Ref::scratch(), "one", &[("file", "1"), ("zz", "2")]));
    for inline_only in ["true", "false"] {
        let options = ProvenanceOptions::parse(&text_map(&[("inline-only", inline_only)])).unwrap();
        let made =
            Provenance::new(options.clone(), &Request::default(), Capture::new(), BuildFacts::default());
        let platform = source.platforms().unwrap().platforms[0].id.clone();
        source.add_provenance(&platform, &options, Arc::new(made.unwrap()));
        world.export("local", &source, &[("attestation-prefix", "p.")]).await.unwrap();
        let files = listing(&world.out());
        assert_eq!(files.contains_key("p.provenance.json"), inline_only == "false");
        if let Some(text) = files.get("p.provenance.json") {
            let statement: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(statement["subject"][0]["name"], "file");
            assert_eq!(statement["subject"].as_array().unwrap().len(), 2);
        }
    }
}

#[tokio::test]
async fn into_an_archive() {
    let world = world(Receives::File).await;
    let source = single(&result(&world));
    world.export("tar", &source, &[]).await.unwrap();
    let listed = Command::new("tar").arg("-tf").arg(world.out()).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(names.lines().collect::<Vec<_>>(), ["a", "bin/", "bin/link", "bin/tool", "dir/", "dir/b"]);
    let content = Command::new("tar").arg("-xOf").arg(world.out()).arg("a").output().unwrap();
    assert_eq!(content.stdout, b"new");
    let source = multi(&[("amd64", &result(&world)), ("arm64", &Ref::scratch())]);
    world.export("tar", &source, &[]).await.unwrap();
    let listed = Command::new("tar").arg("-tf").arg(world.out()).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    assert!(
        names.starts_with("linux_amd64/\nlinux_amd64/a\n") && names.ends_with("linux_arm64/\n"),
        "{names}"
    );
    assert!(world.told.0.lock().unwrap().contains(&"sending tarball".to_owned()));
}
