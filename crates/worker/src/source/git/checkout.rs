//! From the bare repository to a folder of files.

use std::fs::{self, File, FileTimes};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps};

use super::cli::{Git, is_commit, redact};
use super::remote::{Fetched, RepositoryError};
use crate::error::PathError;
use crate::path;
use crate::raw::DIR_FLAGS;
use crate::source::identifier::GitId;

/// Puts the files of `fetched` into `dest`, an empty folder. `bare` is the repository; `git` works in it.
///
/// # Errors
/// See [`RepositoryError`].
pub async fn checkout(
    git: &Git,
    bare: &Path,
    id: &GitId,
    fetched: &Fetched,
    sha256: bool,
    dest: &Path,
) -> Result<(), RepositoryError> {
    let subdir = path::rooted(&id.subdir);
    let whole = subdir == "/";
    let step = |what| move |source| RepositoryError::Step { what, remote: redact(&id.remote), source };
    // A subfolder is moved up from beside.
    let place = if whole { dest.to_owned() } else { dest.join(CHECKOUT) };
    if !whole {
        fs::create_dir(&place).map_err(file("create", &place))?;
    }
    let git_dir = if id.keep_git_dir && whole {
        with_history(git, bare, id, fetched, sha256, &place).await?
    } else {
        let files = git.clone().work_tree(&place);
        files
            .run(&["checkout", "--no-overlay", &fetched.reference, "--", "."])
            .await
            .map_err(step("checkout remote"))?;
        bare.to_owned()
    };
    let in_place = git.clone().git_dir(&git_dir).work_tree(&place);
    if !id.skip_submodules {
        in_place
            .run(&["submodule", "update", "--init", "--recursive", "--depth=1"])
            .await
            .map_err(step("update submodules for"))?;
    }
    let commit_time = if id.mtime_of_commit {
        let commit = format!("{}^{{commit}}", fetched.reference);
        let text = in_place
            .run(&["log", "-1", "--format=%ct", &commit])
            .await
            .map_err(step("get commit time for"))?;
        text.trim().parse::<u64>().ok()
    } else {
        None
    };
    let dest = dest.to_owned();
    let work = move || {
        if !whole {
            move_up(&place, &subdir, &dest)?;
        }
        if let Some(seconds) = commit_time {
            set_times(&dest, UNIX_EPOCH + Duration::from_secs(seconds))?;
        }
        Ok(())
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(RepositoryError::File {
            what: "arrange files of",
            path: "checkout".into(),
            source: std::io::Error::other("the thread that did it died"),
        })
    })
}

/// Where a checkout goes of which only a subfolder is wanted.
const CHECKOUT: &str = ".checkout";

/// A clone with its `.git`, which knows the remote as people do.
async fn with_history(
    git: &Git,
    bare: &Path,
    id: &GitId,
    fetched: &Fetched,
    sha256: bool,
    place: &Path,
) -> Result<PathBuf, RepositoryError> {
    let git_dir = place.join(".git");
    let clone = git.clone().git_dir(&git_dir).work_tree(place);
    let format: &[&str] = if sha256 { &["--object-format=sha256"] } else { &[] };
    clone.run(&[&["init"], format].concat()).await?;
    // By the file protocol: between plain paths git takes short cuts that have let files of the host in.
    let origin = format!("file://{}", bare.display());
    clone.run(&["remote", "add", "origin", &origin]).await?;
    let kind = git.run(&["cat-file", "-t", &fetched.reference]).await?;
    let asked = &fetched.asked;
    let pull = if kind.trim() == "tag" {
        let tag = if asked.starts_with("refs/tags/") { asked.clone() } else { format!("refs/tags/{asked}") };
        format!("{asked}:{tag}")
    } else if id.fetch_by_commit && *asked != fetched.reference {
        let name = if asked.starts_with("refs/") { asked.clone() } else { format!("refs/heads/{asked}") };
        format!("{}:{name}", fetched.reference)
    } else if is_commit(asked) {
        // Only what has a name can be pulled.
        let name = format!("refs/buildkit/{asked}");
        git.run(&["update-ref", &name, asked]).await?;
        name
    } else {
        format!("{asked}:{asked}")
    };
    clone.clone().local().run(&["fetch", "-u", "--depth=1", "--", "origin", &pull]).await?;
    let step = |what| move |source| RepositoryError::Step { what, remote: redact(&id.remote), source };
    clone.run(&["checkout", "FETCH_HEAD"]).await.map_err(step("checkout remote"))?;
    let shown = redact(&id.remote);
    clone.run(&["remote", "set-url", "origin", &shown]).await.map_err(step("set remote origin to"))?;
    clone
        .run(&["reflog", "expire", "--all", "--expire=now"])
        .await
        .map_err(step("expire reflog for remote"))?;
    match fs::remove_file(git_dir.join("FETCH_HEAD")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file("remove", &git_dir)(error)),
        _ => Ok(git_dir),
    }
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RepositoryError {
    let path = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    move |source| RepositoryError::File { what, path, source }
}

/// Moves what is in the folder `subdir` of `place` to `dest` and removes the rest. The repository's own links are not
/// followed on the way.
fn move_up(place: &Path, subdir: &str, dest: &Path) -> Result<(), RepositoryError> {
    let relative = subdir.trim_start_matches('/');
    let fail = |op: &'static str, path: &str, errno| RepositoryError::Subdir {
        subdir: relative.to_owned(),
        source: PathError::new(op, path, errno),
    };
    let mut dir: OwnedFd =
        rustix::fs::openat(CWD, place, DIR_FLAGS, Mode::empty()).map_err(|errno| fail("open", "/", errno))?;
    let mut walked = String::new();
    for name in path::components(relative) {
        walked = path::join(&walked, name);
        let meta = kiln_layer::Meta::at(&dir, name).map_err(|errno| fail("lstat", &walked, errno))?;
        if !meta.is_dir() {
            return Err(RepositoryError::SubdirNotDir { subdir: relative.to_owned(), path: walked });
        }
        dir = rustix::fs::openat(&dir, name, DIR_FLAGS, Mode::empty())
            .map_err(|errno| fail("open", &walked, errno))?;
    }
    let to =
        rustix::fs::openat(CWD, dest, DIR_FLAGS, Mode::empty()).map_err(|errno| fail("open", "/", errno))?;
    for name in crate::raw::names(dir.as_fd()).map_err(|errno| fail("open", relative, errno))? {
        // A file of this very name would replace what is still needed.
        let name = name.as_slice();
        if name == CHECKOUT.as_bytes() {
            continue;
        }
        rustix::fs::renameat(&dir, name, &to, name).map_err(|errno| fail("rename", relative, errno))?;
    }
    fs::remove_dir_all(place).map_err(file("remove", place))
}

/// Gives everything below `dir` one modification time, folders after what is in them.
fn set_times(dir: &Path, time: std::time::SystemTime) -> Result<(), RepositoryError> {
    for entry in fs::read_dir(dir).map_err(file("read", dir))? {
        let path = entry.map_err(file("read", dir))?.path();
        let meta = path.symlink_metadata().map_err(file("stat", &path))?;
        if meta.is_dir() {
            set_times(&path, time)?;
        } else {
            let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed();
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| file("set time of", &path)(errno.into()))?;
        }
    }
    let times = FileTimes::new().set_modified(time).set_accessed(time);
    File::open(dir).and_then(|folder| folder.set_times(times)).map_err(file("set time of", dir))
}
