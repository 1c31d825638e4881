//! The embedded runtime's helper for tests and for programs whose own `main` cannot be it. By hand it runs one step, as
//! root or in a user namespace of its own: `kiln-exec-helper run STATE ROOTFS ARCH USER PROGRAM [ARG]…`, where ARCH and
//! USER may be empty.

use kiln_exec::{
    Arch, BindMount, Error, Executor, ExecutorConfig, MountSource, NetMode, Process, Resources, RootMount,
    SecurityMode, Stdio, Step, userns,
};

fn main() {
    kiln_exec::reexec::dispatch();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [command, state, root, arch, user, program @ ..] = &args[..] else { usage() };
    if command != "run" || program.is_empty() {
        usage();
    }
    let entered = userns::enter().unwrap_or_else(|error| fail(&error));
    let mut config = ExecutorConfig::new(state);
    if let userns::Entered::Rootless(mapping) = entered {
        config.rootless = Some(mapping);
    }
    let step = Step {
        id: String::new(),
        process: Process {
            args: program.to_vec(),
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            user: user.clone(),
            ..Process::default()
        },
        hostname: String::new(),
        rootfs: RootMount {
            source: MountSource::Bind(BindMount { path: root.into(), recursive: false }),
            readonly: false,
        },
        mounts: Vec::new(),
        network: NetMode::Sandbox,
        security: SecurityMode::Sandbox,
        extra_hosts: Vec::new(),
        ulimits: Vec::new(),
        shm_size_bytes: 0,
        cgroup_parent: String::new(),
        resources: Resources::default(),
        valid_exit_codes: Vec::new(),
        platform: (!arch.is_empty()).then(|| Arch::new(arch.as_str(), "")),
        remove_mount_stubs_recursive: true,
    };
    let stdio = Stdio {
        stdout: Some(Box::new(tokio::io::stdout())),
        stderr: Some(Box::new(tokio::io::stderr())),
        ..Stdio::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.unwrap_or_else(|source| fail(&Error::Io { what: "start the async runtime", source }));
    let result = runtime.block_on(async {
        let executor = Executor::new(config).await?;
        executor.run(step, stdio, None, Default::default()).await
    });
    match result {
        Ok(status) => std::process::exit(status.code as i32),
        Err(Error::Exit { code }) => std::process::exit(code as i32),
        Err(error) => fail(&error),
    }
}

fn usage() -> ! {
    eprintln!("kiln-exec-helper run STATE ROOTFS ARCH USER PROGRAM [ARG]...");
    std::process::exit(2)
}

fn fail(error: &Error) -> ! {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    eprintln!("kiln-exec-helper: {text}");
    std::process::exit(125)
}
