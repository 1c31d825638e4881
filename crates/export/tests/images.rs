//! Images: kept, pushed and archived, with `skopeo` and `tar` as the second opinion.

mod support;

use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Arc;

use kiln_export::provenance::{BuildFacts, Capture, Provenance, ProvenanceOptions, Request};
use kiln_oci::{Descriptor, Image, Index, Manifest, media_type};
use kiln_store::Ref;
use kiln_testkit::{Registry, program};
use support::{Receives, World, multi, single, world};

fn run(name: &str, arguments: &[&str]) -> Output {
    let output = program(name).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Two layers.
fn result(world: &World) -> Ref {
    let base = world.layer(&Ref::scratch(), "base", &[("etc/os", "kiln\n")]);
    world.layer(&base, "COPY hello", &[("hello", "world\n"), ("dir/deep/file", "x")])
}

fn document<T: serde::de::DeserializeOwned>(world: &World, descriptor: &Descriptor) -> T {
    let bytes = world.store.content().read(&descriptor.digest, 1 << 20).unwrap();
    assert_eq!(bytes.len() as u64, descriptor.size);
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn keeps_an_image() {
    let world = world(Receives::Nothing).await;
    let source = single(&result(&world));
    let exported = world.export("image", &source, &[("name", "example.test/a/b,c:d")]).await.unwrap();
    let root = exported.descriptor.unwrap();
    let response = exported.response;
    assert_eq!(response["containerimage.digest"], root.digest.as_str());
    assert_eq!(response["image.name"], "example.test/a/b,c:d");
    let kept = world.store.images().get("example.test/a/b:latest").unwrap().unwrap();
    assert_eq!(kept.target, root);
    assert!(world.store.images().get("docker.io/library/c:d").unwrap().is_some());
    assert_eq!(root.platform.as_ref().unwrap().to_string(), "linux/amd64");

    let manifest: Manifest = document(&world, &root);
    assert_eq!(response["containerimage.config.digest"], manifest.config.digest.as_str());
    let config: Image = document(&world, &manifest.config);
    assert_eq!(config.rootfs.diff_ids.len(), 2);
    let history: Vec<_> = config.history.iter().map(|entry| entry.created_by.as_str()).collect();
    assert_eq!(history, ["base", "COPY hello"]);
    assert_eq!(config.config.env, ["A=b"]);

    // Another program reads the store as it is.
    let layout = world.store.content().layout().display().to_string();
    let seen = json(&run("skopeo", &["inspect", &format!("oci:{layout}:example.test/a/b:latest")]));
    assert_eq!(seen["Layers"].as_array().unwrap().len(), 2);
    assert_eq!(seen["Digest"], root.digest.as_str());
    let lines = world.told.0.lock().unwrap().clone();
    let starts = [
        "exporting layers",
        "exporting manifest sha256:",
        "exporting config sha256:",
        "naming to example.test/a/b",
        "naming to c:d",
    ];
    assert!(
        lines.len() == 5 && lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)),
        "{lines:?}"
    );
}

