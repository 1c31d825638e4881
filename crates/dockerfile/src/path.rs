//! Paths as text: inside images and contexts, for the operating system of the image, never of the host.

use thiserror::Error;

/// Why a path cannot be used (on Windows images only).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    #[error("No relative path specified in {}", crate::values::quote(.0))]
    DriveOnly(String),
    #[error("UNC paths are not supported")]
    Unc,
    #[error("The specified path is not on the system drive (C:)")]
    OtherDrive,
}

/// The shortest path that names the same: no `.`, no inner `..`, no doubled or trailing slashes.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Both paths joined and cleaned.
pub fn join(first: &str, second: &str) -> String {
    match (first, second) {
        ("", "") => String::new(),
        ("", path) | (path, "") => clean(path),
        (first, second) => clean(&format!("{first}/{second}")),
    }
}

/// The last part of a path, `.` if there is none.
pub fn base(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match (path, trimmed) {
        ("", _) => ".",
        (_, "") => "/",
        (_, path) => path.rsplit('/').next().unwrap_or(path),
    }
}

/// Backslashes are separators on Windows.
pub fn to_slash(path: &str, os: &str) -> String {
    if os == "windows" { path.replace('\\', "/") } else { path.to_owned() }
}

fn from_slash(path: &str, os: &str) -> String {
    if os == "windows" { path.replace('/', "\\") } else { path.to_owned() }
}

/// Whether a path does not depend on the working directory.
pub fn is_absolute(path: &str, os: &str) -> bool {
    without_drive(path, os, false).is_ok_and(|path| path.starts_with('/'))
}

/// `path` made absolute beneath `parent`, with slashes and without drive letter. With `keep_slash`, a
/// trailing slash (or `/.`) stays.
pub fn normalize(parent: &str, path: &str, os: &str, keep_slash: bool) -> Result<String, PathError> {
    let given = to_slash(path, os);
    let parent = match without_drive(&to_slash(parent, os), os, keep_slash)? {
        parent if parent.is_empty() => "/".to_owned(),
        parent if parent.starts_with('/') => parent,
        parent => join("/", &parent),
    };
    let path = without_drive(if given.is_empty() { &parent } else { &given }, os, keep_slash)?;
    let mut path = if path.starts_with('/') { path } else { join(&parent, &path) };
    if keep_slash {
        if given.ends_with('/') && !path.ends_with('/') {
            path.push('/');
        } else if given.ends_with("/.") {
            if path != "/" {
                path.push('/');
            }
            path.push('.');
        }
    }
    Ok(path)
}

/// A working directory, given the one so far, with the separators of the operating system.
pub fn normalize_workdir(current: &str, path: &str, os: &str) -> Result<String, PathError> {
    normalize(current, path, os, false).map(|path| from_slash(&path, os))
}

/// Checks and removes the drive letter of a Windows path; other paths stay as they are.
pub fn without_drive(path: &str, os: &str, keep_slash: bool) -> Result<String, PathError> {
    if os != "windows" {
        return Ok(path.to_owned());
    }
    let slashed = path.replace('\\', "/");
    if slashed.len() == 2 && slashed.ends_with(':') {
        return Err(PathError::DriveOnly(path.to_owned()));
    }
    if slashed.starts_with("//") {
        return Err(PathError::Unc);
    }
    let rest = match slashed.split_once(':') {
        None => slashed.as_str(),
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
        Some(_) => return Err(PathError::OtherDrive),
    };
    let cleaned = clean(rest);
    if keep_slash && cleaned.len() > 1 && rest.ends_with('/') { Ok(cleaned + "/") } else { Ok(cleaned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning() {
        for (path, want) in [
            ("", "."),
            ("/", "/"),
            ("a//b/./c/", "a/b/c"),
            ("a/../..", ".."),
            ("/../a", "/a"),
            ("./", "."),
            ("../../x", "../../x"),
        ] {
            assert_eq!(clean(path), want, "{path}");
        }
        assert_eq!(base("a/b/"), "b");
        assert_eq!(base("/"), "/");
    }

    #[test]
    fn normalizing() {
        for (parent, path, keep, want) in [
            ("/", "a/b/", true, "/a/b/"),
            ("/w", "a/.", true, "/w/a/."),
            ("/w", "./", true, "/w/"),
            ("/w", "", true, "/w"),
            ("", "x", false, "/x"),
            ("/w", "/abs/../x", false, "/abs/../x"),
            ("/", "/.", true, "/./."),
        ] {
            assert_eq!(normalize(parent, path, "linux", keep).unwrap(), want, "{parent} {path}");
        }
    }

    #[test]
    fn windows_paths() {
        assert_eq!(normalize_workdir("C:\\a", "b\\c", "windows").unwrap(), "\\a\\b\\c");
        assert_eq!(normalize("/", "C:\\x\\", "windows", true).unwrap(), "/x/");
        assert_eq!(without_drive("d:\\x", "windows", false), Err(PathError::OtherDrive));
        assert_eq!(without_drive("\\\\host\\x", "windows", false), Err(PathError::Unc));
        assert_eq!(without_drive("C:", "windows", false), Err(PathError::DriveOnly("C:".to_owned())));
        assert!(is_absolute("c:\\x", "windows") && !is_absolute("c:x", "windows"));
    }
}
