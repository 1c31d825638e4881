//! `kiln build`: what comes out, and what does not run again.

use kiln_tests::{place_with_busybox, read, tar_names};

/// Steps of a plain progress log that were taken from the cache.
fn cached_steps(log: &str) -> usize {
    log.lines().filter(|line| line.ends_with(" CACHED")).count()
}

#[test]
fn stages_files_and_commands_end_up_in_a_local_folder() {
    let (place, _registry) = place_with_busybox();
    place.write("work/a.txt", "one\n");
    place.write(
        "work/Dockerfile",
        "FROM busybox AS build\nWORKDIR /src\nCOPY a.txt .\nARG GREETING=hello\nRUN echo \"$GREETING $(cat a.txt)\" > /out.txt\n\
         FROM scratch\nCOPY --from=build /out.txt /result.txt\n",
    );
    place.run(&["build", "--build-arg", "GREETING=bye", "-o", "out", "."]).success();
    assert_eq!(read(&place.path("work/out/result.txt")), "bye one\n");
}

#[test]
fn nothing_runs_again_for_a_time_and_only_dependants_for_a_change() {
    let (place, _registry) = place_with_busybox();
    place.write("work/used.txt", "1");
    place.write("work/other.txt", "1");
    place.write(
        "work/Dockerfile",
        "FROM busybox AS one\nCOPY used.txt /\nRUN cat /used.txt && cat /proc/sys/kernel/random/uuid > /one\n\
         FROM busybox AS two\nCOPY other.txt /\nRUN cat /other.txt && cat /proc/sys/kernel/random/uuid > /two\n\
         FROM scratch\nCOPY --from=one /one /one\nCOPY --from=two /two /two\n",
    );
    let build = || {
        let log = place.run(&["build", "--progress=plain", "-o", "out", "."]).success().stderr;
        (read(&place.path("work/out/one")), read(&place.path("work/out/two")), log)
    };
    let (one, two, _) = build();

    // A file's time alone changes nothing.
    let status = kiln_testkit::program("touch").arg(place.path("work/used.txt")).status().unwrap();
    assert!(status.success());
    let (one_again, two_again, log) = build();
    assert_eq!((&one, &two), (&one_again, &two_again), "{log}");
    assert!(cached_steps(&log) >= 4, "{log}");

    // A changed file reruns what depends on it and nothing else.
    place.write("work/used.txt", "2");
    let (one_changed, two_kept, log) = build();
    assert_ne!(one, one_changed, "{log}");
    assert_eq!(two, two_kept, "{log}");

    // Keys survive the daemon.
    place.stop_daemons("TERM");
    let (one_restarted, two_restarted, log) = build();
    assert_eq!((one_changed, two_kept), (one_restarted, two_restarted), "{log}");
}

#[test]
fn only_the_stages_that_the_target_needs_are_built() {
    let (place, _registry) = place_with_busybox();
    place.write(
        "work/Dockerfile",
        "FROM busybox AS broken\nRUN false\nFROM busybox AS good\nRUN echo good > /good\n",
    );
    place.run(&["build", "--target", "good", "."]).success();
    place.run(&["build", "--target", "broken", "."]).failure();
}

