//! Directories from one end to the other and back.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::{handle, session, spools, tiny_spools};
use futures::StreamExt;
use futures::stream::BoxStream;
use kiln_oci::Digest;
use kiln_proto::filesync::BytesMessage;
use kiln_proto::filesync::file_send_server::{FileSend, FileSendServer};
use kiln_session::client::Target;
use kiln_session::daemon::{Caller, Error, FileSyncRequest};
use kiln_session::fsync::{
    ContentDigest, Differ, DirSink, DirSinkOptions, FileKind, LocalDir, METADATA_FILE, OwnerPolicy, Tree,
    TreeEntry,
};
use kiln_session::patterns::PatternMatcher;
use kiln_spool::{Spool, Spools};
use tonic::{Request, Response, Status, Streaming};

fn write(top: &Path, path: &str, content: &str) {
    let path = top.join(path);
    fs::create_dir_all(path.parent().expect("is below")).expect("makes parents");
    fs::write(path, content).expect("writes");
}

fn age(path: &Path, seconds: u64) {
    let file = fs::File::open(path).expect("opens");
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).expect("sets times");
}

async fn receive(
    caller: &Caller,
    request: FileSyncRequest,
    to: &Path,
    options: DirSinkOptions,
) -> Result<Tree, Error> {
    let (sink, outcome) = DirSink::new(handle(to), options);
    let result = caller.receive_files(&request, sink, |_, _| {}).await;
    let tree = outcome.into_tree().await.expect("is known");
    result.map(|()| tree)
}

fn sha256(content: impl AsRef<[u8]>) -> ContentDigest {
    Digest::sha256_of(content).to_bytes().try_into().expect("is SHA-256")
}

fn context() -> FileSyncRequest {
    FileSyncRequest { name: "context".into(), ..Default::default() }
}

fn paths(tree: &Tree) -> Vec<String> {
    entries(tree).into_iter().map(|entry| entry.stat.path).collect()
}

fn entries(tree: &Tree) -> Vec<TreeEntry> {
    tree.iter().map(|entry| entry.expect("is readable")).collect()
}

fn get(tree: &Tree, path: &str) -> Option<TreeEntry> {
    tree.get(path).expect("is readable")
}

fn stored(spools: &Spools, bytes: &[u8]) -> Arc<Spool> {
    let mut spool = spools.spool();
    spool.append(bytes).expect("has room");
    Arc::new(spool)
}

/// What there is, whatever was made when.
fn held(tree: &Tree) -> Vec<TreeEntry> {
    entries(tree).into_iter().map(|entry| TreeEntry { fresh: false, ..entry }).collect()
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Added,
    Modified,
    Removed,
}

/// What a transfer did, by what it left and what was there before.
fn changes(before: &Tree, after: &Tree) -> Vec<(String, Change)> {
    let made = entries(after).into_iter().filter(|entry| entry.fresh).map(|entry| {
        let kind = if get(before, &entry.stat.path).is_some() { Change::Modified } else { Change::Added };
        (entry.stat.path, kind)
    });
    let gone = entries(before).into_iter().filter(|entry| get(after, &entry.stat.path).is_none());
    let mut list: Vec<_> = made.chain(gone.map(|entry| (entry.stat.path, Change::Removed))).collect();
    list.sort_by(|(a, _), (b, _)| a.cmp(b));
    list
}

