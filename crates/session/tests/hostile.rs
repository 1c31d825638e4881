//! Peers that do what no honest one does.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use bytes::Bytes;
use common::{handle, spools, tiny_spools};
use futures::StreamExt;
use kiln_proto::fsutil_types::packet::PacketType;
use kiln_proto::fsutil_types::{Packet, Stat};
use kiln_session::fsync::{
    DirSink, DirSinkOptions, LocalDir, OwnerPolicy, ReceiveLimits, SyncError, receive, send,
};
use kiln_spool::Spools;
use tokio::sync::mpsc;
use tonic::Status;

const DIR: u32 = 1 << 31 | 0o755;
const SYMLINK: u32 = 1 << 27 | 0o777;
const CHAR: u32 = 1 << 26 | 1 << 21 | 0o600;

fn stat(path: &str, mode: u32) -> Packet {
    Packet {
        stat: Some(Stat { path: path.into(), mode, size: 1, ..Default::default() }),
        ..Default::default()
    }
}

fn link(path: &str, mode: u32, target: &str) -> Packet {
    let mut packet = stat(path, mode);
    if let Some(stat) = &mut packet.stat {
        stat.linkname = target.into();
    }
    packet
}

fn packet(kind: PacketType, id: u32, data: &[u8]) -> Packet {
    Packet { r#type: kind as i32, id, data: Bytes::copy_from_slice(data), ..Default::default() }
}

fn data(id: u32, data: &[u8]) -> Packet {
    packet(PacketType::PacketData, id, data)
}

fn last() -> Packet {
    Packet::default()
}

fn fin() -> Packet {
    packet(PacketType::PacketFin, 0, b"")
}

/// Feeds packets to a receiver into `to`, in steps: a step is sent when the receiver has answered the one before.
async fn feed(to: &Path, steps: Vec<Vec<Packet>>, limits: ReceiveLimits) -> Result<(), SyncError> {
    feed_with(to, spools(), steps, limits).await
}

async fn feed_with(
    to: &Path,
    spools: Spools,
    steps: Vec<Vec<Packet>>,
    limits: ReceiveLimits,
) -> Result<(), SyncError> {
    let (sink, outcome) =
        DirSink::new(handle(to), DirSinkOptions { owner: OwnerPolicy::Own, ..DirSinkOptions::new(spools) });
    let (packets, incoming) = mpsc::unbounded_channel::<Result<Packet, Status>>();
    let (outgoing, answers) = mpsc::unbounded_channel();
    let mut answers =
        tokio_stream::wrappers::UnboundedReceiverStream::new(answers).flat_map(futures::stream::iter);
    let feeding = tokio::spawn(async move {
        let mut steps = steps.into_iter();
        for packet in steps.next().unwrap_or_default() {
            let _ = packets.send(Ok(packet));
        }
        for step in steps {
            // A request, or the receiver's FIN.
            if answers.next().await.is_none() {
                return;
            }
            for packet in step {
                let _ = packets.send(Ok(packet));
            }
        }
        // The stream stays open: nothing but the receiver ends it.
        std::future::pending::<()>().await;
    });
    let incoming = tokio_stream::wrappers::UnboundedReceiverStream::new(incoming);
    let transfer = receive(incoming, outgoing, sink, limits, |_, _| {});
    let result =
        tokio::time::timeout(std::time::Duration::from_secs(20), transfer).await.expect("comes to an end");
    feeding.abort();
    let outcome = outcome.into_tree().await;
    if result.is_ok() {
        outcome.expect("is known");
    }
    result
}

/// Why it is refused: whatever of the lists is in memory.
async fn refused(steps: Vec<Vec<Packet>>) -> String {
    let (to, lists) = (tempfile::tempdir().expect("makes"), tempfile::tempdir().expect("makes"));
    let tiny = feed_with(to.path(), tiny_spools(lists.path()), steps.clone(), ReceiveLimits::default()).await;
    let to = tempfile::tempdir().expect("makes a directory");
    let result = feed(to.path(), steps, ReceiveLimits::default()).await.expect_err("is refused").to_string();
    assert_eq!(tiny.expect_err("is refused").to_string(), result);
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_sender_first() {
    let to = tempfile::tempdir().expect("makes a directory");
    let steps = vec![vec![stat("a", 0o644), last()], vec![data(0, b"x"), data(0, b"")], vec![fin()]];
    feed(to.path(), steps, ReceiveLimits::default()).await.expect("transfers");
    assert_eq!(fs::read(to.path().join("a")).expect("reads"), b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_that_lead_out() {
    for path in ["../a", "/etc/passwd", "a/../../b", "", ".", "..", "a//b", "a/"] {
        let text = refused(vec![vec![stat("a", DIR), stat(path, 0o644), last()]]).await;
        assert!(text.contains("invalid argument") || text.contains("out of order"), "{path}: {text}");
    }
    let text = refused(vec![vec![link("a", SYMLINK, "/etc"), stat("a/b", 0o644), last()]]).await;
    assert_eq!(text, r#"changes out of order: "a/b" "a""#);
    let text = refused(vec![vec![link("a", 0o644, "../../etc/passwd"), last()]]).await;
    assert_eq!(text, r#"invalid link a to unknown path: "../../etc/passwd""#);
    let text = refused(vec![vec![link("a", SYMLINK, "/etc/passwd"), link("b", 0o644, "a"), last()]]).await;
    assert_eq!(text, r#"invalid link b to unknown path: "a""#);
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_links_lead_to_files_that_came_before() {
    // So many that most are not in memory.
    let files = || (0..200).map(|number| stat(&format!("c{number:03}"), 0o644));
    for (target, among) in [
        ("d", vec![stat("d", DIR)]),
        ("d", vec![link("d", SYMLINK, "c000")]),
        ("d", vec![link("d", 0o644, "c007")]),
        ("m", vec![]),
        ("z", vec![]),
        ("c200", vec![]),
        ("c0070", vec![]),
        ("", vec![stat("d", DIR), link("d/e", 0o644, "d/e")]),
        ("./c000", vec![]),
        ("/c000", vec![]),
    ] {
        let packets = files().chain(among).chain([link("m", 0o644, target), stat("z", 0o644), last()]);
        let text = refused(vec![packets.collect()]).await;
        let (path, target) = if target.is_empty() { ("d/e", "d/e") } else { ("m", target) };
        assert_eq!(text, format!("invalid link {path} to unknown path: {target:?}"));
    }
    let (to, lists) = (tempfile::tempdir().expect("makes"), tempfile::tempdir().expect("makes"));
    let links = ["c000", "c007", "c063", "c064", "c199"];
    let named = links.iter().map(|target| link(&format!("l{target}"), 0o644, target));
    let mut empty: Vec<Packet> = files().chain(named).chain([last()]).collect();
    for packet in &mut empty {
        if let Some(stat) = &mut packet.stat {
            stat.size = 0;
        }
    }
    let steps = vec![empty, vec![fin()]];
    let spools = tiny_spools(lists.path());
    feed_with(to.path(), spools, steps, ReceiveLimits::default()).await.expect("transfers");
    let inode = |name: &str| {
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(to.path().join(name)).expect("is there"))
    };
    for target in links {
        assert_eq!(inode(target), inode(&format!("l{target}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_are_there_already() {
    let outside = tempfile::tempdir().expect("makes a directory");
    fs::write(outside.path().join("f"), "precious").expect("writes");
    let to = tempfile::tempdir().expect("makes a directory");
    symlink(outside.path(), to.path().join("d")).expect("links");
    symlink(outside.path().join("f"), to.path().join("e")).expect("links");
    let steps = vec![
        vec![stat("d", DIR), stat("d/f", 0o644), stat("e", 0o644), last()],
        vec![],
        vec![data(1, b"x"), data(1, b""), data(2, b"y"), data(2, b"")],
        vec![fin()],
    ];
    feed(to.path(), steps, ReceiveLimits::default()).await.expect("transfers");
    assert_eq!(fs::read(outside.path().join("f")).expect("reads"), b"precious");
    assert_eq!(fs::read(to.path().join("d/f")).expect("reads"), b"x");
    assert_eq!(fs::read(to.path().join("e")).expect("reads"), b"y");
    assert!(fs::symlink_metadata(to.path().join("e")).expect("is there").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_out_of_place() {
    assert_eq!(refused(vec![vec![data(0, b"x")]]).await, "invalid file request 0");
    assert_eq!(
        refused(vec![vec![stat("a", 0o644), last()], vec![data(1, b"x")]]).await,
        "invalid file request 1"
    );
    let twice = vec![data(0, b"x"), data(0, b""), data(0, b"")];
    assert_eq!(
        refused(vec![vec![stat("a", 0o644), stat("b", 0o644), last()], twice]).await,
        "invalid file request 0"
    );
    assert_eq!(refused(vec![vec![fin()]]).await, "unexpected FIN");
    assert_eq!(refused(vec![vec![stat("a", 0o644), last()], vec![fin()]]).await, "unexpected FIN");
    assert_eq!(
        refused(vec![vec![stat("a", 0o644), last(), stat("b", 0o644)]]).await,
        "file after the last one"
    );
    assert_eq!(
        refused(vec![vec![packet(PacketType::PacketReq, 0, b"")]]).await,
        "unexpected packet of type 1"
    );
    assert_eq!(
        refused(vec![vec![Packet { r#type: 99, ..Default::default() }]]).await,
        "unexpected packet of type 99"
    );
    assert_eq!(refused(vec![vec![packet(PacketType::PacketErr, 0, b"no")]]).await, "error from sender: no");
    // A directory has no contents to give.
    assert_eq!(refused(vec![vec![stat("a", DIR), last(), data(0, b"x")]]).await, "invalid file request 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_comes_before_the_end_of_the_connection() {
    let to = tempfile::tempdir().expect("makes a directory");
    let (sink, _outcome) = DirSink::new(handle(to.path()), DirSinkOptions::new(spools()));
    let (outgoing, _answers) = mpsc::unbounded_channel();
    let packets = [Ok(packet(PacketType::PacketErr, 0, b"no")), Err(Status::aborted("gone"))];
    let limits = ReceiveLimits::default();
    let result = receive(futures::stream::iter(packets), outgoing, sink, limits, |_, _| {}).await;
    assert_eq!(result.expect_err("is broken off").to_string(), "error from sender: no");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_mean_something_to_layers() {
    assert_eq!(refused(vec![vec![stat("a", CHAR), last()]]).await, r#"invalid device of "a""#);
    let strange = refused(vec![vec![stat("a", 1 << 19), last()]]).await;
    assert_eq!(strange, r#"invalid mode 0x80000 of "a""#);
    let to = tempfile::tempdir().expect("makes a directory");
    let mut opaque = stat("d", DIR);
    if let Some(stat) = &mut opaque.stat {
        stat.xattrs.insert("user.overlay.opaque".into(), "y".into());
        stat.xattrs.insert("trusted.overlay.opaque".into(), "y".into());
        stat.xattrs.insert("user.kiln.owner".into(), "0:0".into());
    }
    feed(to.path(), vec![vec![opaque, last()], vec![fin()]], ReceiveLimits::default())
        .await
        .expect("transfers");
    let mut list = [0; 256];
    let length = rustix::fs::listxattr(to.path().join("d"), &mut list[..]).unwrap_or(0);
    assert_eq!(length, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much() {
    let to = tempfile::tempdir().expect("makes a directory");
    let limits = ReceiveLimits { entries_max: 2, path_bytes_max: 10, total_bytes_max: 3 };
    let many = (0..3).map(|number| stat(&format!("f{number}"), DIR)).collect();
    let error = feed(to.path(), vec![many], limits).await.expect_err("is too much").to_string();
    assert_eq!(error, "files exceed the limit of 2");
    let error = feed(to.path(), vec![vec![stat("elevenchars", DIR)]], limits).await.expect_err("is too much");
    assert_eq!(error.to_string(), "path bytes exceed the limit of 10");
    let steps = vec![vec![stat("a", 0o644), last()], vec![data(0, b"four")]];
    let error = feed(to.path(), steps, limits).await.expect_err("is too much").to_string();
    assert_eq!(error, "file bytes exceed the limit of 3");
    let large = vec![0; (1 << 20) + 1];
    let steps = vec![vec![stat("a", 0o644), last()], vec![data(0, &large)]];
    let error = feed(to.path(), steps, ReceiveLimits::default()).await.expect_err("is too much").to_string();
    assert_eq!(error, "packet bytes exceed the limit of 1048576");
    // All files at once, of which each has begun.
    let count = 1000;
    let files = (0..count).map(|number| stat(&format!("f{number:04}"), 0o644)).chain([last()]).collect();
    let mut steps = vec![files];
    steps.extend((0..count - 1).map(|_| vec![]));
    steps.push((0..count).map(|id| data(id, b"x")).collect());
    let error = feed(to.path(), steps, ReceiveLimits::default()).await.expect_err("is too much").to_string();
    assert_eq!(error, "files at once exceed the limit of 128");
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_that_ask_for_the_wrong_thing() {
    let lists = tempfile::tempdir().expect("makes a directory");
    let from = tempfile::tempdir().expect("makes a directory");
    fs::write(from.path().join("a"), "x").expect("writes");
    fs::create_dir(from.path().join("d")).expect("makes");
    // Enough for a list in a file.
    let many = 300;
    for number in 0..many {
        fs::write(from.path().join(format!("f{number:03}")), "x").expect("writes");
    }
    let ask = |id| packet(PacketType::PacketReq, id, b"");
    for (packets, expected) in [
        (vec![ask(2 + many)], "invalid file id 302"),
        (vec![ask(u32::MAX)], "invalid file id 4294967295"),
        (vec![ask(1)], "invalid file id 1"),
        (vec![ask(0), ask(0)], "invalid file id 0"),
        (vec![ask(0), ask(200), ask(301), ask(200)], "invalid file id 200"),
        (vec![data(0, b"x")], "unexpected packet of type 2"),
        (vec![packet(PacketType::PacketErr, 0, b"no")], "error from receiver: no"),
        (vec![], "unexpected EOF"),
    ] {
        for spools in [spools(), tiny_spools(lists.path())] {
            let (requests, incoming) = mpsc::unbounded_channel();
            let incoming = tokio_stream::wrappers::UnboundedReceiverStream::new(incoming);
            let (mut answers, transfer) = send(incoming, LocalDir::new(from.path()), spools, |_, _| {});
            // Everything is listed first.
            for _ in 0..many + 3 {
                answers.next().await.expect("is listed");
            }
            for packet in &packets {
                let _ = requests.send(Ok(packet.clone()));
            }
            if expected.contains("EOF") {
                drop(requests);
            }
            while answers.next().await.is_some() {}
            let error = transfer.await.expect("does not panic").expect_err("is refused");
            assert_eq!(error.to_string(), expected);
        }
    }
}

/// A file system with next to no room, gone in the end.
struct FullDisk(tempfile::TempDir);

impl FullDisk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().expect("makes a directory");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8k", "none"]).arg(dir.path());
        if !mount.status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: mounting a file system is not allowed here");
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_may_be_no_room_for_lists() {
    let full = FullDisk::new();
    let folders = [(Path::new("/nowhere/at/all"), "No such file")];
    let full = full.as_ref().map(|full| (full.0.path(), "No space left"));
    for (folder, reason) in folders.into_iter().chain(full) {
        let expected = format!("keep a list of files in {}", folder.display());
        let to = tempfile::tempdir().expect("makes a directory");
        let files = (0..1000).map(|number| stat(&format!("f{number:04}"), DIR)).chain([last()]).collect();
        let spools = tiny_spools(folder);
        let error = feed_with(to.path(), spools.clone(), vec![files], ReceiveLimits::default()).await;
        let error = error.expect_err("has no room");
        let cause = std::error::Error::source(&error).expect("has a cause").to_string();
        assert_eq!(error.to_string(), expected);
        assert!(cause.contains(reason), "{cause}");

        let (_requests, incoming) = mpsc::unbounded_channel();
        let incoming = tokio_stream::wrappers::UnboundedReceiverStream::new(incoming);
        let from = LocalDir::new(to.path());
        for number in 0..1000 {
            fs::write(to.path().join(format!("{number:0>100}")), "x").expect("writes");
        }
        let (mut answers, transfer) = send(incoming, from, spools, |_, _| {});
        let mut end = None;
        while let Some(packet) = answers.next().await {
            end = Some(packet);
        }
        let error = transfer.await.expect("does not panic").expect_err("has no room");
        assert_eq!(error.to_string(), expected);
        // The receiver hears it.
        let told = String::from_utf8(end.expect("says why").data.to_vec()).expect("is text");
        assert!(told.starts_with(&expected) && told.contains(reason), "{told}");
    }
}

/// Lists everything before it gives anything: each file that is asked for takes memory in the receiver.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_lists_all_first_is_asked_for_little_at_once() {
    const FILES: u32 = 10_000;
    let to = tempfile::tempdir().expect("makes a directory");
    let (sink, outcome) = DirSink::new(
        handle(to.path()),
        DirSinkOptions { owner: OwnerPolicy::Own, ..DirSinkOptions::new(spools()) },
    );
    let (packets, incoming) = mpsc::unbounded_channel::<Result<Packet, Status>>();
    let (outgoing, mut answers) = mpsc::unbounded_channel::<Vec<Packet>>();
    let feeding = tokio::spawn(async move {
        for file in 0..FILES {
            packets.send(Ok(stat(&format!("f{file:05}"), 0o644))).expect("listens");
        }
        packets.send(Ok(last())).expect("listens");
        let (mut asked, mut given, mut most) = (Vec::new(), 0, 0);
        while given < FILES as usize {
            // It asks on when it has what it asked for; then all that it asks for without being given anything.
            let mut more = Some(answers.recv().await.expect("asks on"));
            while let Some(some) = more {
                asked.extend(some.into_iter().map(|packet| packet.id));
                let wait = std::time::Duration::from_millis(100);
                more = tokio::time::timeout(wait, answers.recv()).await.unwrap_or_default();
            }
            most = most.max(asked.len() - given);
            for id in &asked[given..] {
                packets.send(Ok(data(*id, b"x"))).expect("listens");
                packets.send(Ok(data(*id, b""))).expect("listens");
            }
            given = asked.len();
        }
        let end = answers.recv().await.expect("says that it has all");
        assert_eq!(end.last().map(|packet| packet.r#type), Some(PacketType::PacketFin as i32));
        packets.send(Ok(fin())).expect("listens");
        (asked, most)
    });
    let incoming = tokio_stream::wrappers::UnboundedReceiverStream::new(incoming);
    receive(incoming, outgoing, sink, ReceiveLimits::default(), |_, _| {}).await.expect("transfers");
    let (asked, most) = feeding.await.expect("all went well");
    assert!(asked.into_iter().eq(0..FILES), "each once and in order");
    assert!(most <= 4096, "{most} at once");
    assert_eq!(outcome.into_tree().await.expect("is known").len(), u64::from(FILES));
    assert_eq!(fs::read_dir(to.path()).expect("reads").count(), FILES as usize);
}
