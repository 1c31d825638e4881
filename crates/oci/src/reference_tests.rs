use proptest::prelude::*;

use super::*;

const HEX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

#[test]
fn writes_out_short_names() {
    for (typed, full, familiar) in [
        ("alpine", "docker.io/library/alpine", "alpine"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("moby/buildkit", "docker.io/moby/buildkit", "moby/buildkit"),
        ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
        ("index.docker.io/a/b", "docker.io/a/b", "a/b"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        ("ghcr.example/a/b__c/d--e", "ghcr.example/a/b__c/d--e", "ghcr.example/a/b__c/d--e"),
        ("Upper/x", "Upper/x", "Upper/x"),
        ("foo_bar.example/x", "foo_bar.example/x", "foo_bar.example/x"),
    ] {
        let reference = Reference::parse(typed).unwrap();
        assert_eq!(reference.to_string(), full, "{typed}");
        assert_eq!(reference.familiar(), familiar, "{typed}");
        assert_eq!(Reference::parse(familiar).unwrap(), reference, "{typed}");
    }
}

#[test]
fn keeps_tag_and_digest() {
    let text = format!("alpine:3@sha256:{HEX}");
    let reference = Reference::parse(&text).unwrap();
    assert_eq!(reference.tag(), Some("3"));
    assert_eq!(reference.digest().unwrap().hex(), HEX);
    assert_eq!(reference.familiar(), text);
    let fetched = Reference::parse_for_fetch(&text).unwrap();
    assert_eq!(fetched.to_string(), format!("docker.io/library/alpine@sha256:{HEX}"));
    assert_eq!(Reference::parse_for_fetch("alpine").unwrap().to_string(), "docker.io/library/alpine:latest");
}

#[test]
fn says_what_is_wrong() {
    for (text, message) in [
        ("", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("alpine:", "invalid reference format"),
        ("-x", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a..b/c", "invalid reference format"),
        ("https://x/y", "invalid reference format"),
        ("Alpine", "invalid reference format: repository name (library/Alpine) must be lowercase"),
        ("x.example/Foo:Tag", "invalid reference format: repository name (Foo) must be lowercase"),
        ("alpine@sha256:abc", "invalid reference format"),
        ("alpine@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "invalid checksum digest length"),
        ("alpine@md5:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "unsupported digest algorithm"),
        (&format!("x.example/{}", "a".repeat(256)), "repository name must not be more than 255 characters"),
        (HEX, &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings")),
    ] {
        assert_eq!(Reference::parse(text).unwrap_err().to_string(), message, "{text}");
    }
    assert_eq!(Reference::parse("a").unwrap().with_tag("-").unwrap_err(), ReferenceError::Tag);
}

/// The grammar as the distribution specification writes it, to hold the hand-written parser against.
fn grammar() -> (regex::Regex, regex::Regex) {
    let domain = r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?";
    let component = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*";
    let path = format!("{component}(?:/{component})*");
    let digest = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    let whole =
        format!(r"\A((?:{domain}/)?{path})(?::([A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?(?:@({digest}))?\z");
    (
        regex::Regex::new(&whole).unwrap(),
        regex::Regex::new(&format!(r"\A(?:({domain})/)?({path})\z")).unwrap(),
    )
}

proptest! {
    #[test]
    fn agrees_with_the_grammar(text in r"[a-z0-9A\[\]:]{0,4}[a-c.:_\-]{0,5}/[a-b/._\-]{1,8}(:[a-z.\-_]{0,3})?(@sha256:[ab]{30,33}|@sha256:a{64})?") {
        let (whole, name) = grammar();
        let parsed = Reference::parse_strict(&text);
        match whole.captures(&text) {
            None => prop_assert_eq!(parsed, Err(ReferenceError::Format)),
            Some(found) => {
                let parts = name.captures(&found[1]).unwrap();
                match parsed {
                    Ok(reference) => {
                        prop_assert_eq!(reference.domain(), parts.get(1).map_or("", |m| m.as_str()));
                        prop_assert_eq!(reference.path(), &parts[2]);
                        prop_assert_eq!(reference.tag(), found.get(2).map(|m| m.as_str()));
                    }
                    Err(error) => prop_assert!(matches!(error, ReferenceError::Digest(_)), "{error}"),
                }
            }
        }
    }

    #[test]
    fn never_panics_and_round_trips(text in r"\PC{0,40}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
        }
    }
}
