//! Slash-separated paths as Go's `path` package cleans and joins them, which is what digests were computed over.

/// The shortest path that means the same lexically; `.` for an empty one.
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
        (false, true) => ".".to_string(),
        (false, false) => joined,
    }
}

/// The non-empty parts joined by slashes, then cleaned; empty if all are.
pub fn join(parts: &[&str]) -> String {
    let present: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    if present.is_empty() { String::new() } else { clean(&present.join("/")) }
}

/// `path` below `parent` (a path below `/`) unless it is absolute. With `keep_slash`, a trailing `/` or `/.` survives: it says
/// that the path must be a folder.
pub fn normalize(parent: &str, path: &str, keep_slash: bool) -> String {
    let mut out = clean(path);
    if !out.starts_with('/') {
        out = join(&["/", parent, &out]);
    }
    if keep_slash {
        if path.ends_with('/') && !out.ends_with('/') {
            out.push('/');
        } else if path.ends_with("/.") {
            if out != "/" {
                out.push('/');
            }
            out.push('.');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        for (input, output) in [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("a/../..", ".."),
            ("/..", "/"),
            ("/../a", "/a"),
            ("../../a", "../../a"),
            ("a/b/../c", "a/c"),
            ("./a/.", "a"),
        ] {
            assert_eq!(clean(input), output, "{input}");
        }
    }

    #[test]
    fn trailing_marks_survive_where_they_mean_something() {
        assert_eq!(normalize("/w", "a/", true), "/w/a/");
        assert_eq!(normalize("/w", "a/.", true), "/w/a/.");
        assert_eq!(normalize("/w", "a/", false), "/w/a");
        assert_eq!(normalize("/w", "/", true), "/");
        assert_eq!(normalize("/", "/.", true), "/.");
        assert_eq!(normalize("", "a", false), "/a");
    }
}