#[tokio::test]
async fn pushes_platforms_with_attestations() {
    let registry = Registry::start();
    let world = world(Receives::Nothing).await;
    let (amd, arm) = (result(&world), world.layer(&Ref::scratch(), "arm", &[("arm", "64")]));
    let mut source = multi(&[("amd64", &amd), ("arm64", &arm)]);
    let options = ProvenanceOptions::parse(&BTreeMap::new()).unwrap();
    let provenance =
        Provenance::new(options.clone(), &Request::default(), Capture::new(), BuildFacts::default()).unwrap();
    source.add_provenance("linux/arm64", &options, Arc::new(provenance));
    let name = registry.reference("team/app:1");
    let attrs = [
        ("name", name.as_str()),
        ("push", "true"),
        ("annotation-index.k", "v"),
        ("annotation-manifest[linux/arm64].only", "arm"),
    ];
    let exported = world.export("image", &source, &attrs).await.unwrap();
    let digest = &exported.response["containerimage.digest"];

    let remote = format!("docker://{name}");
    let index: Index =
        serde_json::from_slice(&run("skopeo", &["inspect", "--raw", "--tls-verify=false", &remote]).stdout)
            .unwrap();
    assert_eq!(index.annotations["k"], "v");
    assert_eq!(index.media_type.as_deref(), Some(media_type::OCI_INDEX));
    let platforms: Vec<String> =
        index.manifests.iter().map(|entry| entry.platform.as_ref().unwrap().to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64", "unknown/unknown"]);
    assert!(kiln_oci::is_attestation_manifest(&index.manifests[2]));
    let arm_manifest: Manifest = document(&world, &index.manifests[1]);
    assert_eq!(arm_manifest.annotations["only"], "arm");
    for (platform, layers) in [("amd64", 2), ("arm64", 1)] {
        let choice = format!("--override-arch={platform}");
        let seen = json(&run("skopeo", &[&choice, "inspect", "--tls-verify=false", &remote]));
        assert_eq!(seen["Architecture"], platform);
        assert_eq!(seen["Layers"].as_array().unwrap().len(), layers);
    }
    // Everything that hangs on it is there, attestations too.
    let copied = world.folder.path().join("copied");
    let target = format!("oci:{}:x", copied.display());
    run("skopeo", &["copy", "--all", "--src-tls-verify=false", &remote, &target]);
    let statement = &document::<Manifest>(&world, &index.manifests[2]).layers[0];
    let text =
        std::fs::read_to_string(copied.join(format!("blobs/sha256/{}", statement.digest.hex()))).unwrap();
    assert!(text.contains(r#""predicateType":"https://slsa.dev/provenance/v1""#), "{text}");
    assert!(
        text.contains(&format!(
            "pkg:docker/{}/team/app@1?platform=linux%2Farm64",
            registry.host().replace(':', "%3A")
        )),
        "{text}"
    );

    // By digest, into a sister repository: there is no tag.
    let sister = registry.reference("team/sister");
    let attrs = [
        ("name", sister.as_str()),
        ("push", "true"),
        ("push-by-digest", "true"),
        ("annotation-index.k", "v"),
        ("annotation-manifest[linux/arm64].only", "arm"),
    ];
    let second = world.export("image", &source, &attrs).await.unwrap();
    // Its attestations name another image.
    let second = &second.response["containerimage.digest"];
    assert_ne!(second, digest);
    run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{sister}@{second}")]);
    let tags = program("skopeo")
        .args(["list-tags", "--tls-verify=false", &format!("docker://{sister}")])
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&tags.stdout).contains("latest"));
    let tagged = format!("{sister}:t");
    let attrs = [("name", tagged.as_str()), ("push", "true"), ("push-by-digest", "true")];
    let error = world.export("image", &source, &attrs).await.err().unwrap().to_string();
    assert!(error.contains("can't push tagged ref"), "{error}");
    let lines = world.told.0.lock().unwrap().join("\n");
    assert!(
        lines.contains("pushing layers") && lines.contains(&format!("pushing manifest for {name}@{digest}")),
        "{lines}"
    );
}

#[tokio::test]
async fn archives_that_others_load() {
    for (kind, transport) in [("oci", "oci-archive"), ("docker", "docker-archive")] {
        let world = world(Receives::File).await;
        let source = single(&result(&world));
        let exported = world.export(kind, &source, &[("name", "a:b")]).await.unwrap();
        assert_eq!(exported.response["image.name"], "docker.io/library/a:b");
        let archive = format!("{transport}:{}", world.out().display());
        let seen = json(&run("skopeo", &["inspect", &archive]));
        assert_eq!(seen["Layers"].as_array().unwrap().len(), 2, "{seen}");
        // The files are what they were.
        let layout = world.folder.path().join("layout");
        run("skopeo", &["copy", &archive, &format!("dir:{}", layout.display())]);
        let manifest: serde_json::Value =
            serde_json::from_slice(&std::fs::read(layout.join("manifest.json")).unwrap()).unwrap();
        let top = manifest["layers"][1]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
        let listed = run("tar", &["-tf", &layout.join(top).display().to_string()]);
        let names = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(names.lines().collect::<Vec<_>>(), ["dir/", "dir/deep/", "dir/deep/file", "hello"]);
        assert_eq!(world.told.0.lock().unwrap().last().map(String::as_str), Some("sending tarball"));
    }
    let world = world(Receives::File).await;
    let error = world.export("docker", &multi(&[("amd64", &result(&world))]), &[]).await.err().unwrap();
    assert_eq!(error.to_string(), "docker exporter does not currently support exporting manifest lists");
}

#[tokio::test]
async fn the_same_bytes_every_time() {
    let mut archives = Vec::new();
    for compression in ["zstd", "gzip", "uncompressed", "gzip"] {
        let world = world(Receives::File).await;
        let source = single(&result(&world));
        let attrs = [
            ("compression", compression),
            ("force-compression", "true"),
            ("source-date-epoch", "1700000000"),
            ("rewrite-timestamp", "true"),
        ];
        let exported = world.export("oci", &source, &attrs).await.unwrap();
        let manifest: Manifest = document(&world, &exported.descriptor.unwrap());
        let kind = match compression {
            "zstd" => media_type::OCI_LAYER_ZSTD,
            "gzip" => media_type::OCI_LAYER_GZIP,
            _ => media_type::OCI_LAYER,
        };
        assert!(manifest.layers.iter().all(|layer| layer.media_type == kind));
        let config: Image = document(&world, &manifest.config);
        assert_eq!(config.created.unwrap().unix_seconds(), 1_700_000_000);
        archives.push((config.rootfs.diff_ids, std::fs::read(world.out()).unwrap()));
    }
    assert!(archives.windows(2).all(|pair| pair[0].0 == pair[1].0));
    assert!(archives[1].1 == archives[3].1);
}

#[tokio::test]
async fn what_cannot_be() {
    let world = world(Receives::Nothing).await;
    let reference = result(&world);
    let mut without_platforms = multi(&[("amd64", &reference)]);
    without_platforms.metadata.remove("refs.platforms");
    for (source, attrs, message) in [
        (&without_platforms, &[][..], "unable to export multiple refs, missing platforms mapping"),
        (
            &single(&reference),
            &[("annotation-index.a", "b")],
            "index annotations not supported for single platform export",
        ),
        (
            &multi(&[("amd64", &reference)]),
            &[("annotation-index.a", "b"), ("oci-mediatypes", "false")],
            r#"cannot export annotations with "oci-mediatypes=false""#,
        ),
        (
            &multi(&[("amd64", &reference), ("arm64", &reference)]),
            &[("annotation-manifest[linux/s390x].a", "b")],
            "invalid annotation: no platform linux/s390x found in source",
        ),
        (
            &single(&reference),
            &[("name", "a"), ("unpack", "1"), ("rewrite-timestamp", "1")],
            r#"exporter option "rewrite-timestamp" conflicts with "unpack""#,
        ),
        (
            &single(&reference),
            &[("name", "A"), ("push", "true"), ("store", "false")],
            "failed to push A: failed to parse A: invalid reference format: repository name (library/A) must be lowercase",
        ),
    ] {
        let error = world.export("image", source, attrs).await.err().unwrap();
        assert_eq!(error.to_string(), message);
    }
    let error = world.export("nonsense", &single(&reference), &[]).await.err().unwrap();
    assert_eq!(error.to_string(), r#"exporter "nonsense" could not be found"#);
    // Nothing in it: an image all the same.
    let empty = kiln_export::source::Source::default();
    let exported = world.export("image", &empty, &[("name", "empty")]).await.unwrap();
    let manifest: Manifest = document(&world, &exported.descriptor.unwrap());
    assert!(manifest.layers.is_empty());
}
