//! What a step sees and may do. Needs root.

mod common;

use common::{Bench, is_root};
use kiln_exec::{SecurityMode, Ulimit};

macro_rules! need_root {
    () => {
        if !is_root() {
            eprintln!("skipped: needs root");
            return;
        }
    };
}

#[tokio::test]
async fn namespaces_are_its_own() {
    need_root!();
    let bench = Bench::new().await;
    let out = bench
        .sh("echo $$; hostname; readlink /proc/self/ns/mnt; cat /proc/1/comm; ls /proc/self/fd")
        .await
        .ok();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "1");
    assert_eq!(lines[1], "buildkitsandbox");
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    assert_ne!(lines[2], own.to_str().unwrap());
    assert_eq!(lines[3], "sh");
    // ls itself has one more open: the directory.
    assert_eq!(lines[4..], ["0", "1", "2", "3"]);
    let interfaces = bench.sh("cat /proc/net/dev | sed 1,2d | sed 's/:.*//'").await.ok();
    assert_eq!(interfaces.trim(), "lo");
    assert_eq!(bench.sh("ping -c 1 127.0.0.1 >/dev/null && echo up").await.ok(), "up\n");
}

#[tokio::test]
async fn capabilities_are_dockers() {
    need_root!();
    let bench = Bench::new().await;
    let status = bench.sh("grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status").await.ok();
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a80425fb",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t0",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line} in\n{status}");
    }
    let mut step = bench.step("grep CapEff /proc/self/status; grep CapBnd /proc/self/status");
    step.process.user = "app".into();
    assert_eq!(bench.run(step).await.ok(), "CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\n");
}

#[tokio::test]
async fn system_calls_are_filtered() {
    need_root!();
    let bench = Bench::new().await;
    // unshare(CLONE_NEWUSER) and mount are refused by the filter before any capability is asked.
    let out = bench.sh("unshare -U true; echo $?; mount -t tmpfs x /tmp; echo $?").await;
    assert_eq!(out.code(), 0);
    assert!(out.stderr.contains("unshare") && out.stderr.contains("Operation not permitted"), "{out:?}");
    assert!(!out.stdout.starts_with('0'), "{out:?}");
    let refused = bench.sh("mount -t tmpfs x /tmp").await;
    assert!(refused.result.is_err());
}

#[tokio::test]
async fn kernel_files_are_masked_and_read_only() {
    need_root!();
    let bench = Bench::new().await;
    let out = bench
        .sh("cat /proc/kcore | wc -c; cat /proc/keys | wc -c; cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; \
             ls /proc/acpi /proc/scsi 2>/dev/null | grep -v : | grep -c .")
        .await;
    assert_eq!(out.stdout, "0\n0\n0\n0\n0\n", "{out:?}");
    for file in ["/proc/sys/kernel/hostname", "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_seqnum"] {
        let out = bench.sh(&format!("echo x > {file}")).await;
        assert!(out.stderr.contains("Read-only file system"), "{out:?}");
        assert!(out.result.is_err());
    }
    let mounts = bench.sh("cat /proc/mounts").await.ok();
    let find = |point: &str| {
        mounts
            .lines()
            .find(|l| l.split(' ').nth(1) == Some(point))
            .unwrap_or_else(|| panic!("{point} in {mounts}"))
    };
    assert!(find("/sys").contains(" sysfs ro,nosuid,nodev,noexec"));
    assert!(find("/proc").contains(" proc rw,nosuid,nodev,noexec"));
    assert!(find("/dev/shm").contains("size=65536k"));
    assert!(find("/dev/mqueue").contains("mqueue"));
    assert!(find("/dev/pts").contains("gid=5,mode=620,ptmxmode=666"));
    assert!(find("/etc/hosts").contains("ro,"));
    assert!(find("/sys/fs/cgroup").contains(" ro,"));
}