#[test]
fn an_oci_archive_and_a_tar_are_what_other_programs_expect() {
    let (place, _registry) = place_with_busybox();
    place.write(
        "work/Dockerfile",
        "FROM busybox\nRUN mkdir /made && echo x > /made/file\nLABEL a=b\nCMD [\"cat\", \"/made/file\"]\n",
    );
    place.run(&["build", "-o", "type=oci,dest=image.tar", "-t", "named:1", "."]).success();
    let output = kiln_testkit::program("skopeo")
        .args(["inspect", "--config"])
        .arg(format!("oci-archive:{}", place.path("work/image.tar").display()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(config["config"]["Labels"]["a"], "b");
    assert_eq!(config["config"]["Cmd"][0], "cat");

    place.run(&["build", "-o", "type=tar,dest=files.tar", "."]).success();
    assert!(tar_names(&place.path("work/files.tar")).contains(&"made/file".to_owned()));
}

#[test]
fn a_context_comes_from_standard_input_too() {
    let (place, _registry) = place_with_busybox();
    place.write("work/sub/Dockerfile", "FROM scratch\nCOPY file /file\n");
    place.write("work/sub/file", "from a tar\n");
    let tar = place.path("work/context.tar");
    let status = kiln_testkit::program("tar")
        .arg("-C")
        .arg(place.path("work/sub"))
        .arg("-cf")
        .arg(&tar)
        .arg(".")
        .status();
    assert!(status.unwrap().success());
    let build = |input: &str, out: &str| {
        let input = std::fs::File::open(place.path(input)).unwrap();
        let status = place.kiln().args(["build", "-o", out, "-"]).stdin(input).status().unwrap();
        assert!(status.success());
    };
    build("work/context.tar", "from-tar");
    assert_eq!(read(&place.path("work/from-tar/file")), "from a tar\n");

    place.write(
        "work/only.Dockerfile",
        "FROM busybox AS b\nRUN echo alone > /file\nFROM scratch\nCOPY --from=b /file /file\n",
    );
    build("work/only.Dockerfile", "from-text");
    assert_eq!(read(&place.path("work/from-text/file")), "alone\n");
}

#[test]
fn a_named_folder_needs_no_ignore_file_and_the_time_of_a_local_context_is_unset() {
    let (place, _registry) = place_with_busybox();
    place.write("other/file", "other");
    place.write("work/Dockerfile", "FROM scratch\nCOPY --from=other file /\n");
    let named = format!("other={}", place.path("other").display());
    let epoch = "SOURCE_DATE_EPOCH=context";
    let args =
        ["build", "--build-context", &named, "--build-arg", epoch, "-o", "type=oci,dest=image.tar", "."];
    place.run(&args).success();
    assert!(place.path("work/image.tar").exists());
}

#[test]
fn cache_mounts_are_shared_at_once_and_empty_without_cache() {
    let (place, _registry) = place_with_busybox();
    let dockerfile = "FROM busybox AS one\nARG NAME\n\
         RUN --mount=type=cache,id=c,target=/a --mount=type=cache,id=c,sharing=locked,target=/b \\\n\
         touch /a/$NAME && ls /b | wc -l > /count\n\
         FROM busybox AS two\nARG NAME\nRUN --mount=type=cache,target=/d --mount=type=cache,target=/d/e echo 1 $NAME\n\
         FROM busybox AS three\nARG NAME\nRUN --mount=type=cache,target=/d --mount=type=cache,target=/d/e echo 2 $NAME\n\
         FROM scratch\nCOPY --from=one /count /\nCOPY --from=two /bin/busybox /x\nCOPY --from=three /bin/busybox /y\n";
    place.write("work/Dockerfile", dockerfile);
    let count = |name: &str, more: &[&str]| {
        let arg = format!("NAME={name}");
        let mut args = vec!["build", "--build-arg", &arg, "-o", "out"];
        args.extend(more);
        args.push(".");
        place.run(&args).success();
        read(&place.path("work/out/count")).trim().to_owned()
    };
    assert_eq!(count("a", &[]), "1");
    assert_eq!(count("b", &[]), "2");
    assert_eq!(count("c", &["--no-cache"]), "1");
    assert_eq!(count("d", &[]), "2");
}

#[test]
fn builds_at_once_share_one_daemon() {
    let (place, _registry) = place_with_busybox();
    place.write("work/Dockerfile", "FROM busybox\nARG WHO\nRUN echo $WHO > /who\n");
    let children: Vec<_> = (0..8)
        .map(|who| {
            place.kiln().args(["build", "-q", "--build-arg", &format!("WHO={who}"), "."]).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(place.daemons().len(), 1);
}
