//! Invariant 4: secrets and ssh sockets are in no layer, cache key, log, history record or attestation.

use kiln_tests::{holds, place_with_busybox, read};

const SECRET: &str = "kiln-test-secret-3f9a1c77";

#[test]
fn a_secret_reaches_its_step_and_nothing_else() {
    let (place, _registry) = place_with_busybox();
    place.write("home/token", SECRET);
    place.write(
        "work/Dockerfile",
        "FROM busybox AS b\nRUN --mount=type=secret,id=token cat /run/secrets/token | wc -c > /size\n\
         RUN --mount=type=secret,id=token,env=TOKEN echo ${#TOKEN} > /length\nRUN test ! -e /run/secrets/token\n\
         FROM scratch\nCOPY --from=b /size /length /\n",
    );
    let secret = format!("id=token,src={}", place.path("home/token").display());
    let log = place.run(&["build", "--progress=plain", "--secret", &secret, "-o", "out", "."]).success();
    assert_eq!(read(&place.path("work/out/size")).trim(), SECRET.len().to_string());
    assert_eq!(read(&place.path("work/out/length")).trim(), SECRET.len().to_string());
    assert!(!log.stderr.contains(SECRET));
    place.run(&["build", "--secret", &secret, "-o", "type=oci,dest=image.tar", "."]).success();
    assert_eq!(holds(&place.path("work"), SECRET), None);
    assert_eq!(holds(&place.path("data"), SECRET), None);
    assert_eq!(holds(&place.path("run"), SECRET), None);

    // Another value of the secret does not run the step again: it is in no key.
    place.write("home/token", "another value");
    let log =
        place.run(&["build", "--progress=plain", "--secret", &secret, "-o", "out", "."]).success().stderr;
    assert_eq!(read(&place.path("work/out/size")).trim(), SECRET.len().to_string(), "{log}");
}

#[test]
fn a_missing_secret_that_is_required_is_named() {
    let (place, _registry) = place_with_busybox();
    place.write("work/Dockerfile", "FROM busybox\nRUN --mount=type=secret,id=absent,required=true true\n");
    let output = place.run(&["build", "."]).failure();
    assert!(output.stderr.contains("absent"), "{}", output.stderr);
}
