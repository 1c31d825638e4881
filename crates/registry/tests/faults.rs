//! A registry that misbehaves in every way that was thought of.

mod support;

use std::sync::Arc;

use bytes::Bytes;
use kiln_oci::{Descriptor, Digest, media_type};
use kiln_registry::{Access, BlobReader, HostSettings, Observer, Pushed, RegistryError};
use support::{Reply, Request, Scripted, Setup, noise};

const LAYER: &str = media_type::OCI_LAYER;
const MANIFEST: &str = media_type::OCI_MANIFEST;

async fn read_all(mut reader: BlobReader) -> Result<Vec<u8>, RegistryError> {
    let mut all = Vec::new();
    while let Some(piece) = reader.chunk().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// Serves the part of `blob` that was asked for.
fn ranged(blob: &[u8], request: &Request) -> Reply {
    match request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
    {
        Some(from) => {
            let from: usize = from;
            Reply { status: 206, ..Reply::ok(&blob[from..]) }
                .header("Content-Range", format!("bytes {from}-{}/{}", blob.len() - 1, blob.len()))
        }
        None => Reply::ok(blob),
    }
}

#[tokio::test]
async fn goes_on_where_the_connection_broke() {
    let blob = noise(300_000);
    let descriptor = Descriptor::of(LAYER, &blob);
    let served = blob.clone();
    let server = Scripted::start(move |number, request| {
        let reply = ranged(&served, request);
        match number {
            0 => reply.cut(100_000),
            1 => Reply::status(500),
            2 => reply.cut(0),
            3 => reply.cut(150_000),
            _ => reply,
        }
    })
    .await;
    let setup = Setup::default();
    let repository = setup.repository(&format!("{}/a", server.address), Access::Pull);
    let got = read_all(repository.blob_verified(&descriptor).await.unwrap()).await.unwrap();
    assert!(got == blob);
    let ranges: Vec<_> =
        server.seen().iter().map(|request| request.header("range").map(str::to_owned)).collect();
    let at = |from: u32| Some(format!("bytes={from}-"));
    assert_eq!(ranges, [None, at(100_000), at(100_000), at(100_000), at(250_000)]);
    let messages = setup.heard.messages.lock().unwrap().clone();
    assert!(messages[0].starts_with("error: failed to read sha256:"), "{messages:?}");
    assert!(messages[1].starts_with("retrying in "), "{messages:?}");
    assert!(messages.iter().any(|line| line.contains("500 Internal Server Error")), "{messages:?}");
    let progress = setup.heard.progress.lock().unwrap().clone();
    assert!(progress.is_sorted());
    assert_eq!(progress.last(), Some(&(300_000, 300_000)));
}

#[tokio::test]
async fn goes_on_without_ranges() {
    let blob = noise(100_000);
    let descriptor = Descriptor::of(LAYER, &blob);
    let served = blob.clone();
    let server = Scripted::start(move |number, _| {
        let reply = Reply::ok(&served);
        if number == 0 { reply.cut(40_000) } else { reply }
    })
    .await;
    let repository = server.repository("a");
    assert!(read_all(repository.blob_verified(&descriptor).await.unwrap()).await.unwrap() == blob);
    // Opened in the middle as well.
    let rest = read_all(repository.blob(&descriptor, 99_000).await.unwrap()).await.unwrap();
    assert!(rest == blob[99_000..]);
}

#[tokio::test]
async fn gives_up_after_some_tries() {
    let server = Scripted::start(|_, _| Reply::status(503)).await;
    let descriptor = Descriptor::of(LAYER, b"x");
    let error = server.repository("a").blob(&descriptor, 0).await.err().unwrap();
    assert!(error.to_string().contains("unexpected status from GET request to http://127.0.0.1"), "{error}");
    assert!(error.to_string().ends_with("503 Service Unavailable"), "{error}");
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn refuses_other_content() {
    let (good, bad) = (noise(5000), vec![0; 5000]);
    let descriptor = Descriptor::of(LAYER, &good);
    let server = Scripted::start(move |_, _| Reply::ok(&bad)).await;
    let error = read_all(server.repository("a").blob_verified(&descriptor).await.unwrap()).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    let error = server.repository("a").document(&descriptor).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    let mut manifest = descriptor;
    manifest.media_type = MANIFEST.to_owned();
    let error = server.repository("a").manifest(&manifest).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn refuses_other_lengths() {
    let blob = noise(5000);
    for size in [4999, 5001] {
        let served = blob.clone();
        // Chunked, so that only the content itself tells.
        let server = Scripted::start(move |_, _| {
            let mut body = format!("{:x}\r\n", served.len()).into_bytes();
            body.extend_from_slice(&served);
            body.extend_from_slice(b"\r\n0\r\n\r\n");
            Reply::ok(body).header("Transfer-Encoding", "chunked").header("X-Content-Length", "")
        })
        .await;
        let descriptor = Descriptor::new(LAYER, Digest::sha256_of(&blob), size);
        let result = match server.repository("a").blob(&descriptor, 0).await {
            Ok(reader) => read_all(reader).await,
            Err(error) => Err(error),
        };
        assert!(result.is_err(), "{size}");
        // Announced, it is refused before anything is read.
        let served = blob.clone();
        let server = Scripted::start(move |_, _| Reply::ok(&served)).await;
        let error = server.repository("a").blob(&descriptor, 0).await.err().unwrap();
        assert!(matches!(error, RegistryError::SizeMismatch { .. }), "{error}");
    }
}

#[tokio::test]
async fn resolves_without_help() {
    let manifest = br#"{"schemaVersion":2,"layers":[],"config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}}"#;
    // No digest, no type, no HEAD.
    let server =
        Scripted::start(
            move |_, request| {
                if request.method == "HEAD" { Reply::status(405) } else { Reply::ok(manifest) }
            },
        )
        .await;
    let resolved = server.repository("a").resolve("latest").await.unwrap();
    assert_eq!(resolved.descriptor.digest, Digest::sha256_of(manifest));
    assert_eq!(resolved.descriptor.media_type, media_type::DOCKER_MANIFEST);
    assert_eq!(resolved.manifest.unwrap(), &manifest[..]);
}

#[tokio::test]
async fn does_not_believe_headers() {
    let asked = Digest::sha256_of("asked");
    let server = Scripted::start(|_, _| {
        Reply::ok("{}")
            .header("Content-Type", MANIFEST)
            .header("Docker-Content-Digest", Digest::sha256_of("told").as_str())
    })
    .await;
    let error = server.repository("a").resolve(asked.as_str()).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    let server =
        Scripted::start(|_, _| Reply::ok("{}").header("Docker-Content-Digest", "sha256:../../etc/passwd"))
            .await;
    let error = server.repository("a").resolve("t").await.unwrap_err();
    assert!(matches!(error, RegistryError::Malformed { .. }), "{error}");
    let server = Scripted::start(|_, _| {
        Reply::status(200)
            .header("Content-Type", MANIFEST)
            .header("Docker-Content-Digest", Digest::sha256_of("x").as_str())
            .header("Content-Length", "99999999999")
    })
    .await;
    let error = server.repository("a").resolve("t").await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn says_what_is_not_there() {
    let server = Scripted::start(|_, _| Reply::status(404)).await;
    let error = server.repository("a/b").resolve("t").await.unwrap_err();
    assert_eq!(error.to_string(), format!("{}/a/b:t: not found", server.address));
    assert!(error.is_not_found());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn says_who_cannot_be_reached() {
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let setup = Setup::default();
    let error = setup.repository(&format!("{unused}/a"), Access::Pull).resolve("t").await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("failed to do request: Head \"http://{unused}/v2/a/manifests/t\": ")),
        "{text}"
    );
    assert!(text.contains("Connection refused"), "{text}");
    assert!(error.hint().is_some());
    assert_eq!(setup.heard.messages.lock().unwrap().len(), 7);
}

#[tokio::test]
async fn waits_when_asked_to() {
    let server = Scripted::start(|number, _| match number {
        0 | 1 => Reply::status(429).header("Retry-After", "0"),
        _ => Reply::status(404),
    })
    .await;
    assert!(server.repository("a").resolve("t").await.unwrap_err().is_not_found());
    let server = Scripted::start(|_, _| Reply::status(429).header("Retry-After", "3600")).await;
    let error = server.repository("a").resolve("t").await.unwrap_err();
    assert!(matches!(error, RegistryError::RateLimited { retry_after: Some(_), .. }), "{error}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn ends_loops() {
    let server =
        Scripted::start(|_, request| Reply::status(307).header("Location", request.path.clone())).await;
    let error = server.repository("a").resolve("t").await.unwrap_err();
    assert!(error.to_string().contains("too many redirections"), "{error}");
    // A registry that always wants to know who asks.
    let challenge = "Basic realm=\"x\"";
    let server = Scripted::start(move |_, _| Reply::status(401).header("WWW-Authenticate", challenge)).await;
    let setup = Setup::login("me", "secret");
    let error =
        setup.repository(&format!("{}/a", server.address), Access::Pull).resolve("t").await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { logged_in: true, .. }), "{error}");
    assert_eq!(server.seen().len(), 2);
    assert_eq!(server.seen()[1].header("authorization"), Some("Basic bWU6c2VjcmV0"));
    assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("secret"));
    // And nobody is there to say so.
    let error = server.repository("a").resolve("t").await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { logged_in: false, access: Access::Pull, .. }), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("pull access denied, repository does not exist or may require authorization: ")
    );
}

