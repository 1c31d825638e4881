//! The program as it is run: exit codes, where what is printed, and what happens without a daemon.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("context")).unwrap();
        std::fs::write(dir.path().join("context/Dockerfile"), "FROM scratch\n").unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// Runs the program with nothing of this process's environment but these variables.
    fn run(&self, program: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .current_dir(self.path("context"))
            .env_clear()
            .env("HOME", self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env("PATH", "/usr/bin:/bin")
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
            .envs(variables.iter().copied())
            .stdin(std::process::Stdio::null())
            .output()
            .expect("the program runs")
    }

    fn kiln(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
        self.run(Path::new(env!("CARGO_BIN_EXE_kiln")), variables, arguments)
    }

    /// A daemon that is this script.
    fn daemon(&self, script: &str) -> String {
        let path = self.path("kilnd");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn version_and_help_go_to_standard_output() {
    let place = Place::new();
    let version = place.kiln(&[], &["version"]);
    assert_eq!(text(&version.stdout), format!("kiln v{}\n", env!("CARGO_PKG_VERSION")));
    let help = place.kiln(&[], &["build", "--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("--build-context"));
    let mistake = place.kiln(&[], &["build", "--no-such-flag", "."]);
    assert_eq!((mistake.status.code(), mistake.stdout.len()), (Some(1), 0));
    assert!(text(&mistake.stderr).contains("--no-such-flag"));
}

#[test]
fn later_commands_say_so() {
    let later = Place::new().kiln(&[], &["bake", "--print", "-f", "x"]);
    assert_eq!(later.status.code(), Some(1));
    assert!(text(&later.stderr).contains("`bake` is not supported yet"));
}

#[test]
fn docker_is_told_what_this_plugin_is() {
    let place = Place::new();
    let plugin = place.path("docker-buildx");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kiln"), &plugin).unwrap();
    let metadata = place.run(&plugin, &[], &["docker-cli-plugin-metadata"]);
    let found: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    assert_eq!(found["SchemaVersion"], "0.1.0");
    let variables = [("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", "/usr/bin/docker")];
    let version = place.run(&plugin, &variables, &["--config", "/x", "-D", "buildx", "version"]);
    assert!(text(&version.stdout).starts_with("kiln v"), "{version:?}");
}

#[test]
fn a_missing_daemon_is_told() {
    let place = Place::new();
    let output = place.kiln(&[("KILN_KILND", "/nonexistent/kilnd")], &["build", "."]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("`kilnd` was not found") && said.contains("hint: "), "{said}");
}

#[test]
fn a_daemon_that_cannot_start_is_told_with_its_words() {
    let place = Place::new();
    let daemon = place.daemon("echo older trouble >&2; echo the disk is on fire >&2; exit 3");
    let output = place.kiln(&[("KILN_KILND", &daemon)], &["build", "."]);
    let said = text(&output.stderr);
    assert!(said.contains("the disk is on fire") && said.contains("exit status: 3"), "{said}");
    let log = place.path(".local/share/kiln/kilnd.log");
    assert!(said.contains(log.to_str().unwrap()), "{said}");
}

#[test]
fn a_daemon_that_says_it_is_ready_and_is_not_is_told() {
    let place = Place::new();
    let daemon = place.daemon(
        r#"while [ $# -gt 0 ]; do [ "$1" = --ready-fd ] && fd=$2; shift; done; echo ready > /proc/self/fd/$fd"#,
    );
    let output = place.kiln(&[("KILN_KILND", &daemon)], &["build", "."]);
    let said = text(&output.stderr);
    assert!(said.contains("ended right after it was started"), "{said}");
}

#[test]
fn a_state_folder_that_cannot_be_made_is_told() {
    let place = Place::new();
    let output = place.kiln(&[("KILN_ROOT", "/proc/nowhere")], &["build", "."]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("/proc/nowhere") && said.contains("KILN_ROOT"), "{said}");
}

#[test]
fn nobody_at_a_chosen_builder_is_told() {
    let place = Place::new();
    let output = place.kiln(&[("BUILDKIT_HOST", "unix:///nonexistent/b.sock")], &["build", "."]);
    let said = text(&output.stderr);
    assert!(said.contains("cannot connect to the builder at unix:///nonexistent/b.sock"), "{said}");
    assert!(!place.path(".local/share/kiln/kilnd.log").exists(), "no daemon of ours is wanted then");
}

#[test]
fn a_failed_build_leaves_no_results() {
    let place = Place::new();
    std::fs::write(place.path("iid"), "old").unwrap();
    let (iid, metadata, out) = (place.path("iid"), place.path("meta"), place.path("out.tar"));
    let output = place.kiln(
        &[("BUILDKIT_HOST", "unix:///nonexistent/b.sock")],
        &[
            "build",
            "--iidfile",
            iid.to_str().unwrap(),
            "--metadata-file",
            metadata.to_str().unwrap(),
            "-o",
            &format!("type=oci,dest={}", out.display()),
            ".",
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(!iid.exists() && !metadata.exists() && !out.exists());
}
