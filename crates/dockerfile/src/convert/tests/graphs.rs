use super::support::graph;
use insta::assert_snapshot;

#[tokio::test]
async fn only_what_the_target_needs() {
    let text = "FROM alpine AS a\nRUN one\nFROM busybox AS unused\nRUN two\nFROM scratch\nCOPY --from=a /x /y/\nCOPY f g /\n";
    assert_snapshot!(graph(text, &[]).await);
}

#[tokio::test]
async fn run_with_every_mount() {
    let text = "FROM alpine AS a\nFROM a\nARG T=cache\nRUN --mount=type=$T,target=/c,id=i,sharing=locked,uid=5 \
                --mount=from=a,source=/s,target=t --mount=type=tmpfs,target=/m,size=1k --mount=type=secret,id=p,env=P \
                --mount=type=ssh,required --network=none make $T\n";
    assert_snapshot!(graph(text, &[]).await);
}

#[tokio::test]
async fn heredocs() {
    let text = "FROM alpine\nRUN <<EOF\necho a\necho b\nEOF\nRUN <<EOF\n#!/bin/x\nEOF\nRUN <<A cat && <<B cat\n1\nA\n2\nB\n\
                ARG V=v\nCOPY <<F <<-'G' /d/\n$V\nF\n\t$V\nG\n";
    assert_snapshot!(graph(text, &[]).await);
}

#[tokio::test]
async fn copies() {
    let text = "FROM scratch AS s\nCOPY --link --chown=1:2 a /b\nFROM s\nWORKDIR /w\nCOPY --parents ./x/./y*/z .\n\
                ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://h/p/f.tgz /\n\
                ADD https://h/r.git?tag=v1&subdir=d#  /git\nCOPY --from=busybox --chmod=u+x --exclude=*.o /bin /bin\n";
    assert_snapshot!(graph(&text.replace("#  ", " "), &[]).await);
}

#[tokio::test]
async fn platforms_in_names() {
    let text = "FROM --platform=$BUILDPLATFORM alpine AS b\nARG TARGETARCH\nRUN cross\nFROM alpine\nCOPY --from=b /o /\n";
    assert_snapshot!(graph(text, &[("platform", "linux/arm64"), ("multi-platform", "true")]).await);
}

#[tokio::test]
async fn options_reach_the_steps() {
    let attrs = [
        ("hostname", "h"),
        ("shm-size", "64"),
        ("no-cache", ""),
        ("build-arg:HTTP_PROXY", "p"),
        ("build-arg:BUILDKIT_CACHE_MOUNT_NS", "ns"),
        ("force-network-mode", "host"),
    ];
    assert_snapshot!(graph("FROM alpine\nRUN --mount=type=cache,target=/c/ a\nCOPY a b\n", &attrs).await);
}

#[tokio::test]
async fn steps_beside_each_other_have_equal_digests() {
    let one = graph("FROM alpine\nRUN a\nCOPY b /\n", &[]).await;
    let two = graph("# other\nFROM   alpine\n\nRUN a\nCOPY   b /\n", &[]).await;
    assert_eq!(one.lines().count(), two.lines().count());
    // Everything of the context is asked for once a step could read it.
    assert!(
        graph("FROM alpine\nRUN --mount=target=/c a\nCOPY b /\n", &[]).await.contains("local://context\n")
    );
    assert!(one.contains("local.followpaths=[\"b\"]"));
}