#[tokio::test]
async fn credentials_stay_with_their_host() {
    let blob = noise(100);
    let descriptor = Descriptor::of(LAYER, &blob);
    let served = blob.clone();
    let storage = Scripted::start(move |_, _| Reply::ok(&served)).await;
    let target = format!("http://{}/elsewhere", storage.address);
    let server = Scripted::start(move |_, request| match request.header("authorization") {
        None => Reply::status(401).header("WWW-Authenticate", "Basic realm=x"),
        Some(_) => Reply::status(307).header("Location", target.clone()),
    })
    .await;
    let setup = Setup::login("me", "secret");
    let repository = setup.repository(&format!("{}/a", server.address), Access::Pull);
    assert!(read_all(repository.blob_verified(&descriptor).await.unwrap()).await.unwrap() == blob);
    assert_eq!(storage.lines(), ["GET /elsewhere"]);
    assert_eq!(storage.seen()[0].header("authorization"), None);
}

#[tokio::test]
async fn uploads_elsewhere_without_credentials() {
    let blob = Bytes::from(noise(1000));
    let descriptor = Descriptor::of(LAYER, &blob);
    let storage = Scripted::start(move |_, _| Reply::status(201)).await;
    let target = format!("http://{}/up?state=1", storage.address);
    let server =
        Scripted::start(move |_, request| match (request.header("authorization"), request.method.as_str()) {
            (None, _) => Reply::status(401).header("WWW-Authenticate", "Basic realm=x"),
            (_, "HEAD") => Reply::status(404),
            _ => Reply::status(202).header("Location", target.clone()),
        })
        .await;
    let setup = Setup::login("me", "secret");
    let repository = setup.repository(&format!("{}/a", server.address), Access::Push);
    let observer: Arc<dyn Observer> = setup.heard.clone();
    assert_eq!(repository.push_blob(&descriptor, &blob, &[], &observer).await.unwrap(), Pushed::Uploaded);
    let got = storage.seen().remove(0);
    assert_eq!(got.header("authorization"), None);
    assert_eq!(got.path, format!("/up?state=1&digest={}", descriptor.digest.as_str().replace(':', "%3A")));
    assert!(got.body == blob);
}

