//! Steps of foreign platforms. Need root and Debian's `qemu-user-static`; more is tried with a static busybox for arm64 in
//! `KILN_TEST_BUSYBOX_ARM64`.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::{Bench, is_root};
use kiln_exec::{Arch, Error, ExecProcess, Executor, Runtime, emulation};

fn foreign() -> Arch {
    if cfg!(target_arch = "aarch64") { Arch::new("amd64", "") } else { common::arm64() }
}

fn can_emulate() -> bool {
    let platforms = emulation::supported_platforms(&emulation::default_dirs());
    let can = is_root() && platforms.iter().any(|p| p.arch == foreign() && p.program.is_some());
    if !can {
        eprintln!("skipped: needs root and qemu-user-static, with nothing registered on the host");
    }
    can
}

fn host_registrations() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    let mut entries: Vec<_> = entries.map(|e| e.path()).collect();
    entries.sort();
    entries
}

#[tokio::test]
async fn the_smallest_program_runs() {
    if !can_emulate() {
        return;
    }
    let bench = Bench::new().await;
    let path = bench.root().join("bin/smallest");
    std::fs::write(&path, emulation::smallest_program(&foreign().architecture).unwrap()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let before = host_registrations();
    let mut step = bench.step("/bin/smallest && echo again && /bin/smallest");
    // Without emulation the kernel refuses it.
    assert_ne!(bench.run(step.clone()).await.code(), 0);
    step.platform = Some(foreign());
    assert_eq!(bench.run(step).await.ok(), "again\n");
    assert_eq!(host_registrations(), before);
}

#[tokio::test]
async fn a_foreign_busybox_works() {
    let Some(busybox) = std::env::var_os("KILN_TEST_BUSYBOX_ARM64").map(PathBuf::from) else {
        eprintln!("skipped: KILN_TEST_BUSYBOX_ARM64 is not set");
        return;
    };
    if !can_emulate() {
        return;
    }
    let bench = Bench::new().await;
    common::make_root(&bench.root(), &busybox);
    let line = "uname -m; id; cat /etc/passwd | wc -l; touch /made; chown 1000:1001 /made; stat -c %u:%g /made; \
                grep CapBnd /proc/self/status; hostname; echo x > /dev/null; cat /proc/kcore /proc/keys | wc -c; \
                mount -t tmpfs x /tmp; ls /dev; echo $0";
    let mut step = bench.step(line);
    step.platform = Some(common::arm64());
    let out = bench.run(step.clone()).await;
    let expected = "aarch64\nuid=0(root) gid=0(root) groups=0(root)\n2\n1000:1001\nCapBnd:\t00000000a80425fb\n\
                    buildkitsandbox\n0\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n/bin/sh\n";
    assert_eq!(out.stdout.replace("core\n", ""), expected, "{out:?}");
    assert!(out.stderr.contains("mount"), "{out:?}");
    use std::os::unix::fs::MetadataExt;
    let made = std::fs::metadata(bench.root().join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (1000, 1001));
    step.process.user = "app".into();
    step.process.args = vec!["sh".into(), "-c".into(), "id -u; sleep 1000; true".into()];
    step.id = "foreign".into();
    let cancel = tokio_util::sync::CancellationToken::new();
    let (sender, started) = tokio::sync::oneshot::channel();
    let run = tokio::spawn({
        let (executor, cancel): (Executor, _) = (bench.executor.clone(), cancel.clone());
        async move { executor.run(step, kiln_exec::Stdio::default(), Some(sender), cancel).await }
    });
    started.await.unwrap();
    let further = ExecProcess { args: vec!["uname".into(), "-m".into()], ..ExecProcess::default() };
    assert_eq!(bench.exec("foreign", further).await.ok(), "aarch64\n");
    cancel.cancel();
    assert!(run.await.unwrap().is_err());
    // In front of the process, as on kernels without a binfmt_misc for us, the process alone is emulated.
    let Some(runc) = ["/usr/bin/crun", "/usr/sbin/runc"].iter().map(PathBuf::from).rfind(|p| p.exists())
    else {
        return;
    };
    let bench = Bench::with(|config| config.runtime = Runtime::Runc(runc)).await;
    common::make_root(&bench.root(), &busybox);
    let mut step = bench.step("echo one; cd /tmp; pwd");
    step.platform = Some(common::arm64());
    assert_eq!(bench.run(step).await.ok(), "one\n/tmp\n");
}

#[tokio::test]
async fn a_missing_emulator_is_named() {
    if !is_root() {
        return;
    }
    let empty = tempfile::tempdir().unwrap();
    let bench = Bench::with(|config| config.emulator_dirs = vec![empty.path().into()]).await;
    let mut step = bench.step("true");
    step.platform = Some(Arch::new("s390x", ""));
    let error = bench.run(step).await.result.unwrap_err();
    let Error::NoEmulator { wanted, emulator, available } = &error else { panic!("{error:?}") };
    assert_eq!((wanted.as_str(), emulator.as_str()), ("linux/s390x", "qemu-s390x-static"));
    assert!(available.starts_with(&emulation::native().to_string()), "{available}");
    assert!(error.hint().unwrap().contains("qemu-user-static"));
    let mut step = bench.step("true");
    step.platform = Some(Arch::new("vax", ""));
    assert!(bench.run(step).await.result.unwrap_err().to_string().contains("cannot run linux/vax"));
    let mut step = bench.step("true");
    step.platform = Some(emulation::native());
    bench.run(step).await.ok();
}

#[test]
fn platforms_in_order() {
    let platforms = emulation::supported_platforms(&emulation::default_dirs());
    let names: Vec<_> = platforms.iter().map(|p| p.arch.to_string()).collect();
    assert_eq!(names[0], emulation::native().to_string());
    eprintln!("{names:?}");
    if cfg!(target_arch = "x86_64") && names.contains(&"linux/arm64".to_owned()) {
        let at = |name: &str| names.iter().position(|n| n == name);
        assert!(at("linux/amd64") < at("linux/arm64"));
        assert!(at("linux/arm64") < at("linux/arm/v7") || at("linux/arm/v7").is_none());
    }
}
