//! The daemon that `kiln` starts by itself: invariants 1 and 7, and what it survives.

use std::process::Command;
use std::time::{Duration, Instant};

use kiln_testkit::{Place, program};
use kiln_tests::place_with_busybox;

/// Waits for a state; panics when it does not come.
fn wait_until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes on this machine whose command line holds a mark.
fn processes(mark: &str) -> usize {
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    entries
        .flatten()
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let own = entry.file_name().to_str() == Some(&std::process::id().to_string());
            !own && String::from_utf8_lossy(&line).contains(mark)
        })
        .count()
}

/// Mounts of a place, but for the one in memory that the daemon itself keeps secrets in while it runs.
fn mounts(place: &Place) -> usize {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = |line: &&str| {
        line.contains(&place.path("").display().to_string()) && !line.contains("/work/private ")
    };
    table.lines().filter(own).count()
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let (place, _registry) = place_with_busybox();
    place.write("work/Dockerfile", "FROM busybox\nRUN sleep 98761\n");
    for signal in ["KILL", "INT"] {
        let mut client = place.kiln().args(["build", "--progress=plain", "."]).spawn().unwrap();
        wait_until("the step runs", || processes("sleep\u{0}98761") > 0);
        let sent =
            Command::new("kill").arg(format!("-{signal}")).arg(client.id().to_string()).status().unwrap();
        assert!(sent.success());
        let ended = client.wait().unwrap();
        assert!(!ended.success());
        wait_until("the step is gone", || processes("sleep\u{0}98761") == 0);
    }
    wait_until("its mounts are gone", || mounts(&place) == 0);
    // The daemon goes on.
    place.write("work/Dockerfile", "FROM busybox\nRUN true\n");
    place.run(&["build", "."]).success();
}

#[test]
fn a_killed_daemon_loses_no_image_and_the_next_build_works() {
    let (place, _registry) = place_with_busybox();
    place.write("work/Dockerfile", "FROM busybox\nRUN echo kept > /kept\n");
    place.run(&["build", "-t", "kept:1", "."]).success();
    place.write(
        "work/Dockerfile",
        "FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=50\nRUN sleep 98762\n",
    );
    let mut client = place.kiln().args(["build", "--progress=plain", "."]).spawn().unwrap();
    wait_until("the step runs", || processes("sleep\u{0}98762") > 0);
    place.stop_daemons("KILL");
    assert!(!client.wait().unwrap().success());
    wait_until("the step is gone with its daemon", || processes("sleep\u{0}98762") == 0);

    let listed = place.run(&["image", "ls"]).success().stdout;
    assert!(listed.contains("kept"), "{listed}");
    place.write("work/Dockerfile", "FROM busybox\nRUN echo again\n");
    place.run(&["build", "."]).success();
    check_content(&place);
}

/// Invariant 2: every blob hashes to its name.
fn check_content(place: &Place) {
    let blobs = program("find")
        .arg(place.path("data"))
        .args(["-path", "*/blobs/sha256/*", "-type", "f"])
        .output()
        .unwrap();
    let blobs = String::from_utf8_lossy(&blobs.stdout).into_owned();
    let mut seen = 0;
    for blob in blobs.lines() {
        let sum = program("sha256sum").arg(blob).output().unwrap();
        let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
        assert!(blob.ends_with(sum.split_whitespace().next().unwrap()), "{blob} does not hash to its name");
        seen += 1;
    }
    assert!(seen > 0, "no blobs were found to check");
}

#[test]
fn a_stale_socket_is_no_obstacle() {
    let place = Place::new();
    place.write("work/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    place.run(&["build", "-o", "out", "."]).success();
    place.stop_daemons("KILL");
    place.run(&["build", "-o", "out", "."]).success();
}

#[test]
fn a_state_folder_that_cannot_be_written_is_named() {
    let place = Place::new();
    let data = place.path("data");
    std::fs::remove_dir(&data).unwrap();
    std::fs::write(&data, "a file where a folder should be").unwrap();
    place.write("work/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let said = place.run(&["build", "."]).failure().stderr;
    assert!(said.contains(&data.display().to_string()), "{said}");
}

#[test]
fn a_plain_user_builds_without_any_set_up() {
    let (place, _registry) = place_with_busybox();
    if !is_root() {
        return; // Then every other test was one of a plain user.
    }
    let user = "4242";
    place.write(
        "work/Dockerfile",
        "FROM busybox\nRUN id -u > /id && echo x > /made && chown 0:0 /made\nRUN test \"$(cat /id)\" = 0\n",
    );
    let mut chown = program("chown");
    assert!(chown.args(["-R", user]).arg(place.path("")).status().unwrap().success());
    let mut command = program("setpriv");
    command
        .args(["--reuid", user, "--regid", user, "--clear-groups", "--"])
        .arg(kiln_testkit::kiln_binary("kiln"));
    place.enter(&mut command);
    let output =
        command.args(["build", "--progress=plain", "-o", "type=oci,dest=image.tar", "."]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(place.path("work/image.tar").exists());
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}