/// What an outsider sees of a directory: paths with kind, mode, time, size, link or content.
fn look(top: &Path) -> Vec<String> {
    fn walk(top: &Path, dir: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(dir).expect("reads") {
            let path = entry.expect("is an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("is there");
            let name = path.strip_prefix(top).expect("is below").display();
            let what = if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&path).expect("is a link").display())
            } else if metadata.is_dir() {
                String::new()
            } else if metadata.is_file() {
                Digest::sha256_of(fs::read(&path).expect("reads")).short().to_string()
            } else {
                "special".into()
            };
            out.push(format!("{name} {:o} {} {what}", metadata.mode(), metadata.mtime()));
            if metadata.is_dir() {
                walk(top, &path, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(top, top, &mut out);
    out.sort();
    out
}

struct Dirs {
    _keep: tempfile::TempDir,
    from: std::path::PathBuf,
    to: std::path::PathBuf,
    /// At both ends.
    spools: Spools,
}

/// Directories to transfer between, once with lists of files in memory, once with lists in files.
fn dirs() -> impl Iterator<Item = Dirs> {
    [false, true].into_iter().map(|tiny| {
        let keep = tempfile::tempdir().expect("makes a directory");
        let (from, to) = (keep.path().join("from"), keep.path().join("to"));
        fs::create_dir(&from).expect("makes");
        fs::create_dir(&to).expect("makes");
        let spools = if tiny { tiny_spools(keep.path()) } else { spools() };
        Dirs { _keep: keep, from, to, spools }
    })
}

impl Dirs {
    fn nothing(&self) -> Tree {
        Tree::new(&self.spools)
    }

    fn options(&self, previous: Tree) -> DirSinkOptions {
        let previous = Some(previous.stored().clone());
        DirSinkOptions { previous, owner: OwnerPolicy::Own, ..DirSinkOptions::new(self.spools.clone()) }
    }

    async fn serving(&self) -> common::Open {
        let (from, spools) = (self.from.clone(), self.spools.clone());
        let dirs = vec![("context".into(), LocalDir::context(from))];
        session(move |session| session.directories(dirs, spools)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_a_directory_may_hold() {
    for dirs in dirs() {
        write(&dirs.from, "a/b/c.txt", "content");
        write(&dirs.from, "a-b", "comes after a/");
        write(&dirs.from, "empty", "");
        write(&dirs.from, "large", &"0123456789".repeat(100_000));
        write(&dirs.from, "tool", "#!/bin/sh");
        write(&dirs.from, "närrisch ☃", "unicode");
        fs::set_permissions(dirs.from.join("tool"), fs::Permissions::from_mode(0o4755)).expect("sets");
        fs::set_permissions(dirs.from.join("a/b"), fs::Permissions::from_mode(0o1777)).expect("sets");
        symlink("../outside", dirs.from.join("dangling")).expect("links");
        fs::hard_link(dirs.from.join("tool"), dirs.from.join("zlink")).expect("links");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dirs.from.join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o640),
            0,
        )
        .expect("makes a pipe");
        for (path, seconds) in [("a/b/c.txt", 1), ("tool", 1_700_000_000), ("a/b", 3), ("a", 4)] {
            age(&dirs.from.join(path), seconds);
        }

        let open = dirs.serving().await;
        let progress = Arc::new(Mutex::new((0, false)));
        let (sink, outcome) = DirSink::new(handle(&dirs.to), dirs.options(dirs.nothing()));
        let seen = progress.clone();
        open.caller
            .receive_files(&context(), sink, move |bytes, last| *seen.lock().expect("fine") = (bytes, last))
            .await
            .expect("transfers");
        let outcome = outcome.into_tree().await.expect("is known");

        assert_eq!(look(&dirs.to), look(&dirs.from));
        let (bytes, last) = *progress.lock().expect("fine");
        assert!(bytes > 1_000_000 && last);
        assert_eq!(
            paths(&outcome),
            [
                "a",
                "a/b",
                "a/b/c.txt",
                "a-b",
                "dangling",
                "empty",
                "large",
                "närrisch ☃",
                "pipe",
                "tool",
                "zlink"
            ]
        );
        assert!(entries(&outcome).iter().all(|entry| entry.complete));
        let entry = |path| get(&outcome, path).expect("is there");
        assert_eq!(entry("a/b/c.txt").digest, Some(sha256("content")));
        assert_eq!(entry("empty").digest, Some(sha256("")));
        assert_eq!(entry("zlink").stat.linkname, "tool");
        assert_eq!(entry("zlink").digest, None);
        assert_eq!(entry("pipe").stat.kind(), FileKind::Fifo);
        let inode = |path| fs::metadata(dirs.to.join(path)).expect("is there").ino();
        assert_eq!(inode("tool"), inode("zlink"));

        // The same again: nothing happens.
        let again = receive(&open.caller, context(), &dirs.to, dirs.options(outcome.clone()))
            .await
            .expect("transfers");
        assert_eq!(changes(&outcome, &again), []);
        assert_eq!(held(&again), held(&outcome));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_made_again_and_never_in_place() {
    for dirs in dirs() {
        for path in ["dir/one", "dir/two", "gone/deep/file", "kind", "linked"] {
            write(&dirs.from, path, path);
            age(&dirs.from.join(path), 1000);
        }
        fs::create_dir(dirs.from.join("was-dir")).expect("makes");
        write(&dirs.from, "was-dir/inside", "x");
        fs::hard_link(dirs.from.join("linked"), dirs.from.join("second")).expect("links");
        let open = dirs.serving().await;
        let first = receive(&open.caller, context(), &dirs.to, dirs.options(dirs.nothing()))
            .await
            .expect("transfers");

        // Somebody else holds on to what came first.
        let held = dirs.to.parent().expect("has one").join("held");
        fs::hard_link(dirs.to.join("dir/one"), &held).expect("links");
        let mode_held = dirs.to.parent().expect("has one").join("mode-held");
        fs::hard_link(dirs.to.join("dir/two"), &mode_held).expect("links");

        write(&dirs.from, "dir/one", "new content");
        fs::set_permissions(dirs.from.join("dir/two"), fs::Permissions::from_mode(0o600)).expect("sets");
        fs::remove_dir_all(dirs.from.join("gone")).expect("removes");
        fs::remove_file(dirs.from.join("kind")).expect("removes");
        write(&dirs.from, "kind/now-a-dir", "y");
        fs::remove_dir_all(dirs.from.join("was-dir")).expect("removes");
        symlink("/etc", dirs.from.join("was-dir")).expect("links");
        write(&dirs.from, "linked", "changed under its second name");

        let second =
            receive(&open.caller, context(), &dirs.to, dirs.options(first.clone())).await.expect("transfers");
        assert_eq!(look(&dirs.to), look(&dirs.from));
        use Change::{Added, Modified, Removed};
        assert_eq!(
            changes(&first, &second),
            [
                ("dir/one", Modified),
                ("dir/two", Modified),
                ("gone", Removed),
                ("gone/deep", Removed),
                ("gone/deep/file", Removed),
                ("kind", Modified),
                ("kind/now-a-dir", Added),
                ("linked", Modified),
                ("second", Modified),
                ("was-dir", Modified),
                ("was-dir/inside", Removed),
            ]
            .map(|(path, change)| (path.to_string(), change))
        );
        assert_eq!(fs::read_to_string(&held).expect("reads"), "dir/one");
        assert_eq!(fs::metadata(&mode_held).expect("is there").mode() & 0o777, 0o644);
        assert_eq!(get(&second, "dir/one").and_then(|e| e.digest), Some(sha256("new content")));

        // Without comparing, all files are made again.
        let all = DirSinkOptions { differ: Differ::None, ..dirs.options(second.clone()) };
        let third = receive(&open.caller, context(), &dirs.to, all).await.expect("transfers");
        let files = ["dir/one", "dir/two", "kind/now-a-dir", "linked", "second", "was-dir"];
        assert_eq!(changes(&second, &third), files.map(|path| (path.to_string(), Modified)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_choose() {
    for dirs in dirs() {
        for path in ["a/keep.txt", "a/drop.o", "a/keep.o", "b/sub/x", "b/y", "c", "node_modules/m/index.js"] {
            write(&dirs.from, path, path);
        }
        symlink("../b/sub", dirs.from.join("a/to-sub")).expect("links");
        let open = dirs.serving().await;
        let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        for (include, exclude, follow, expected) in [
            (
                vec![],
                vec!["**/*.o", "!a/keep.o", "node_modules"],
                vec![],
                "a a/keep.o a/keep.txt a/to-sub b b/sub b/sub/x b/y c",
            ),
            (vec![], vec!["*", "!b/sub"], vec![], "b b/sub b/sub/x"),
            (vec![], vec!["**"], vec![], ""),
            (vec!["b/sub"], vec![], vec![], "b b/sub b/sub/x"),
            (vec!["*/*.o"], vec!["a/drop*"], vec![], "a a/keep.o"),
            (vec![], vec![], vec!["a/to-sub/x"], "a a/to-sub b b/sub b/sub/x"),
            (vec![], vec![], vec!["a/to-*"], "a a/to-sub b b/sub b/sub/x"),
            (vec![], vec![], vec!["missing"], ""),
            (
                vec![],
                vec!["c"],
                vec!["."],
                "a a/drop.o a/keep.o a/keep.txt a/to-sub b b/sub b/sub/x b/y node_modules node_modules/m node_modules/m/index.js",
            ),
            (vec!["å*"], vec![], vec![], ""),
        ] {
            let to = tempfile::tempdir().expect("makes a directory");
            let request = FileSyncRequest {
                include_patterns: names(&include),
                exclude_patterns: names(&exclude),
                follow_paths: names(&follow),
                ..context()
            };
            let outcome = receive(&open.caller, request, to.path(), dirs.options(dirs.nothing()))
                .await
                .expect("transfers");
            assert_eq!(paths(&outcome).join(" "), expected, "{include:?} {exclude:?} {follow:?}");
        }
        let bad = FileSyncRequest { exclude_patterns: names(&["["]), ..context() };
        let error = receive(&open.caller, bad, &dirs.to, dirs.options(dirs.nothing()))
            .await
            .expect_err("is no pattern");
        assert_eq!(error.to_string(), r#"invalid excludepatterns: ["["]: syntax error in pattern"#);
        let other = FileSyncRequest { name: "/etc".into(), ..Default::default() };
        let error = receive(&open.caller, other, &dirs.to, dirs.options(dirs.nothing()))
            .await
            .expect_err("is not served");
        assert_eq!(error.to_string(), r#"no access allowed to dir "/etc""#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_small_files() {
    for dirs in dirs() {
        for dir in 0..100 {
            fs::create_dir(dirs.from.join(format!("d{dir}"))).expect("makes");
            for file in 0..100 {
                fs::write(dirs.from.join(format!("d{dir}/f{file}")), format!("{dir} {file}"))
                    .expect("writes");
            }
        }
        let open = dirs.serving().await;
        let started = std::time::Instant::now();
        let first = receive(&open.caller, context(), &dirs.to, dirs.options(dirs.nothing()))
            .await
            .expect("transfers");
        let fresh = started.elapsed();
        assert_eq!(changes(&dirs.nothing(), &first).len(), 10_100);
        assert_eq!(look(&dirs.to), look(&dirs.from));
        let started = std::time::Instant::now();
        let again =
            receive(&open.caller, context(), &dirs.to, dirs.options(first.clone())).await.expect("transfers");
        assert_eq!(changes(&first, &again), []);
        eprintln!("10,000 files: {fresh:?} fresh, {:?} unchanged", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_only_with_exceptions() {
    for dirs in dirs() {
        for path in ["a/b/wanted", "a/other", "z"] {
            write(&dirs.from, path, path);
        }
        let open = dirs.serving().await;
        let except = PatternMatcher::new(["**/wanted"]).expect("is a pattern");
        let with = DirSinkOptions { metadata_only: Some(except), ..dirs.options(dirs.nothing()) };
        let outcome = receive(&open.caller, context(), &dirs.to, with).await.expect("transfers");
        assert_eq!(paths(&outcome), [METADATA_FILE, "a", "a/b", "a/b/wanted"]);
        let list = fs::read(dirs.to.join(METADATA_FILE)).expect("reads");
        let mut rest = list.as_slice();
        let mut listed = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (stat, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            let stat: kiln_proto::fsutil_types::Stat =
                kiln_proto::prost::Message::decode(stat).expect("is one");
            listed.push(stat.path);
            rest = after;
        }
        assert_eq!(listed, ["a", "a/b", "a/b/wanted", "a/other", "z"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_go_to_directories() {
    for dirs in dirs() {
        write(&dirs.from, "new/file", "from the daemon");
        write(&dirs.from, "same", "new");
        symlink("same", dirs.from.join("link")).expect("links");
        write(&dirs.to, "kept", "by the person");
        write(&dirs.to, "same", "old");
        write(&dirs.to, "new/kept", "too");
        let mirror = dirs.to.parent().expect("has one").join("mirror/made");
        let targets = vec![
            (0, Target::Dir { path: dirs.to.clone(), delete: false }),
            (7, Target::Dir { path: mirror.clone(), delete: true }),
        ];
        let open = session(|session| session.targets(targets, dirs.spools.clone())).await;
        let source = || LocalDir::new(&dirs.from);
        open.caller.send_files(0, false, source(), dirs.spools.clone(), |_, _| {}).await.expect("transfers");
        assert_eq!(fs::read_to_string(dirs.to.join("new/file")).expect("reads"), "from the daemon");
        assert_eq!(fs::read_to_string(dirs.to.join("link")).expect("reads"), "new");
        assert_eq!(fs::read_to_string(dirs.to.join("kept")).expect("reads"), "by the person");
        assert_eq!(fs::read_to_string(dirs.to.join("new/kept")).expect("reads"), "too");
        // The hint to the file system was taken back. (Not all of them have such flags.)
        let flags = rustix::fs::ioctl_getflags(handle(&dirs.to));
        assert!(flags.is_err() || flags.is_ok_and(|flags| !flags.contains(rustix::fs::IFlags::TOPDIR)));

        write(&mirror, "old/stuff", "goes");
        let error = open
            .caller
            .send_files(7, false, source(), dirs.spools.clone(), |_, _| {})
            .await
            .expect_err("is too old a daemon");
        assert!(error.to_string().starts_with("local exporter mode=delete requires"), "{error}");
        assert!(mirror.join("old/stuff").exists());
        open.caller.send_files(7, true, source(), dirs.spools.clone(), |_, _| {}).await.expect("transfers");
        assert_eq!(look(&mirror), look(&dirs.from));
        let error = open
            .caller
            .send_files(3, false, source(), dirs.spools.clone(), |_, _| {})
            .await
            .expect_err("is no exporter");
        assert_eq!(error.to_string(), "exporter 3 not found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_go_to_files() {
    for dirs in dirs() {
        let path = dirs.to.join("out.tar");
        let file = path.clone();
        let open_file = Target::File(Box::new(move |metadata| {
            if metadata.get("unwanted").is_some_and(|value| value == "yes") {
                return Ok(None);
            }
            Ok(Some(Box::new(fs::File::create(&file)?)))
        }));
        let full = Target::File(Box::new(|_| {
            Ok(Some(Box::new(fs::File::options().write(true).open("/dev/full")?)))
        }));
        let open = session(|session| session.targets(vec![(1, open_file), (2, full)], spools())).await;
        let data = Bytes::from(vec![7; 5_000_000]);
        let mut sender =
            open.caller.send_file(1, &[("k".to_string(), "v".to_string())].into()).await.expect("opens");
        sender.write(data.clone()).await.expect("is taken");
        sender.finish().await.expect("is written");
        assert_eq!(fs::read(&path).expect("reads"), data);

        let unwanted = [("unwanted".to_string(), "yes".to_string())].into();
        let sender = open.caller.send_file(1, &unwanted).await.expect("opens");
        assert!(matches!(sender.finish().await, Err(Error::TargetExists)));

        let mut sender = open.caller.send_file(2, &Default::default()).await.expect("opens");
        let mut result = Ok(());
        for _ in 0..100 {
            result = sender.write(data.clone()).await;
            if result.is_err() {
                break;
            }
        }
        let error = match result {
            Err(error) => error,
            Ok(()) => sender.finish().await.expect_err("is full"),
        };
        assert!(error.to_string().contains("No space left"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_written_by_whoever_has_their_handles() {
    for dirs in dirs() {
        let path = dirs.to.join("out.tar");
        let file = path.clone();
        let plain = || {
            Target::File(Box::new({
                let file = file.clone();
                move |_| Ok(Some(Box::new(fs::File::create(&file)?)))
            }))
        };
        let device = Target::File(Box::new(|_| {
            Ok(Some(Box::new(fs::File::options().write(true).open("/dev/null")?)))
        }));
        let unwanted = Target::File(Box::new(|_| Ok(None)));
        let open = session(|session| {
            session.give_handles();
            session.targets(vec![(1, plain()), (2, device), (3, unwanted)], spools());
        });
        let open = open.await;
        let mut sender = open.caller.send_file(1, &Default::default()).await.expect("opens");
        let mut given = sender.take_file().expect("is given");
        given.write_all(b"written here").expect("is written");
        sender.finish().await.expect("has all");
        assert_eq!(fs::read(&path).expect("reads"), b"written here");

        let mut sender = open.caller.send_file(2, &Default::default()).await.expect("opens");
        assert!(sender.take_file().is_none(), "a device is not written");
        sender.write(Bytes::from_static(b"sent")).await.expect("is taken");
        sender.finish().await.expect("is written");
        assert!(matches!(open.caller.send_file(3, &Default::default()).await, Err(Error::TargetExists)));

        // A client that says nothing of handles is not asked.
        let open = session(|session| session.targets(vec![(1, plain())], spools())).await;
        assert!(open.caller.send_file(1, &Default::default()).await.expect("opens").take_file().is_none());
    }
}

/// Takes a file, and names a handle that nobody offers.
#[derive(Clone, Default)]
struct Liar(Arc<Mutex<(Vec<u8>, usize)>>);

#[tonic::async_trait]
impl FileSend for Liar {
    type DiffCopyStream = BoxStream<'static, Result<BytesMessage, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let asked = request.metadata().contains_key("x-kiln-handles");
        self.0.lock().unwrap().1 += usize::from(asked);
        let (mut incoming, liar) = (request.into_inner(), self.clone());
        let taken = async move {
            while let Some(message) = incoming.message().await? {
                liar.0.lock().unwrap().0.extend(message.data);
            }
            Ok::<_, Status>(())
        };
        let end = futures::stream::once(taken).filter_map(|end| async { end.err().map(Err) });
        let mut answer = Response::new(end.boxed());
        let name = format!("kiln-handle-{:032x}", 0);
        answer.metadata_mut().insert("x-kiln-handle-name", name.parse().expect("is ASCII"));
        Ok(answer)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_that_nobody_offers() {
    let liar = Liar::default();
    let open = session(|session| {
        session.give_handles();
        session.add(FileSendServer::new(liar.clone()), &["DiffCopy"]);
    });
    let open = open.await;
    for _ in 0..3 {
        let mut sender = open.caller.send_file(0, &Default::default()).await.expect("opens");
        assert!(sender.take_file().is_none());
        sender.write(Bytes::from_static(b"sent ")).await.expect("is taken");
        sender.finish().await.expect("has all");
    }
    let (taken, asked) = liar.0.lock().unwrap().clone();
    assert_eq!(String::from_utf8_lossy(&taken), "sent sent sent ");
    assert_eq!(asked, 1, "it is not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_may_be_unreadable_or_not_read_at_all() {
    for dirs in dirs() {
        write(&dirs.from, "file", "x");
        let open = dirs.serving().await;
        let first = receive(&open.caller, context(), &dirs.to, dirs.options(dirs.nothing()))
            .await
            .expect("transfers");
        let encoded = |previous| DirSinkOptions { previous: Some(previous), ..dirs.options(dirs.nothing()) };

        // Nobody knows what is there: whatever was not sent goes.
        write(&dirs.to, "unknown/file", "y");
        receive(&open.caller, context(), &dirs.to, encoded(stored(&dirs.spools, &[99])))
            .await
            .expect("transfers");
        assert_eq!(look(&dirs.to), look(&dirs.from));

        // Nothing comes: what was there still is.
        let (sink, outcome) = DirSink::new(handle(&dirs.to), encoded(first.stored().clone()));
        drop(sink);
        assert_eq!(held(&outcome.into_tree().await.expect("is known")), held(&first));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes() {
    for dirs in dirs() {
        let open = dirs.serving().await;
        assert!(open.caller.supports("/MOBY.filesync.v1.filesync/diffcopy"));
        assert_eq!(open.caller.shared_key(), "shared");
        open.client.abort();
        tokio::time::timeout(Duration::from_secs(10), open.caller.closed()).await.expect("is noticed");
        assert!(open.manager.find(open.caller.id()).is_none());
        let error = receive(&open.caller, context(), &dirs.to, dirs.options(dirs.nothing()))
            .await
            .expect_err("is gone");
        assert!(matches!(error, Error::NoSession { .. }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_broken_off_leaves_a_true_tree() {
    for dirs in dirs() {
        for number in 0..200 {
            write(&dirs.from, &format!("f{number:03}"), &"x".repeat(200_000));
        }
        let open = dirs.serving().await;
        let (sink, outcome) = DirSink::new(handle(&dirs.to), dirs.options(dirs.nothing()));
        let client = open.client;
        let result = open
            .caller
            .receive_files(&context(), sink, move |bytes, _| {
                if bytes > 2_000_000 {
                    client.abort();
                }
            })
            .await;
        assert!(result.is_err());
        let outcome = outcome.into_tree().await.expect("is known");
        let (done, open_ones): (Vec<_>, Vec<_>) =
            entries(&outcome).into_iter().partition(|entry| entry.complete);
        assert!(!open_ones.is_empty());
        for entry in &done {
            let content = fs::read(dirs.to.join(&entry.stat.path)).expect("is complete");
            assert_eq!(Some(sha256(content)), entry.digest);
        }
        // What is there is known; nothing has a temporary name.
        for entry in fs::read_dir(&dirs.to).expect("reads") {
            let name = entry.expect("is an entry").file_name().into_string().expect("is text");
            assert!(get(&outcome, &name).is_some_and(|entry| entry.complete), "{name}");
        }
        // The next transfer goes on from there.
        let open = dirs.serving().await;
        let next = receive(&open.caller, context(), &dirs.to, dirs.options(outcome.clone()))
            .await
            .expect("transfers");
        assert_eq!(changes(&outcome, &next).len(), 200 - done.len());
        assert_eq!(look(&dirs.to), look(&dirs.from));
    }
}

/// A file of a context: in which directory, which one, how many bytes, whether it is a hard link to another one.
type Planned = (u8, u8, u16, Option<u8>);

fn plan(from: &Path, files: &[Planned]) {
    fs::remove_dir_all(from).expect("removes");
    fs::create_dir(from).expect("makes");
    for (dir, name, length, link) in files {
        let path = from.join(format!("d{}/e{}/f{name}", dir % 3, dir % 7));
        fs::create_dir_all(path.parent().expect("is below")).expect("makes parents");
        let target = link.and_then(|link| {
            let (dir, name, ..) = files[usize::from(link) % files.len()];
            Some(from.join(format!("d{}/e{}/f{name}", dir % 3, dir % 7))).filter(|target| target.exists())
        });
        match target {
            _ if path.exists() => {}
            Some(target) => fs::hard_link(target, &path).expect("links"),
            None => {
                fs::write(&path, vec![*name; usize::from(*length)]).expect("writes");
                age(&path, u64::from(*length));
            }
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(12))]

    /// What is in memory changes nothing.
    #[test]
    fn lists_in_files_are_as_lists_in_memory(
        rounds in proptest::collection::vec(
            proptest::collection::vec(proptest::prelude::any::<Planned>(), 0..60), 3
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("starts");
        runtime.block_on(async {
            let all: Vec<Dirs> = dirs().collect();
            let mut before: Vec<Tree> = all.iter().map(Dirs::nothing).collect();
            for files in &rounds {
                // One directory for all: times that are not set are the same.
                let from = &all[0].from;
                plan(from, files);
                for (dirs, before) in all.iter().zip(&mut before) {
                    let serving = vec![("context".into(), LocalDir::context(from.clone()))];
                    let open = session(|session| session.directories(serving, dirs.spools.clone())).await;
                    let options = dirs.options(before.clone());
                    *before = receive(&open.caller, context(), &dirs.to, options).await.expect("transfers");
                    assert_eq!(look(&dirs.to), look(from));
                }
                assert_eq!(entries(&before[0]), entries(&before[1]));
            }
        });
    }
}
