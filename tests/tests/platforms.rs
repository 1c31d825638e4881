//! Images for several platforms: built here, published under one tag, read by other programs.

use kiln_testkit::program;
use kiln_tests::place_with_busybox;

#[test]
fn one_tag_serves_two_platforms() {
    let (place, registry) = place_with_busybox();
    place.write(
        "work/Dockerfile",
        "FROM busybox\nARG TARGETARCH\nRUN uname -m > /machine && echo $TARGETARCH >> /machine\nCMD [\"cat\", \"/machine\"]\n",
    );
    let name = registry.reference("demo/two:1");
    place.run(&["build", "--platform", "linux/amd64,linux/arm64", "-t", &name, "--push", "."]).success();

    let raw = program("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{name}"))
        .output()
        .unwrap();
    let index: serde_json::Value = serde_json::from_slice(&raw.stdout).unwrap();
    let mut platforms: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["platform"]["architecture"].as_str())
        .filter(|architecture| *architecture != "unknown")
        .collect();
    platforms.sort_unstable();
    assert_eq!(platforms, ["amd64", "arm64"]);

    for (architecture, machine) in [("amd64", "x86_64"), ("arm64", "aarch64")] {
        let layout = format!("oci:{}:x", place.path(&format!("work/{architecture}")).display());
        let copied = program("skopeo")
            .args([
                "copy",
                "-q",
                "--src-tls-verify=false",
                "--override-os",
                "linux",
                "--override-arch",
                architecture,
            ])
            .args([&format!("docker://{name}"), &layout])
            .status()
            .unwrap();
        assert!(copied.success());
        let bundle = place.path(&format!("work/{architecture}-files"));
        let unpacked = program("umoci")
            .args(["unpack", "--rootless", "--image"])
            .arg(format!("{}:x", place.path(&format!("work/{architecture}")).display()))
            .arg(&bundle)
            .output()
            .unwrap();
        assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
        let text = kiln_tests::read(&bundle.join("rootfs/machine"));
        assert_eq!(text, format!("{machine}\n{architecture}\n"));
    }
}

#[test]
fn nothing_is_registered_on_the_host() {
    let entries =
        |folder: &str| std::fs::read_dir(folder).map(|entries| entries.flatten().count()).unwrap_or_default();
    let before = entries("/proc/sys/fs/binfmt_misc");
    let (place, _registry) = place_with_busybox();
    place.write("work/Dockerfile", "FROM busybox\nRUN uname -m\n");
    place.run(&["build", "--platform", "linux/arm64", "."]).success();
    assert_eq!(entries("/proc/sys/fs/binfmt_misc"), before);
}

#[test]
fn a_platform_without_an_emulator_is_named() {
    let (place, _registry) = place_with_busybox();
    place.write("work/Dockerfile", "FROM scratch\nCOPY Dockerfile /\nRUN [\"/x\"]\n");
    let output = place.run(&["build", "--platform", "linux/sparc64", "."]).failure();
    assert!(output.stderr.contains("sparc64"), "{}", output.stderr);
}
