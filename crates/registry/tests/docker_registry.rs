//! Against Debian's `docker-registry`, with `skopeo` as the second opinion.

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use kiln_oci::{Descriptor, Image, Index, Manifest, Platform, Reference, gojson, media_type};
use kiln_registry::{
    Access, FileSource, HostSettings, Observer, Pushed, RegistryError, Repository, RepositoryOptions,
};
use kiln_testkit::program;
use support::{Setup, noise};

/// `right`, as `htpasswd -B` writes it.
const PASSWORD_LINE: &str = "me:$2b$04$hiV3kQjlVddWTBC1E6ftz.P2iacx43sPbdJ.19YyLzYm1eJ/d7KTK";

fn skopeo(arguments: &[&str]) -> serde_json::Value {
    let output = program("skopeo").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Pushes an image of one layer and gives its manifest's descriptor.
async fn push_image(repository: &Repository, layer: &[u8], tag: Option<&str>) -> Descriptor {
    let observer: Arc<dyn Observer> = Arc::new(kiln_registry::NoObserver);
    let layer_descriptor = Descriptor::of(media_type::OCI_LAYER, layer);
    let mut image = Image::default();
    image.set_platform(Platform::linux("amd64"));
    image.rootfs.diff_ids.push(layer_descriptor.digest.clone());
    let config = Bytes::from(gojson::to_vec(&image).unwrap());
    let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
    repository.push_blob(&layer_descriptor, &Bytes::copy_from_slice(layer), &[], &observer).await.unwrap();
    repository.push_blob(&config_descriptor, &config, &[], &observer).await.unwrap();
    let manifest = Manifest::new(media_type::OCI_MANIFEST, config_descriptor, vec![layer_descriptor]);
    let bytes = Bytes::from(gojson::to_vec(&manifest).unwrap());
    repository.push_manifest(media_type::OCI_MANIFEST, bytes.clone(), tag).await.unwrap();
    Descriptor::of(media_type::OCI_MANIFEST, &bytes)
}

#[tokio::test]
async fn pushes_and_pulls() {
    let registry = kiln_testkit::Registry::start();
    let setup = Setup::default();
    let repository = setup.repository(&registry.reference("some/image"), Access::Push);
    assert!(repository.resolve("latest").await.unwrap_err().is_not_found());

    // An empty archive is a layer too.
    let layer = vec![0; 1024];
    let pushed = push_image(&repository, &layer, Some("latest")).await;
    let resolved = repository.resolve("latest").await.unwrap();
    assert_eq!(resolved.descriptor, pushed);
    assert_eq!(repository.resolve(pushed.digest.as_str()).await.unwrap().descriptor, pushed);
    let manifest: Manifest = serde_json::from_slice(&repository.manifest(&pushed).await.unwrap()).unwrap();
    let config = repository.document(&manifest.config).await.unwrap();
    assert_eq!(serde_json::from_slice::<Image>(&config).unwrap().architecture, "amd64");
    let mut reader = repository.blob_verified(&manifest.layers[0]).await.unwrap();
    let mut got = Vec::new();
    while let Some(piece) = reader.chunk().await.unwrap() {
        got.extend_from_slice(&piece);
    }
    assert!(got == layer);

    // An index, and what skopeo makes of it.
    let index =
        Index::new(media_type::OCI_INDEX, vec![pushed.clone().with_platform(Platform::linux("amd64"))]);
    let bytes = Bytes::from(gojson::to_vec(&index).unwrap());
    repository.push_manifest(media_type::OCI_INDEX, bytes.clone(), Some("multi")).await.unwrap();
    assert_eq!(
        repository.resolve("multi").await.unwrap().descriptor,
        Descriptor::of(media_type::OCI_INDEX, &bytes)
    );
    let name = format!("docker://{}:multi", registry.reference("some/image"));
    let seen = skopeo(&["inspect", "--tls-verify=false", "--raw", &name]);
    assert_eq!(seen["manifests"][0]["digest"], pushed.digest.as_str());
    let seen = skopeo(&["inspect", "--tls-verify=false", &name]);
    assert_eq!(seen["Layers"][0], manifest.layers[0].digest.as_str());

    // Nothing is sent twice.
    let observer: Arc<dyn Observer> = setup.heard.clone();
    let again = repository.push_blob(&manifest.layers[0], &Bytes::from(layer.clone()), &[], &observer).await;
    assert_eq!(again.unwrap(), Pushed::Existed);
    let again = repository.push_manifest(media_type::OCI_INDEX, bytes.clone(), Some("multi")).await;
    assert_eq!(again.unwrap(), Pushed::Existed);
    // The same manifest under another tag is not there yet.
    let moved = repository.push_manifest(media_type::OCI_INDEX, bytes, Some("latest")).await;
    assert_eq!(moved.unwrap(), Pushed::Uploaded);

    // From a sister repository; one that does not have it is no harm.
    let sister = setup.repository(&registry.reference("some/sister"), Access::Push);
    let layer_again = Bytes::from(layer);
    let from = ["other/nothing".to_owned(), "some/image".to_owned()];
    let mounted = sister.push_blob(&manifest.layers[0], &layer_again, &from, &observer).await.unwrap();
    assert_eq!(mounted, Pushed::Mounted("some/image".to_owned()));
    let third = setup.repository(&registry.reference("third"), Access::Push);
    let sent = third.push_blob(&manifest.layers[0], &layer_again, &["nothing".to_owned()], &observer).await;
    assert_eq!(sent.unwrap(), Pushed::Uploaded);
}

#[tokio::test]
async fn streams_what_has_no_digest_yet() {
    let registry = kiln_testkit::Registry::start();
    let setup = Setup::default();
    let repository = setup.repository(&registry.reference("a"), Access::Push);
    let blob = noise(3 << 20);
    let pieces: Vec<_> = blob.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let mut upload = repository.start_upload().await.unwrap();
    upload.send(futures::stream::iter(pieces).boxed()).await.unwrap();
    upload.send_bytes(Bytes::from_static(b"end")).await.unwrap();
    let whole = [blob.as_slice(), b"end"].concat();
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &whole);
    assert!(!repository.has_blob(&descriptor.digest).await.unwrap());
    upload.commit(&descriptor.digest).await.unwrap();
    assert!(repository.has_blob(&descriptor.digest).await.unwrap());
    // A wrong digest is refused by the registry.
    let mut upload = repository.start_upload().await.unwrap();
    upload.send_bytes(Bytes::from_static(b"x")).await.unwrap();
    let error = upload.commit(&descriptor.digest).await.unwrap_err();
    assert!(error.to_string().contains("digest invalid"), "{error}");
    repository.start_upload().await.unwrap().cancel().await;
}

