use super::*;

fn matcher(patterns: &[&str]) -> PatternMatcher {
    PatternMatcher::new(patterns).expect("are patterns")
}

fn matches(patterns: &[&str], path: &str) -> bool {
    let matcher = matcher(patterns);
    let direct = matcher.matches_or_parent_matches(path);
    // A walk that carries results along gives the same answer.
    let mut info = MatchInfo::default();
    let mut walked = false;
    for end in path.match_indices('/').map(|(slash, _)| slash).chain([path.len()]) {
        (walked, info) = matcher.matches_using_parent_results(&path[..end], &info);
    }
    assert_eq!(direct, walked, "{patterns:?} {path}");
    direct
}

#[test]
fn single_patterns() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "other", false),
        ("**/dir", "dir", true),
        ("**/dir", "a/dir", true),
        ("**/dir", "a/dir2", false),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**file", "dir/dir/xfile", true),
        ("**/*.txt", "a/b.txt", true),
        ("**/*.txt", "a/b.txt.x", false),
        ("a**/*.txt", "a/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        ("a[\\]b]", "a]", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("a.b", "axb", false),
        ("a(b)", "a(b)", true),
        ("a|b", "a", false),
        ("abc.def", "abcZdef", false),
        ("a?c", "a/c", false),
        ("a?c", "abc", true),
        ("*", "a/b", true),
        ("foo", "foo/bar/baz", true),
        ("foo/bar", "foo", false),
        ("[a&&b]", "&", true),
        ("[a&&b]", "c", false),
        ("a\nb", "a\nb", true),
        ("*", "a\nb", true),
    ] {
        assert_eq!(matches(&[pattern], path), expected, "{pattern} {path}");
    }
}

#[test]
fn the_last_pattern_decides() {
    assert!(matches(&["**", "!util/docker/web"], "util/docker/web2"));
    assert!(!matches(&["**", "!util/docker/web"], "util/docker/web/foo"));
    assert!(matches(&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo"));
    assert!(!matches(&["*.md", "!README.md"], "README.md"));
    assert!(matches(&["!README.md", "*.md"], "README.md"));
    assert!(!matches(&["dir/*", "!dir/sub"], "dir/sub/file"));
    assert!(!matches(&["!a"], "a"));
}

#[test]
fn patterns_are_cleaned() {
    assert!(matches(&["  ./a//b/ "], "a/b"));
    assert!(matcher(&["", "   "]).is_empty());
    assert!(!matches(&["/a"], "a"));
    assert_eq!(clean("../a/./b/.."), "../a");
}

#[test]
fn what_is_no_pattern() {
    assert_eq!(PatternMatcher::new(["!"]).unwrap_err(), PatternError::OnlyExclusion);
    for bad in ["[", "[]", "[^]", "[]a]", "[a", "[a-", "[a-]", "[-a]", "a\\", "[\\", "a[b-"] {
        assert!(PatternMatcher::new([bad]).is_err(), "{bad}");
    }
}

#[test]
fn components() {
    assert_eq!(match_component("a*", "ab"), Some(true));
    assert_eq!(match_component("[", "a"), None);
}

proptest::proptest! {
    #[test]
    fn any_text_is_judged_without_panic(pattern in "[-a*?\\[\\]!^/.\\\\é]{0,12}", path in "[-a/.é]{1,10}") {
        if let Ok(matcher) = PatternMatcher::new([pattern]) {
            matcher.matches_or_parent_matches(&path);
        }
    }
}
