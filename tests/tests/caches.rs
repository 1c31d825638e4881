//! Build caches in registries, folders and images: what one daemon built, another one takes.

use std::path::Path;
use std::process::Command;

use kiln_testkit::{Place, Registry, program};
use kiln_tests::{place_with_busybox, read};
use serde_json::Value;

/// Two steps that never give the same twice, so that a file tells whether its step ran again.
const TWO_STEPS: &str = "FROM busybox
RUN cat /proc/sys/kernel/random/uuid > /one
RUN cat /proc/sys/kernel/random/uuid > /two
";

/// Another daemon that knows nothing yet, with the same registry.
fn another(registry: &Registry, dockerfile: &str) -> Place {
    let place = Place::new();
    place.use_mirror(registry);
    place.write("work/Dockerfile", dockerfile);
    place
}

/// Builds into a folder and gives the two files that the steps wrote.
fn build(place: &Place, options: &[&str]) -> (String, String, String) {
    let out = place.path("work/out");
    let _ = std::fs::remove_dir_all(&out);
    let mut arguments = vec!["build", "--progress", "plain", "-o", "out"];
    arguments.extend(options);
    arguments.push(".");
    let shown = place.run(&arguments).success().stderr;
    (read(&out.join("one")), read(&out.join("two")), shown)
}

