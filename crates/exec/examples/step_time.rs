//! Times a step of `true`, from the call to its return, for each runtime that is given: `step_time ROOTFS [crun|runc PATH]…`.
//! With `bind` for ROOTFS's first letters, as in `bind:/rootfs`, the root is no overlay.

use std::time::Instant;

use kiln_exec::*;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 200;

fn main() {
    reexec::dispatch();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let mut args = std::env::args().skip(1);
    let root = args.next().expect("a root file system with /bin/true");
    let (root, bind) = root.strip_prefix("bind:").map_or((root.as_str(), false), |root| (root, true));
    let root = std::path::PathBuf::from(root);
    let mut runtimes = vec![("embedded".to_owned(), Runtime::Embedded)];
    while let Some(name) = args.next() {
        let path = args.next().expect("a path").into();
        let runtime = if name == "crun" { Runtime::Crun(path) } else { Runtime::Runc(path) };
        runtimes.push((name, runtime));
    }
    for (name, runtime) in runtimes {
        for network in [NetMode::Host, NetMode::None] {
            let dir = tempfile::tempdir().expect("a directory");
            let mut config = ExecutorConfig::new(dir.path().join("state"));
            config.runtime = runtime.clone();
            let executor = Executor::new(config).await.expect("an executor");
            let mut times = Vec::new();
            for i in 0..ROUNDS {
                let (upper, work) = (dir.path().join(format!("u{i}")), dir.path().join(format!("w{i}")));
                std::fs::create_dir(&upper).expect("a directory");
                std::fs::create_dir(&work).expect("a directory");
                let overlay = OverlayMount {
                    lower: vec![root.clone()],
                    upper: Some(OverlayUpper { upper, work }),
                    userxattr: false,
                    volatile: true,
                };
                let step = Step {
                    id: String::new(),
                    process: Process {
                        args: vec!["/bin/true".into()],
                        env: vec!["PATH=/bin".into()],
                        ..Process::default()
                    },
                    hostname: String::new(),
                    rootfs: RootMount {
                        source: if bind {
                            MountSource::Bind(BindMount { path: root.clone(), recursive: false })
                        } else {
                            MountSource::Overlay(overlay)
                        },
                        readonly: false,
                    },
                    mounts: Vec::new(),
                    network,
                    security: SecurityMode::Sandbox,
                    extra_hosts: Vec::new(),
                    ulimits: Vec::new(),
                    shm_size_bytes: 0,
                    cgroup_parent: String::new(),
                    resources: Resources::default(),
                    valid_exit_codes: Vec::new(),
                    platform: None,
                    remove_mount_stubs_recursive: true,
                };
                let stdio = Stdio {
                    stdout: Some(Box::new(tokio::io::sink())),
                    stderr: Some(Box::new(tokio::io::sink())),
                    ..Stdio::default()
                };
                let begin = Instant::now();
                executor.run(step, stdio, None, CancellationToken::new()).await.expect("a step");
                times.push(begin.elapsed().as_secs_f64() * 1e3);
            }
            times.sort_by(f64::total_cmp);
            let at = |share: f64| times[(ROUNDS as f64 * share) as usize];
            println!(
                "{name:9} {:13} median {:6.2} ms   10% {:6.2}   90% {:6.2}",
                format!("network {network:?}"),
                at(0.5),
                at(0.1),
                at(0.9)
            );
        }
    }
}
