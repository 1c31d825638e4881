//! The embedded daemon's life: started once, shared, replaced. The daemon is a stand-in that this test program plays itself.

mod stand_in;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary folder"));
        // The arguments of a daemon are none that a test program takes, so they go by way of a variable.
        let script = format!(
            "#!/bin/sh\necho $$ >> {starts}\n{arguments}=\"$*\" {version}=\"$(cat {wanted})\" exec {program} --exact daemon --nocapture\n",
            starts = place.path("starts").display(),
            arguments = stand_in::ARGUMENTS,
            version = stand_in::VERSION,
            wanted = place.path("version").display(),
            program = std::env::current_exe().unwrap().display(),
        );
        std::fs::write(place.path("kilnd"), script).unwrap();
        std::fs::set_permissions(place.path("kilnd"), std::fs::Permissions::from_mode(0o755)).unwrap();
        place.set_version(&own_version());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn set_version(&self, version: &str) {
        std::fs::write(self.path("version"), version).unwrap();
    }

    fn kiln(&self) -> Child {
        Command::new(env!("CARGO_BIN_EXE_kiln"))
            .arg("du")
            .env_clear()
            .env("HOME", self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env("PATH", "/usr/bin:/bin")
            .env("KILN_KILND", self.path("kilnd"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs")
    }

    fn run(&self) -> Output {
        self.kiln().wait_with_output().unwrap()
    }

    /// Processes of the daemons that were started, oldest first.
    fn starts(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.path("starts")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// No daemon outlives its test.
impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.starts() {
            kill(pid, "-KILL");
        }
    }
}

fn own_version() -> String {
    format!("v{}", env!("CARGO_PKG_VERSION"))
}

fn kill(pid: i32, signal: &str) {
    let _ = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
}

fn assert_works(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Total:"), "{output:?}");
}

/// Not a test: the daemon, when this program is started as one.
#[test]
fn daemon() {
    stand_in::serve_if_asked();
}

#[test]
fn the_next_command_finds_it_warm() {
    let place = Place::new();
    assert_works(&place.run());
    assert_works(&place.run());
    assert_eq!(place.starts().len(), 1);
}

#[test]
fn many_at_once_share_one() {
    let place = Place::new();
    let running: Vec<Child> = (0..6).map(|_| place.kiln()).collect();
    for child in running {
        assert_works(&child.wait_with_output().unwrap());
    }
    assert_eq!(place.starts().len(), 1);
}

#[test]
fn a_killed_daemon_is_replaced() {
    let place = Place::new();
    assert_works(&place.run());
    kill(place.starts()[0], "-KILL");
    // The socket is still there, and nobody behind it.
    assert_works(&place.run());
    assert_eq!(place.starts().len(), 2);
}

#[test]
fn an_idle_daemon_of_another_version_is_replaced() {
    let place = Place::new();
    place.set_version("v0.0.1");
    let output = place.run();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("v0.0.1"), "{said}");
    place.set_version(&own_version());
    assert_works(&place.run());
    assert_eq!(place.starts().len(), 2);
}

#[test]
fn a_busy_daemon_of_another_version_is_left_alone() {
    let place = Place::new();
    place.set_version("v0.0.1 busy");
    place.run();
    place.set_version(&own_version());
    let output = place.run();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("wait until its builds have ended"), "{said}");
    assert_eq!(place.starts().len(), 1);
}
