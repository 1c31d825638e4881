//! Base images for tests, as an OCI layout per image, made without Kiln: a test of a builder should not need a builder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use crate::programs::{program, target_folder};
use crate::registry::Registry;

/// A fixed date for what has to carry one.
const CREATED: &str = "2024-01-01T00:00:00Z";

/// `busybox` for amd64 and arm64 under one index, as an OCI layout.
pub fn busybox() -> PathBuf {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| layout("busybox", &["amd64", "arm64"])).clone()
}

/// A small Debian with apt, amd64, as an OCI layout.
pub fn debian() -> PathBuf {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| layout("debian", &["amd64"])).clone()
}

/// Copies a layout into a registry with `skopeo`, index and all.
pub fn push(layout: &Path, registry: &Registry, name: &str) {
    let status = program("skopeo")
        .args(["copy", "--quiet", "--all", "--dest-tls-verify=false"])
        .arg(format!("oci:{}", layout.display()))
        .arg(format!("docker://{}", registry.reference(name)))
        .status()
        .expect("skopeo starts");
    assert!(status.success(), "skopeo could not copy {} to {name}", layout.display());
}

/// The root file systems as tar files, made by `examples/bases/make.sh` where they are missing.
fn roots() -> PathBuf {
    static ROOTS: OnceLock<PathBuf> = OnceLock::new();
    ROOTS
        .get_or_init(|| {
            let folder = target_folder().join("bases");
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/bases/make.sh");
            // Test programs run side by side; only one may make the files.
            std::fs::create_dir_all(&folder).expect("a folder for the bases");
            let status = program("flock")
                .arg(folder.join(".lock"))
                .arg(script)
                .arg(&folder)
                .status()
                .expect("flock starts");
            assert!(status.success(), "the base images could not be made");
            folder
        })
        .clone()
}

fn layout(name: &str, architectures: &[&str]) -> PathBuf {
    let done = target_folder().join("bases").join(format!("{name}.oci"));
    let roots = roots();
    if done.exists() {
        return done;
    }
    let work = tempfile::tempdir_in(&roots).expect("a folder beside the bases");
    let blobs = work.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("the layout's folders");
    let mut manifests = Vec::new();
    for architecture in architectures {
        let tar = roots.join(format!("{name}-{architecture}.tar"));
        let diff_id = sha256(&tar);
        let zipped = work.path().join("layer.gz");
        let status = Command::new("sh")
            .args(["-c", "exec gzip -n -6 < \"$0\" > \"$1\""])
            .arg(&tar)
            .arg(&zipped)
            .status()
            .expect("gzip starts");
        assert!(status.success(), "{} could not be compressed", tar.display());
        let layer = put(&blobs, &zipped, "application/vnd.oci.image.layer.v1.tar+gzip");
        let config = put_json(
            &blobs,
            "application/vnd.oci.image.config.v1+json",
            &json!({
                "created": CREATED, "architecture": architecture, "os": "linux",
                "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"] },
                "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
                "history": [{ "created": CREATED, "created_by": "base" }],
            }),
        );
        let mut manifest = put_json(
            &blobs,
            "application/vnd.oci.image.manifest.v1+json",
            &json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": config, "layers": [layer],
            }),
        );
        manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
        manifests.push(manifest);
    }
    let index = put_json(
        &blobs,
        "application/vnd.oci.image.index.v1+json",
        &json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
        }),
    );
    write(&work.path().join("index.json"), &json!({ "schemaVersion": 2, "manifests": [index] }).to_string());
    write(&work.path().join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}");
    // Another test program may have made it meanwhile: either is as good.
    let folder = work.keep();
    if std::fs::rename(&folder, &done).is_err() {
        let _ = std::fs::remove_dir_all(&folder);
    }
    assert!(done.exists(), "{} could not be made", done.display());
    done
}

/// Moves a file into the layout and gives its descriptor.
fn put(blobs: &Path, file: &Path, media_type: &str) -> serde_json::Value {
    let digest = sha256(file);
    let size = file.metadata().expect("the file is there").len();
    std::fs::rename(file, blobs.join(&digest)).expect("a blob takes its place");
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

fn put_json(blobs: &Path, media_type: &str, value: &serde_json::Value) -> serde_json::Value {
    let file = blobs.join("new.json");
    write(&file, &value.to_string());
    put(blobs, &file, media_type)
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn sha256(file: &Path) -> String {
    let output = program("sha256sum").arg(file).output().expect("sha256sum starts");
    assert!(output.status.success(), "{} cannot be hashed", file.display());
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .next()
        .expect("a digest comes first")
        .to_owned()
}
