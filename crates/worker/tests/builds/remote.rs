//! Sources from other places: registries, layouts, git, HTTP.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use kiln_llb::{Constraints, FileInfo, GitSource, HttpSource, ImageSource, OciLayoutSource, State};
use kiln_testkit::{Registry, bases};

use crate::bench::{Bench, sh};
use crate::run;

pub const TESTS: &[(&str, fn())] = &[
    ("remote::an_image_is_fetched_when_read", || run(an_image_is_fetched_when_read())),
    ("remote::a_layout_of_the_client", || run(a_layout_of_the_client())),
    ("remote::platforms_that_are_not_there", || run(platforms_that_are_not_there())),
    ("remote::a_file_over_http", || run(a_file_over_http())),
    ("remote::a_git_repository", || run(a_git_repository())),
];

async fn an_image_is_fetched_when_read() {
    let registry = Registry::start();
    bases::push(&bases::busybox(), &registry, "busybox:latest");
    let bench = Bench::new().await;
    let image =
        State::image(&registry.reference("busybox:latest"), ImageSource::default(), Constraints::new())
            .unwrap();
    let state = sh(&image, "cat /etc/passwd > /copy");
    let first = bench.build(&state).await.ok();
    assert!(bench.read(&first, "/copy").await.starts_with("root:x:0:0"));
    drop(first);
    let bench = bench.restarted().await;
    let second = bench.build(&state).await.ok();
    assert!(!second.ran().iter().any(|name| name.starts_with("/bin/sh")), "{:?}", second.ran());
    // Nobody there any more, and nothing needed of it: the digest says all.
    let missing =
        State::image(&registry.reference("nothing:latest"), ImageSource::default(), Constraints::new())
            .unwrap();
    let error = bench.build(&sh(&missing, "true")).await;
    assert!(error.error().contains("not found"), "{}", error.error());
}