#[tokio::test]
async fn sends_files_and_opens_in_the_middle() {
    let registry = kiln_testkit::Registry::start();
    let setup = Setup::default();
    let repository = setup.repository(&registry.reference("a"), Access::Push);
    let folder = tempfile::tempdir().unwrap();
    let source = FileSource { path: folder.path().join("blob") };
    let blob = noise(5 << 20);
    std::fs::write(&source.path, &blob).unwrap();
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &blob);
    let observer: Arc<dyn Observer> = setup.heard.clone();
    assert_eq!(repository.push_blob(&descriptor, &source, &[], &observer).await.unwrap(), Pushed::Uploaded);
    let mut rest = Vec::new();
    let mut reader = repository.blob(&descriptor, 4 << 20).await.unwrap().into_read();
    tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut rest).await.unwrap();
    assert!(rest == blob[4 << 20..]);
    // A file that is not there is our error, not the registry's.
    let gone = FileSource { path: folder.path().join("gone") };
    let other = Descriptor::of(media_type::OCI_LAYER, b"other");
    let error = repository.push_blob(&other, &gone, &[], &observer).await.unwrap_err();
    assert!(matches!(error, RegistryError::Source(_)), "{error}");
}

#[tokio::test]
async fn asks_for_a_login() {
    let registry = kiln_testkit::Registry::start_with_password(PASSWORD_LINE);
    let name = registry.reference("a");
    let repository = Setup::login("me", "right").repository(&name, Access::Push);
    push_image(&repository, b"layer", Some("t")).await;
    let right = Setup::login("me", "right").repository(&name, Access::Pull);
    assert!(right.resolve("t").await.is_ok());
    for (setup, sent) in [(Setup::login("me", "wrong"), true), (Setup::default(), false)] {
        let error = setup.repository(&name, Access::Pull).resolve("t").await.unwrap_err();
        assert!(
            matches!(&error, RegistryError::Denied { logged_in, .. } if *logged_in == sent),
            "{error}: {:?}",
            error.hint()
        );
    }
}

