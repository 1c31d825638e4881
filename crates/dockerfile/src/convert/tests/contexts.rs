use super::support::{Memory, good, graph, message, show};
use insta::assert_snapshot;
use kiln_llb::{Constraints, LocalSource, State};
use std::collections::BTreeMap;

#[tokio::test]
async fn a_context_in_the_place_of_an_image() {
    let text = "FROM alpine\nRUN x\n";
    for (specifier, part) in [
        ("docker-image://busybox", "docker-image://docker.io/library/busybox:latest"),
        ("https://h/r.git#v1", "git://h/r.git#v1"),
        ("https://h/f.tar", "https://h/f.tar"),
        (
            "oci-layout://store@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "oci-layout://docker.io/library/alpine@sha256:e3b0",
        ),
    ] {
        let graph = graph(text, &[("context:alpine", specifier)]).await;
        assert!(graph.contains(part), "{graph}");
    }
    let other = graph(text, &[("context:alpine::linux/arm64", "docker-image://busybox")]).await;
    assert!(other.contains("docker.io/library/alpine"));
}

#[tokio::test]
async fn a_local_context_asks_for_what_is_used() {
    let text = "FROM scratch AS src\nFROM scratch\nCOPY --from=src /a/b c /\n";
    let memory = Memory { ignore: "x\n".to_owned(), ..Memory::default() };
    let attrs =
        [("context:src", "local:dir"), ("sharedkey:localdir:src", "key"), ("local-sessionid:dir", "other")];
    let converted = good(text, &attrs, &memory).await;
    assert_snapshot!(show(&converted));
    assert_eq!(*memory.asked.lock().unwrap(), ["read .dockerignore"]);
}

#[tokio::test]
async fn inputs_bring_their_config() {
    let state = State::local("in", LocalSource::default(), Constraints::new());
    let memory = Memory { inputs: BTreeMap::from([("i".to_owned(), state)]), ..Memory::default() };
    // {"architecture":"amd64","os":"linux","config":{"Env":["FROM_INPUT=1"]}}
    let config =
        "eyJhcmNoaXRlY3R1cmUiOiJhbWQ2NCIsIm9zIjoibGludXgiLCJjb25maWciOnsiRW52IjpbIkZST01fSU5QVVQ9MSJdfX0=";
    let metadata = format!("{{\"containerimage.config\":\"{config}\"}}");
    let attrs = [("context:base", "input:i"), ("input-metadata:i", metadata.as_str())];
    let converted = good("FROM base\nRUN x\n", &attrs, &memory).await;
    assert!(converted.image.config.env.contains(&"FROM_INPUT=1".to_owned()));
    assert!(show(&converted).contains("local://in"));
}

#[tokio::test]
async fn policies_may_send_a_context_elsewhere() {
    let name = "docker.io/library/busybox:latest";
    let memory =
        Memory { redirects: BTreeMap::from([(name.into(), "https://h/x.git".into())]), ..Memory::default() };
    let converted =
        good("FROM alpine\nRUN x\n", &[("context:alpine", "docker-image://busybox")], &memory).await;
    assert!(show(&converted).contains("git://h/x.git"));
    let circle = Memory {
        redirects: BTreeMap::from([(name.into(), "docker-image://busybox".into())]),
        ..Memory::default()
    };
    let text = message("FROM alpine\n", &[("context:alpine", "docker-image:busybox")], &circle).await;
    assert!(text.starts_with("context recursion limit exceeded"), "{text}");
    assert_eq!(message("FROM busybox\n", &[], &circle).await, "busybox: not an image");
}

#[tokio::test]
async fn bad_contexts() {
    for (specifier, text) in [
        ("nothing", "invalid context specifier nothing for alpine"),
        ("ftp://x", "unsupported context source ftp for alpine"),
        ("input:nope", "invalid input nope for alpine"),
        ("oci-layout://store", "oci-layout reference \"store\" has no digest"),
        ("git://h/x.git?nope=1", "unexpected query \"nope\""),
    ] {
        assert_eq!(
            message("FROM alpine\n", &[("context:alpine", specifier)], &Memory::default()).await,
            text
        );
    }
}

#[tokio::test]
async fn a_main_context_that_is_not_local() {
    let state = State::local("other", LocalSource::default(), Constraints::new());
    let memory = Memory { context: Some(state), ..Memory::default() };
    assert!(show(&good("FROM scratch\nCOPY a b\n", &[], &memory).await).contains("local://other"));
}