async fn a_layout_of_the_client() {
    let layout = bases::busybox();
    let index = std::fs::read(layout.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let bench = Bench::with_layouts(vec![("store".into(), layout)]).await;
    let options = OciLayoutSource {
        session_id: bench.session.to_string(),
        store_id: "store".into(),
        ..OciLayoutSource::default()
    };
    let image = State::oci_layout(&format!("local/name@{digest}"), options, Constraints::new());
    let built = bench.build(&sh(&image, "echo here > /made")).await.ok();
    assert_eq!(bench.read(&built, "/made").await, "here\n");
}

async fn platforms_that_are_not_there() {
    let registry = Registry::start();
    bases::push(&bases::busybox(), &registry, "busybox:latest");
    let bench = Bench::new().await;
    let constraints = Constraints::new().platform(kiln_oci::Platform::linux("s390x"));
    let image =
        State::image(&registry.reference("busybox:latest"), ImageSource::default(), constraints).unwrap();
    let built = bench.build(&image).await;
    assert!(built.error().contains("no match for platform in manifest"), "{}", built.error());
}

/// Serves a folder, and counts what is asked for.
struct Files {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Files {
    fn serve(root: PathBuf) -> Files {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), root, log) = (stream, root.clone(), log.clone()) else { return };
                std::thread::spawn(move || answer(&mut stream, &root, &log));
            }
        });
        Files { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn answer(stream: &mut std::net::TcpStream, root: &Path, log: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
    let file = root.join(path.trim_start_matches('/'));
    let Ok(content) = std::fs::read(&file) else {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let etag = format!("\"{}\"", kiln_oci::Digest::sha256_of(&content).short());
    let known = request.contains(&etag);
    log.lock().unwrap().push(format!("{path} {}", if known { 304 } else { 200 }));
    let head = if known {
        format!("HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\nConnection: close\r\n\r\n")
    } else {
        format!(
            "HTTP/1.1 200 OK\r\nETag: {etag}\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            content.len()
        )
    };
    let _ = stream.write_all(head.as_bytes());
    if !known {
        let _ = stream.write_all(&content);
    }
}

async fn a_file_over_http() {
    let bench = Bench::new().await;
    let served = tempfile::tempdir().unwrap();
    std::fs::write(served.path().join("file.txt"), "one").unwrap();
    let files = Files::serve(served.path().to_owned());
    let url = format!("{}/file.txt", files.address);
    let state = |options| State::http(&url, options, Constraints::new());
    let first = bench.build(&state(HttpSource::default())).await.ok();
    assert_eq!(bench.read(&first, "/file.txt").await, "one");
    let stat = bench.worker.stat_file(first.result.as_ref().unwrap(), "/file.txt").await.unwrap();
    assert_eq!((stat.mode & 0o777, stat.mod_time), (0o600, 1_445_412_480_000_000_000));
    assert_eq!(files.asked(), ["/file.txt 200"]);
    let second = bench.build(&state(HttpSource::default())).await.ok();
    assert_eq!(second.result, first.result);
    assert_eq!(files.asked(), ["/file.txt 304"]);
    std::fs::write(served.path().join("file.txt"), "two").unwrap();
    let options = || HttpSource {
        file: FileInfo { filename: "named".into(), perm: 0o644, uid: 3, ..FileInfo::default() },
        ..HttpSource::default()
    };
    let third = bench.build(&state(options())).await.ok();
    assert_eq!(bench.read(&third, "/named").await, "two");
    let wrong = HttpSource { checksum: Some(kiln_oci::Digest::sha256_of("other")), ..HttpSource::default() };
    assert!(bench.build(&state(wrong)).await.error().starts_with("digest mismatch"));
    let missing = State::http(&format!("{}/no", files.address), HttpSource::default(), Constraints::new());
    assert_eq!(bench.build(&missing).await.error(), "invalid response status 404");
}

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn a_git_repository() {
    let bench = Bench::new().await;
    let place = tempfile::tempdir().unwrap();
    let work = place.path().join("work");
    std::fs::create_dir_all(work.join("sub")).unwrap();
    git(&work, &["init"]);
    std::fs::write(work.join("file"), "one").unwrap();
    std::fs::write(work.join("sub/inner"), "in").unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "-m", "first"]);
    let commit = git(&work, &["rev-parse", "HEAD"]);
    git(&work, &["tag", "-a", "v1", "-m", "tag"]);
    let publish = || {
        let bare = place.path().join("repo.git");
        let _ = std::fs::remove_dir_all(&bare);
        git(place.path(), &["clone", "--bare", "work", "repo.git"]);
        // Plain files are enough for a reader that asks for no smart answers.
        git(&bare, &["update-server-info"]);
    };
    publish();
    let files = Files::serve(place.path().to_owned());
    let url = format!("{}/repo.git", files.address);
    let source = |options| State::git(&url, options, Constraints::new());
    let at = |reference: &str| GitSource { reference: reference.into(), ..GitSource::default() };
    let first = bench.build(&source(at("main"))).await.ok();
    assert_eq!(bench.read(&first, "/file").await, "one");
    assert!(bench.worker.read_file(first.result.as_ref().unwrap(), "/.git/HEAD", None).await.is_err());
    for options in [at(""), at(&commit), at("v1"), GitSource { checksum: commit.clone(), ..at("v1") }] {
        let again = bench.build(&source(options)).await.ok();
        assert_eq!(bench.read(&again, "/file").await, "one");
    }
    let sub = bench.build(&source(GitSource { subdir: "sub".into(), ..at("main") })).await.ok();
    assert_eq!(bench.read(&sub, "/inner").await, "in");
    let kept = bench.build(&source(GitSource { keep_git_dir: true, ..at("main") })).await.ok();
    assert!(bench.read(&kept, "/.git/config").await.contains(&url));
    let wrong = bench.build(&source(GitSource { checksum: "abcd".into(), ..at("main") })).await;
    assert!(wrong.error().starts_with("expected checksum to match abcd, got "), "{}", wrong.error());
    std::fs::write(work.join("file"), "two").unwrap();
    git(&work, &["commit", "-am", "second"]);
    publish();
    let moved = bench.build(&source(at("main"))).await.ok();
    assert_eq!(bench.read(&moved, "/file").await, "two");
    let none = bench.build(&source(at("no-such"))).await;
    assert!(none.error().starts_with("repository does not contain ref no-such"), "{}", none.error());
}