/// A document as the registry has it.
fn document(place: &str) -> Value {
    let output = program("skopeo").args(["inspect", "--raw", "--tls-verify=false", place]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn digests(list: &Value) -> Vec<String> {
    let each = list.as_array().expect("a list").iter();
    each.map(|entry| entry["digest"].as_str().expect("a digest").to_owned()).collect()
}

/// Whether a daemon's store has a blob.
fn has_blob(place: &Place, digest: &str) -> bool {
    let name = digest.rsplit(':').next().unwrap_or_default();
    let found = Command::new("find").arg(place.path("data")).args(["-name", name]).output().unwrap();
    !found.stdout.is_empty()
}

#[test]
fn a_cache_in_a_registry_serves_another_daemon() {
    let (first, registry) = place_with_busybox();
    first.write("work/Dockerfile", TWO_STEPS);
    let name = registry.reference("caches/app:c");
    let to = format!("type=registry,ref={name},mode=max");
    let (one, two, shown) = build(&first, &["--cache-to", &to]);
    assert!(shown.contains("exporting cache to registry"), "{shown}");

    let manifest = document(&format!("docker://{name}"));
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
    let layers = digests(&manifest["layers"]);
    assert_eq!(layers.len(), 3, "{manifest}");

    // A build that nothing reads fetches no layer.
    let second = another(&registry, TWO_STEPS);
    let from = format!("type=registry,ref={name}");
    let shown = second
        .run(&["build", "--progress", "plain", "-o", "type=cacheonly", "--cache-from", &from, "."])
        .success()
        .stderr;
    assert!(shown.contains(&format!("importing cache manifest from {name}")), "{shown}");
    assert!(shown.matches("CACHED").count() >= 2, "{shown}");
    for layer in &layers {
        assert!(!has_blob(&second, layer), "{layer} was fetched, though nothing reads it");
    }

    // An export reads it; nothing runs again. The first build's daemon has forgotten everything meanwhile.
    let (again, once_more, _) = build(&second, &["--cache-from", &from]);
    assert_eq!((again, once_more), (one.clone(), two.clone()));
    first.run(&["prune", "-a", "-f"]).success();
    let (again, once_more, _) = build(&first, &["--cache-from", &from]);
    assert_eq!((again, once_more), (one, two));
}

#[test]
fn a_step_on_top_of_an_imported_one_runs_on_its_files() {
    let (first, registry) = place_with_busybox();
    first.write("work/Dockerfile", TWO_STEPS);
    let name = registry.reference("caches/app:c");
    // The smallest form: the result alone, and as an index as older registries have it.
    let to = format!("type=registry,ref={name},image-manifest=false,compression=zstd,force-compression=true");
    let (one, two, _) = build(&first, &["--cache-to", &to]);
    let index = document(&format!("docker://{name}"));
    assert!(
        index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .any(|entry| { entry["mediaType"].as_str().unwrap().ends_with("tar+zstd") })
    );

    let more = format!("{TWO_STEPS}RUN cat /one /two > /three\n");
    let second = another(&registry, &more);
    let (again, once_more, _) = build(&second, &["--cache-from", &name]);
    assert_eq!((&again, &once_more), (&one, &two));
    assert_eq!(read(&second.path("work/out/three")), format!("{one}{two}"));
}

#[test]
fn a_cache_in_a_folder_serves_another_daemon() {
    let (first, registry) = place_with_busybox();
    first.write("work/Dockerfile", TWO_STEPS);
    let folder = first.path("cache");
    let to = format!("type=local,dest={},mode=max", folder.display());
    let (one, two, _) = build(&first, &["--cache-to", &to]);
    let index: Value = serde_json::from_str(&read(&folder.join("index.json"))).unwrap();
    assert_eq!(digests(&index["manifests"]).len(), 1);

    let second = another(&registry, TWO_STEPS);
    let from = format!("type=local,src={}", folder.display());
    let (again, once_more, _) = build(&second, &["--cache-from", &from]);
    assert_eq!((again, once_more), (one, two));
    // The folder is not needed for what has been taken from it.
    std::fs::remove_dir_all(&folder).unwrap();
    build(&second, &[]);
}

#[test]
fn what_was_only_in_a_folder_that_has_gone_is_built_again() {
    let (first, registry) = place_with_busybox();
    first.write("work/Dockerfile", TWO_STEPS);
    let folder = first.path("cache");
    build(&first, &["--cache-to", &format!("type=local,dest={},mode=max", folder.display())]);
    let second = another(&registry, TWO_STEPS);
    let from = format!("type=local,src={}", folder.display());
    second.run(&["build", "-o", "type=cacheonly", "--cache-from", &from, "."]).success();
    std::fs::remove_dir_all(&folder).unwrap();
    build(&second, &[]);
}

#[test]
fn a_cache_inside_an_image_serves_another_daemon() {
    let (first, registry) = place_with_busybox();
    first.write("work/Dockerfile", TWO_STEPS);
    let name = registry.reference("caches/app:1");
    let push = ["build", "-t", &name, "--push", "--provenance=false", "--cache-to", "type=inline"];
    first.run(&[&push[..], &["."]].concat()).success();
    let image = document(&format!("docker://{name}"));
    let config = document_blob(&registry, image["config"]["digest"].as_str().unwrap());
    assert!(config["moby.buildkit.cache.v0"].is_string(), "{config}");

    let second = another(&registry, TWO_STEPS);
    second.run(&[&push[..], &["--cache-from", &name, "."]].concat()).success();
    let again = document(&format!("docker://{name}"));
    let other = document_blob(&registry, again["config"]["digest"].as_str().unwrap());
    assert_eq!(config, other, "the same image, cache included");
    assert_eq!(image, again);
}

#[test]
fn a_cache_for_two_platforms_serves_both() {
    let (first, registry) = place_with_busybox();
    first.write("work/Dockerfile", TWO_STEPS);
    let name = registry.reference("caches/two:c");
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let to = format!("type=registry,ref={name},mode=max");
    let out = first.path("work/out");
    first.run(&[&["build", "-o", "out"], &platforms[..], &["--cache-to", &to, "."]].concat()).success();
    let files =
        |out: &Path| ["linux_amd64", "linux_arm64"].map(|platform| read(&out.join(platform).join("two")));
    let built = files(&out);
    assert_ne!(built[0], built[1]);

    let second = another(&registry, TWO_STEPS);
    second.run(&[&["build", "-o", "out"], &platforms[..], &["--cache-from", &name, "."]].concat()).success();
    assert_eq!(files(&second.path("work/out")), built);
}

#[test]
fn a_damaged_cache_is_left_and_the_steps_run() {
    let (first, registry) = place_with_busybox();
    first.write("work/Dockerfile", TWO_STEPS);
    let name = registry.reference("caches/app:c");
    let (one, two, _) = build(&first, &["--cache-to", &format!("type=registry,ref={name},mode=max")]);
    // The last layer has other bytes of the same length now.
    let layer = digests(&document(&format!("docker://{name}"))["layers"]).pop().unwrap();
    let file = registry.blob_file(&layer);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(&file, bytes).unwrap();

    let second = another(&registry, TWO_STEPS);
    let (again, once_more, shown) = build(&second, &["--cache-from", &name]);
    assert!((again, once_more.clone()) != (one, two));
    assert!(shown.contains("is damaged") && shown.contains(&layer), "{shown}");
    assert!(!has_blob(&second, &layer), "damaged bytes were kept");
    // What was built then stays.
    let (_, third, _) = build(&second, &["--cache-from", &name]);
    assert_eq!(third, once_more);
}

#[test]
fn a_cache_that_is_not_there_is_no_failure() {
    let (place, registry) = place_with_busybox();
    place.write("work/Dockerfile", TWO_STEPS);
    let shown = build(&place, &["--cache-from", &registry.reference("caches/none:1")]).2;
    assert!(shown.contains("importing cache manifest from"), "{shown}");
}

#[test]
fn a_failed_cache_export_fails_the_build_unless_told_otherwise() {
    let (place, _registry) = place_with_busybox();
    place.write("work/Dockerfile", TWO_STEPS);
    let to = "type=registry,ref=localhost:1/nobody/listens:1";
    let failed = place.run(&["build", "-o", "out", "--cache-to", to, "."]).failure().stderr;
    assert!(failed.contains("localhost:1"), "{failed}");
    let to = format!("{to},ignore-error=true");
    let (_, _, shown) = build(&place, &["--cache-to", &to]);
    assert!(shown.contains("was to be ignored"), "{shown}");
}

#[test]
fn kinds_that_are_not_supported_are_refused() {
    let (place, _registry) = place_with_busybox();
    place.write("work/Dockerfile", TWO_STEPS);
    for options in [["--cache-to", "type=s3,bucket=b,region=r"], ["--cache-from", "type=azblob,name=n"]] {
        let refused = place.run(&["build", options[0], options[1], "."]).failure().stderr;
        assert!(refused.contains("not supported yet: use registry, local or inline"), "{refused}");
    }
}

fn document_blob(registry: &Registry, digest: &str) -> Value {
    serde_json::from_str(&read(&registry.blob_file(digest))).unwrap()
}
