//! Steps of a daemon that is a plain user. As root, the tests become one for that.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use common::is_root;

/// A user without ranges of subordinate ids.
const PLAIN_ID: u32 = 23_456;

fn run_as(id: u32, dir: &Path, arch: &str, user: &str, line: &str) -> Output {
    let helper = dir.join("helper");
    if !helper.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_kiln-exec-helper"), &helper).unwrap();
    }
    let mut command = Command::new(helper);
    let (state, root) = (dir.join("state"), dir.join("root"));
    command.arg("run").args([state, root]).args([arch, user, "/bin/sh", "-c", line]).current_dir("/");
    if is_root() {
        chown_all(dir, id);
        command.uid(id).gid(id);
    }
    command.output().unwrap()
}

fn chown_all(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).unwrap() {
            chown_all(&entry.unwrap().path(), id);
        }
    }
}

fn bench(busybox: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    common::make_root(&dir.path().join("root"), busybox);
    dir
}

fn namespaces_allowed(id: u32) -> bool {
    let mut command = Command::new("unshare");
    command.args(["-Ur", "true"]);
    if is_root() {
        command.uid(id).gid(id);
    }
    let allowed = command.status().is_ok_and(|s| s.success());
    if !allowed {
        eprintln!("skipped: this kernel gives plain users no user namespaces");
    }
    allowed
}

#[test]
fn a_single_id_is_enough() {
    if !namespaces_allowed(PLAIN_ID) {
        return;
    }
    let dir = bench(Path::new("/bin/busybox"));
    let line = "id -u; hostname; echo $$; echo x > /dev/null && head -c 3 /dev/zero | wc -c; touch /made; \
                grep CapBnd /proc/self/status; grep Seccomp: /proc/self/status; cat /proc/kcore /proc/keys | wc -c; \
                ls /proc/self/fd | wc -l; ls -d /sys/kernel; echo x > /sys/kernel/mm/ksm/run; mknod /n c 1 3; \
                echo y > /etc/hosts; cat /proc/mounts | grep -c state";
    let out = run_as(PLAIN_ID, dir.path(), "", "", line);
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(
        stdout, "0\nbuildkitsandbox\n1\n3\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\n0\n4\n/sys/kernel\n0\n",
        "{stderr}"
    );
    assert!(stderr.contains("mknod: /n: Operation not permitted"), "{stderr}");
    assert!(stderr.contains("Read-only file system"), "{stderr}");
    assert!(dir.path().join("root/made").exists());
    assert!(!dir.path().join("root/etc/hosts").exists());
    // Another user cannot be had with one id, which is said.
    let out = run_as(PLAIN_ID, dir.path(), "", "app", "id");
    let stderr = String::from_utf8_lossy(&out.stderr);
    if is_root() {
        assert_eq!(out.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("cannot run as 1000:1001: these ids are not mapped"), "{stderr}");
    }
    assert_eq!(run_as(PLAIN_ID, dir.path(), "", "", "exit 9").status.code(), Some(9));
}

#[test]
fn foreign_platforms_too() {
    let Some(busybox) = std::env::var_os("KILN_TEST_BUSYBOX_ARM64") else {
        eprintln!("skipped: KILN_TEST_BUSYBOX_ARM64 is not set");
        return;
    };
    if !namespaces_allowed(PLAIN_ID) {
        return;
    }
    let dir = bench(Path::new(&busybox));
    let out = run_as(PLAIN_ID, dir.path(), "arm64", "", "uname -m; id -u; ls / | wc -l");
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "aarch64\n0\n6\n",
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
