//! Bad input: a clear error that says what to do, an exit code that is not 0, nothing half done, and a daemon that goes on.

use kiln_testkit::Place;
use kiln_tests::place_with_busybox;

/// Builds with a Dockerfile that must fail, and gives what the screen said.
fn fails(place: &Place, dockerfile: &str, flags: &[&str]) -> String {
    place.write("work/Dockerfile", dockerfile);
    place.run(&[&["build"], flags, &["."]].concat()).failure().stderr
}

#[test]
fn each_mistake_is_explained_and_the_daemon_goes_on() {
    let (place, registry) = place_with_busybox();
    place.write("work/.dockerignore", "hidden.txt\n");
    place.write("work/hidden.txt", "x");
    let unreachable = "localhost:1/nothing:1";
    let missing = registry.reference("no/such:1");
    let cases: [(&str, &[&str], &[&str]); 12] = [
        ("FROM busybox\nRUM true\n", &[], &["unknown instruction: RUM", "RUN"]),
        ("FROM busybox\nCOPY --form=x a b\n", &[], &["unknown flag"]),
        ("FROM busybox\nCOPY nothing.txt /\n", &[], &["nothing.txt", "not found"]),
        ("FROM busybox\nCOPY hidden.txt /\n", &[], &["hidden.txt", ".dockerignore"]),
        ("FROM busybox AS a\n", &["--target=b"], &["target stage \"b\" could not be found"]),
        ("FROM UPPER//case:::\n", &[], &["invalid reference format"]),
        (&format!("FROM {unreachable}\n"), &[], &["localhost:1", "hint: check the registry's address"]),
        ("FROM --platform=linux/s390x busybox\n", &[], &["no match for platform", "hint:", "linux/amd64"]),
        ("FROM busybox\nADD http://127.0.0.1:1/x /\n", &[], &[">>> ADD http://127.0.0.1:1/x /"]),
        ("FROM busybox\nRUN --network=host true\n", &[], &["hint: grant it with `--allow network.host`"]),
        (&format!("FROM {missing}\n"), &[], &["not found"]),
        ("FROM busybox\nRUN echo before && exit 7\n", &[], &["exit code: 7", "before", ">>>"]),
    ];
    for (dockerfile, flags, expected) in cases {
        let said = fails(&place, dockerfile, flags);
        for text in expected {
            assert!(said.contains(text), "{dockerfile}\nshould say {text:?}, said:\n{said}");
        }
    }
    std::fs::remove_file(place.path("work/Dockerfile")).unwrap();
    let said = place.run(&["build", "."]).failure().stderr;
    assert!(said.contains("Dockerfile"), "{said}");
    let said = place.run(&["build", "--no-such-flag", "."]).failure().stderr;
    assert!(said.contains("--no-such-flag"), "{said}");

    let before = place.daemons();
    place.write("work/Dockerfile", "FROM busybox\nRUN true\n");
    place.run(&["build", "."]).success();
    assert_eq!(before, place.daemons());
}

#[test]
fn an_archive_that_climbs_out_of_its_root_is_refused() {
    let (place, _registry) = place_with_busybox();
    place.write("work/evil", "climbed");
    let tar = place.path("work/evil.tar");
    let made = kiln_testkit::program("tar")
        .current_dir(place.path("work"))
        .args(["-P", "--transform", "s,^evil$,../../../../../../tmp/kiln-climbed,"])
        .arg("-cf")
        .arg(&tar)
        .arg("evil")
        .status()
        .unwrap();
    assert!(made.success());
    place.write("work/Dockerfile", "FROM busybox\nADD evil.tar /\n");
    place.run(&["build", "."]);
    assert!(!std::path::Path::new("/tmp/kiln-climbed").exists());
}

#[test]
fn nothing_half_done_keeps_its_final_name() {
    let (place, _registry) = place_with_busybox();
    place.write("work/Dockerfile", "FROM busybox\nRUN false\n");
    place
        .run(&[
            "build",
            "-o",
            "type=oci,dest=image.tar",
            "--metadata-file",
            "meta.json",
            "--iidfile",
            "id",
            ".",
        ])
        .failure();
    for name in ["image.tar", "meta.json", "id"] {
        assert!(!place.path("work").join(name).exists(), "{name}");
    }
}