#[tokio::test]
async fn sends_again_what_broke() {
    let blob = Bytes::from(noise(200_000));
    let descriptor = Descriptor::of(LAYER, &blob);
    let server = Scripted::start(move |number, request| match (number, request.method.as_str()) {
        (_, "HEAD") => Reply::status(404),
        (_, "POST") => Reply::status(202).header("Location", "/up"),
        (2, _) => Reply::status(200).cut(0),
        (5, _) => Reply::status(502),
        _ => Reply::status(201),
    })
    .await;
    let setup = Setup::default();
    let repository = setup.repository(&format!("{}/a", server.address), Access::Push);
    let observer: Arc<dyn Observer> = setup.heard.clone();
    assert_eq!(repository.push_blob(&descriptor, &blob, &[], &observer).await.unwrap(), Pushed::Uploaded);
    let last = server.seen().pop().unwrap();
    assert_eq!((last.method.as_str(), last.body == blob), ("PUT", true));
    // What the registry stored is not what was sent.
    let server = Scripted::start(move |_, request| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => Reply::status(202).header("Location", "/up"),
        _ => Reply::status(201).header("Docker-Content-Digest", Digest::sha256_of("other").as_str()),
    })
    .await;
    let repository = setup.repository(&format!("{}/a", server.address), Access::Push);
    let error = repository.push_blob(&descriptor, &blob, &[], &observer).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn asks_mirrors_first() {
    let mirror = Scripted::start(|_, _| Reply::status(404)).await;
    let blob = noise(10);
    let descriptor = Descriptor::of(LAYER, &blob);
    let origin = Scripted::start(move |_, _| Reply::ok(&blob)).await;
    let mut setup = Setup::default();
    let host = HostSettings { mirrors: vec![format!("{}/cache", mirror.address)], ..HostSettings::default() };
    setup.settings.hosts.insert(origin.address.clone(), host);
    let repository = setup.repository(&format!("{}/a", origin.address), Access::Pull);
    read_all(repository.blob_verified(&descriptor).await.unwrap()).await.unwrap();
    let namespace = origin.address.replace(':', "%3A");
    assert_eq!(mirror.lines(), [format!("GET /v2/cache/a/blobs/{}?ns={namespace}", descriptor.digest)]);
    assert_eq!(origin.lines(), [format!("GET /v2/a/blobs/{}", descriptor.digest)]);
}

#[tokio::test]
async fn shows_what_the_registry_says() {
    let server = Scripted::start(|_, _| Reply {
        status: 403,
        ..Reply::ok(r#"{"errors":[{"code":"DENIED","message":"pay \u001b[31mfirst"}]}"#)
    })
    .await;
    let error = server.repository("a").resolve("t").await.unwrap_err();
    assert!(error.to_string().ends_with("403 Forbidden: denied: pay [31mfirst"), "{error}");
}