/// A certificate of its own authority for `localhost`.
fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let status = program("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap()
        .status;
    assert!(status.success());
    (certificate, key)
}

#[tokio::test]
async fn checks_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(folder.path());
    let registry = kiln_testkit::Registry::start_with_tls(&certificate, &key);
    let name = registry.reference("a");
    let configured = |host: HostSettings| {
        let mut setup = Setup::default();
        setup.settings.hosts.insert(registry.host(), host);
        setup
    };
    let https = HostSettings { plain_http: Some(false), ..HostSettings::default() };

    let trusting = configured(HostSettings { root_cas: vec![certificate.clone()], ..https.clone() });
    push_image(&trusting.repository(&name, Access::Push), b"layer", Some("t")).await;
    // Docker's folder layout.
    let layout = tempfile::tempdir().unwrap();
    std::fs::copy(&certificate, layout.path().join("ca.crt")).unwrap();
    let folders = vec![layout.path().to_owned(), layout.path().join("not-there")];
    let by_folder = configured(HostSettings { tls_config_dirs: folders, ..https.clone() });
    assert!(by_folder.repository(&name, Access::Pull).resolve("t").await.is_ok());

    // It is not good for another name.
    let other_name = name.replace("localhost", "127.0.0.1");
    let mut setup = Setup::default();
    let host = HostSettings { root_cas: vec![certificate.clone()], ..https.clone() };
    setup.settings.hosts.insert(registry.host().replace("localhost", "127.0.0.1"), host);
    let reached = setup.repository(&other_name, Access::Pull).resolve("t").await;
    assert!(reached.unwrap_err().to_string().contains("not valid for name"));

    let error = configured(https.clone()).repository(&name, Access::Pull).resolve("t").await.unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    let insecure = configured(HostSettings { insecure: Some(true), ..https.clone() });
    assert!(insecure.repository(&name, Access::Pull).resolve("t").await.is_ok());

    // Asked for by an exporter's option, whatever is configured.
    let reference = Reference::parse(&name).unwrap();
    let options = RepositoryOptions { insecure: true, ..RepositoryOptions::push() };
    let repository = configured(https.clone()).client().repository(&reference, options.clone()).unwrap();
    assert!(repository.resolve("t").await.is_ok());
    // The same option finds a registry that speaks plain http.
    let plain = kiln_testkit::Registry::start();
    let reference = Reference::parse(&plain.reference("b")).unwrap();
    let repository = Setup::default().client().repository(&reference, options).unwrap();
    push_image(&repository, b"layer", Some("t")).await;

    let broken = configured(HostSettings { root_cas: vec![key], ..https });
    let reference = Reference::parse(&name).unwrap();
    let error = broken.client().repository(&reference, RepositoryOptions::default()).err().unwrap();
    assert!(matches!(error, RegistryError::Certificate { .. }), "{error}");
}

/// A blob that is downloaded while it is uploaded.
struct Elsewhere {
    repository: Repository,
    descriptor: Descriptor,
}

impl kiln_registry::BlobSource for Elsewhere {
    fn open(
        &self,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<kiln_registry::BodyStream>> + Send + '_>> {
        Box::pin(async {
            let blob = self.repository.blob(&self.descriptor, 0).await.map_err(std::io::Error::other)?;
            Ok(tokio_util::io::ReaderStream::new(blob.into_read()).boxed())
        })
    }
}

/// Uploads must not keep all places at a host while what they send waits for one.
#[tokio::test]
async fn copies_more_blobs_within_a_registry_than_it_has_places() {
    let registry = kiln_testkit::Registry::start();
    let setup = Setup::default();
    let observer: Arc<dyn Observer> = setup.heard.clone();
    let from = setup.repository(&registry.reference("from"), Access::Push);
    let to = setup.repository(&registry.reference("to"), Access::Push);
    let mut copies = Vec::new();
    for number in 0..16u8 {
        let blob = vec![number; 100_000];
        let descriptor = Descriptor::of(media_type::OCI_LAYER, &blob);
        from.push_blob(&descriptor, &Bytes::from(blob), &[], &observer).await.unwrap();
        let source = Elsewhere { repository: from.clone(), descriptor: descriptor.clone() };
        let (to, observer) = (to.clone(), observer.clone());
        copies.push(async move { to.push_blob(&descriptor, &source, &[], &observer).await });
    }
    for copied in futures::future::join_all(copies).await {
        assert_eq!(copied.unwrap(), Pushed::Uploaded);
    }
}
