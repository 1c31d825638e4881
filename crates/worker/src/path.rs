//! Lexical path arithmetic on slash-separated strings, with the rules of Go's `path` package, which BuildKit's
//! paths follow. Nothing here touches a file system; resolution of symbolic links is [`crate::union`]'s.

/// The shortest equivalent path: no empty or `.` components, `..` resolved lexically, no trailing slash.
/// The empty path becomes `.`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&last) if last != ".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(".."),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// `path` cleaned and rooted, as `path.Join("/", path)`.
pub fn rooted(path: &str) -> String {
    clean(&format!("/{path}"))
}

/// `base` joined with `path` and cleaned; a rooted `path` is put beneath `base` all the same.
pub fn join(base: &str, path: &str) -> String {
    match (base.is_empty(), path.is_empty()) {
        (true, true) => String::new(),
        (true, false) => clean(path),
        (false, true) => clean(base),
        (false, false) => clean(&format!("{base}/{path}")),
    }
}

/// The last component, `/` for the root, `.` for the empty path.
pub fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

/// All but the last component, cleaned: `/` for a rooted path of one component, `.` for a relative one.
pub fn dir(path: &str) -> String {
    match path.rfind('/') {
        Some(slash) => clean(&path[..=slash]),
        None => ".".to_owned(),
    }
}

/// `path` rooted and cleaned, keeping a trailing `/` or `/.`, which say "the contents of" in `COPY` paths.
pub fn rooted_keeping_end(path: &str) -> String {
    let mut out = rooted(path);
    if path.ends_with("/.") {
        if out != "/" {
            out.push('/');
        }
        out.push('.');
    } else if path.ends_with('/') && out != "/" {
        out.push('/');
    }
    out
}

/// The components of a path, without empty and `.` ones; `..` is kept.
pub fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// A file name made safe to create in a folder: the last component, or `download` where there is none, where it
/// would be a folder of its own or where it holds control characters.
pub fn safe_file_name(name: &str) -> &str {
    const FALLBACK: &str = "download";
    let last = base(name.trim());
    if matches!(last, "." | ".." | "/") || last.chars().any(char::is_control) { FALLBACK } else { last }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        let cases = [
            ("", "."),
            ("/", "/"),
            ("a//b/./c/", "a/b/c"),
            ("a/../b", "b"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("a/../..", ".."),
            ("./..", ".."),
        ];
        for (path, want) in cases {
            assert_eq!(clean(path), want, "{path}");
        }
    }

    #[test]
    fn takes_paths_apart() {
        assert_eq!((base("/a/b/"), dir("/a/b")), ("b", "/a".to_owned()));
        assert_eq!((base("/"), dir("/a")), ("/", "/".to_owned()));
        assert_eq!((base(""), dir("a")), (".", ".".to_owned()));
        assert_eq!(dir("/a/b/"), "/a/b");
        assert_eq!(join("/a", "/../b"), "/b");
    }

    #[test]
    fn keeps_the_end_that_means_contents() {
        assert_eq!(rooted_keeping_end("a/b/"), "/a/b/");
        assert_eq!(rooted_keeping_end("a/."), "/a/.");
        assert_eq!(rooted_keeping_end("/"), "/");
        assert_eq!(rooted_keeping_end("."), "/");
        assert_eq!(rooted_keeping_end("/."), "/.");
        assert_eq!(rooted_keeping_end("../x"), "/x");
    }

    #[test]
    fn makes_file_names_safe() {
        for (name, want) in [
            ("foo", "foo"),
            ("  foo.txt  ", "foo.txt"),
            ("a/b/c.txt", "c.txt"),
            ("", "download"),
            ("..", "download"),
            ("../", "download"),
            ("a\0b", "download"),
            ("a\nb", "download"),
            ("..\\", "..\\"),
        ] {
            assert_eq!(safe_file_name(name), want, "{name:?}");
        }
    }
}