#[tokio::test]
async fn devices_are_the_usual_ones_and_no_others_open() {
    need_root!();
    let bench = Bench::new().await;
    let out = bench
        .sh("cd /dev; ls | grep -v core; echo x > /dev/null; head -c 2 /dev/zero | wc -c; stat -c '%a %t:%T' null")
        .await
        .ok();
    let names: Vec<_> = out.lines().collect();
    assert_eq!(
        names,
        [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
            "tty", "urandom", "zero", "2", "666 1:3"
        ]
    );
    // A node for the kernel's memory, and one for the first loop device, can be made but not opened.
    for node in ["c 1 1", "c 1 11", "b 7 0"] {
        let out = bench
            .sh(&format!("rm -f /tmp/n; mknod /tmp/n {node} && dd if=/tmp/n of=/dev/null count=1"))
            .await;
        assert!(out.stderr.contains("Operation not permitted"), "{node}: {out:?}");
    }
    assert_eq!(bench.sh("rm -f /tmp/z; mknod /tmp/z c 1 5 && head -c 3 /tmp/z | wc -c").await.ok(), "3\n");
}

#[tokio::test]
async fn nothing_of_the_host_is_in_reach() {
    need_root!();
    let bench = Bench::new().await;
    let out = bench.sh("ls / ; ls /proc/1/root/; cat /proc/mounts | grep -c state").await;
    assert!(!out.stdout.contains("work") && !out.stdout.contains("home"), "{out:?}");
    assert!(out.stdout.ends_with("0\n"), "{out:?}");
    // The helper's program cannot be written to, even by root that gets hold of it.
    let helper = std::path::Path::new(env!("CARGO_BIN_EXE_kiln-exec-helper"));
    let before = std::fs::metadata(helper).unwrap().modified().unwrap();
    let mut step = bench.step("");
    step.process.args = vec!["/proc/self/exe".into(), "x".into()];
    let out = bench.run(step).await;
    assert!(out.result.is_err());
    assert_eq!(std::fs::metadata(helper).unwrap().modified().unwrap(), before);
}

#[tokio::test]
async fn insecure_steps_have_it_all() {
    need_root!();
    let bench = Bench::new().await;
    let mut step = bench.step(
        "grep -E 'CapBnd|CapEff|Seccomp:' /proc/self/status; mount -t tmpfs x /tmp && echo mounted; \
         test -e /dev/kmsg -a -e /dev/fuse -a -e /dev/loop-control -a -e /dev/loop7 && echo devices; \
         test -d /sys/fs/cgroup/cpuset && cg=/sys/fs/cgroup/cpuset/t || cg=/sys/fs/cgroup/t; mkdir $cg && echo cgroup; \
         head -c 1 /proc/timer_list >/dev/null && echo unmasked; unshare -m true && echo unshared",
    );
    step.security = SecurityMode::Insecure;
    let out = bench.run(step).await;
    let text = out.ok();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let cap = own.lines().find(|l| l.starts_with("CapEff")).unwrap();
    assert!(text.contains(cap), "{text}");
    assert!(text.contains("Seccomp:\t0"), "{text}");
    for word in ["mounted", "devices", "cgroup", "unmasked", "unshared"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[tokio::test]
async fn limits_and_sizes() {
    need_root!();
    let bench = Bench::new().await;
    let mut step = bench.step("ulimit -n; ulimit -Hn; grep ' /dev/shm ' /proc/mounts; umask");
    step.ulimits = vec![Ulimit { name: "nofile".into(), soft: 77, hard: 99 }];
    step.shm_size_bytes = 1 << 20;
    let out = bench.run(step).await.ok();
    assert!(out.starts_with("77\n99\n"), "{out}");
    assert!(out.contains("size=1024k") && out.ends_with("0022\n"), "{out}");
    let mut step = bench.step("true");
    step.ulimits = vec![Ulimit { name: "odd".into(), soft: 1, hard: 1 }];
    assert_eq!(bench.run(step).await.result.unwrap_err().to_string(), "unknown ulimit `odd`");
}
