//! The content directory is an image layout that other programs read, and layers unpack elsewhere to what they are.

mod common;

use std::path::Path;
use std::process::Command;

use common::{TestStore, is_root, layer};
use kiln_layer::compress::CompressOptions;
use kiln_oci::{Compression, Manifest, media_type};
use kiln_store::{BlobOptions, NoObserver, Ref, Store};

fn runs(program: &str, args: &[&str]) -> Option<String> {
    let out = match Command::new(program).args(args).output() {
        Ok(out) => out,
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            return None;
        }
    };
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8(out.stdout).expect("text"))
}

async fn image(store: &Store, layers: &Ref, kind: Compression, name: &str) {
    let options = BlobOptions { compression: CompressOptions::new(kind), force: true, epoch: None };
    let blobs = store.ref_blobs(layers, &options, &NoObserver).await.expect("archives");
    let diff_ids: Vec<&str> = blobs.iter().map(|(blob, _)| blob.diff_id.as_str()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = store.content().put(config.to_string().as_bytes()).expect("put");
    let layers = blobs.iter().map(|(blob, _)| blob.descriptor.clone()).collect();
    let manifest = Manifest::new(media_type::OCI_MANIFEST, config.descriptor(media_type::OCI_CONFIG), layers);
    let manifest = store.content().put(&serde_json::to_vec(&manifest).expect("json")).expect("put");
    store.images().put(name, &manifest.descriptor(media_type::OCI_MANIFEST)).expect("named");
}

#[tokio::test]
async fn skopeo_and_umoci_read_it() {
    if !is_root() {
        return;
    }
    let t = TestStore::new();
    let base = layer(&t.store, &Ref::scratch(), &[("etc/a", "1"), ("etc/gone", ""), ("usr/bin/x", "#!")]);
    let new = t.store.new_layer(&base, Default::default()).expect("begins");
    let mounted = t.store.mount_somewhere(&new.mount_source().expect("ready")).expect("mounts");
    std::fs::remove_file(mounted.path().join("etc/gone")).expect("there");
    std::fs::write(mounted.path().join("etc/b"), "2").expect("written");
    std::fs::remove_dir_all(mounted.path().join("usr")).expect("there");
    std::fs::create_dir(mounted.path().join("usr")).expect("free");
    drop(mounted);
    let whole = new.commit(Default::default()).expect("commits");
    for (kind, tag) in
        [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd"), (Compression::Uncompressed, "none")]
    {
        image(&t.store, &whole, kind, &format!("example.com/a/b:{tag}")).await;
    }
    let layout = t.store.content().layout().display().to_string();
    for tag in ["gzip", "zstd", "none"] {
        let source = format!("oci:{layout}:example.com/a/b:{tag}");
        let Some(inspected) = runs("skopeo", &["inspect", &source]) else { return };
        assert!(inspected.contains("amd64"), "{inspected}");
        // Reads, decompresses and checks every byte against digests and diff ids.
        let out = t.dir.path().join(format!("copy-{tag}"));
        runs("skopeo", &["copy", "-q", "--dest-decompress", &source, &format!("dir:{}", out.display())]);
    }
    let out = t.dir.path().join("oci");
    let (source, target) = (format!("oci:{layout}:example.com/a/b:gzip"), format!("oci:{}:x", out.display()));
    runs("skopeo", &["copy", "-q", &source, &target]);
    let bundle = t.dir.path().join("bundle");
    let image = format!("{}:x", out.display());
    let Some(_) = runs("umoci", &["unpack", "--image", &image, &bundle.display().to_string()]) else {
        return;
    };
    let names = |dir: &Path| {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .expect("there")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
            .collect();
        names.sort();
        names
    };
    let root = bundle.join("rootfs");
    assert_eq!(
        (names(&root), names(&root.join("etc"))),
        (vec!["etc".into(), "usr".into()], vec!["a".into(), "b".into()])
    );
    assert!(names(&root.join("usr")).is_empty());
}
