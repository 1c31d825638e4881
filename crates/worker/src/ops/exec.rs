//! Runs a command.

use std::net::IpAddr;

use kiln_exec::{Arch, HostIp, NetMode, Process, Resources, SecurityMode, Stdio, Step, Ulimit};
use kiln_llb::{ExecOp, LinuxResources, ProxyEnv, SecretEnv};
use kiln_session::daemon::SessionGroup;
use kiln_solver::OpContext;
use kiln_store::Ref;

use super::mounts::Request;
use crate::Worker;
use crate::context::sessions_of;
use crate::error::{Error, Result};
use crate::op::VertexOp;
use crate::steplog::StepLog;

/// What programs are looked for in when a step does not say.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub async fn execute(
    vertex: &VertexOp,
    op: &ExecOp,
    inputs: &[Ref],
    cx: &OpContext<VertexOp>,
) -> Result<Vec<Ref>> {
    let worker = vertex.worker();
    let sessions = sessions_of(cx);
    let command = op.meta.args.join(" ");
    let request =
        Request { mounts: &op.mounts, inputs, cwd: &op.meta.cwd, sessions: &sessions, origin: &command };
    let prepared = cx.cancellable(worker.prepare_mounts(&request)).await.map_err(|_| Error::Cancelled)??;
    let mut env = op.meta.env.clone();
    if let Some(proxy) = &op.meta.proxy_env {
        env.extend(proxy_variables(proxy));
    }
    add_default(&mut env, "PATH", DEFAULT_PATH);
    let secrets = worker.secret_variables(&op.secret_env, &sessions);
    env.extend(cx.cancellable(secrets).await.map_err(|_| Error::Cancelled)??);
    let platform = vertex.platform();
    let step = Step {
        id: String::new(),
        process: Process {
            args: op.meta.args.clone(),
            env,
            cwd: op.meta.cwd.clone(),
            user: op.meta.user.clone(),
            tty: false,
        },
        hostname: op.meta.hostname.clone(),
        rootfs: prepared.root.clone(),
        mounts: prepared.mounts.clone(),
        network: net_mode(op.network),
        security: security_mode(op.security),
        extra_hosts: extra_hosts(
            op.meta.extra_hosts.iter().map(|host| (host.host.as_str(), host.ip.as_str())),
        )?,
        ulimits: op
            .meta
            .ulimits
            .iter()
            .map(|limit| Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
            .collect(),
        shm_size_bytes: 0,
        cgroup_parent: op.meta.cgroup_parent.clone(),
        resources: resources(vertex.vertex().metadata.linux_resources.as_deref()),
        valid_exit_codes: op.meta.valid_exit_codes.clone(),
        platform: Some(Arch::new(&*platform.architecture, &*platform.variant)),
        remove_mount_stubs_recursive: op.meta.remove_mount_stubs_recursive,
    };
    let log = |stream| StepLog::new(cx.progress(), stream, worker.settings().step_log);
    let (stdout, stderr) = (log(1), log(2));
    let stdio = Stdio {
        stdin: None,
        stdout: Some(Box::new(stdout.clone())),
        stderr: Some(Box::new(stderr.clone())),
        control: None,
    };
    match worker.executor().run(step, stdio, None, cx.cancelled().clone()).await {
        Ok(_) => prepared.commit(worker, op.output_count()).await,
        Err(source) => {
            stdout.show_tail();
            stderr.show_tail();
            Err(Error::Process { command, source })
        }
    }
}

impl Worker {
    /// Secrets as variables. They reach the process's environment and nothing else.
    pub(crate) async fn secret_variables(
        &self,
        secrets: &[SecretEnv],
        sessions: &SessionGroup,
    ) -> Result<Vec<String>> {
        let mut variables = Vec::with_capacity(secrets.len());
        for secret in secrets {
            if secret.id.is_empty() {
                let name = crate::error::quoted(&secret.name);
                return Err(Error::Text(format!("secret ID missing for {name} environment variable")));
            }
            let value = self.secret(&secret.id, secret.optional, sessions).await?;
            let value = value.as_ref().map_or(&b""[..], |secret| secret.reveal());
            variables.push(format!("{}={}", secret.name, String::from_utf8_lossy(value)));
        }
        Ok(variables)
    }
}

fn proxy_variables(proxy: &ProxyEnv) -> Vec<String> {
    [
        ("HTTP_PROXY", &proxy.http_proxy),
        ("HTTPS_PROXY", &proxy.https_proxy),
        ("FTP_PROXY", &proxy.ftp_proxy),
        ("NO_PROXY", &proxy.no_proxy),
        ("ALL_PROXY", &proxy.all_proxy),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .flat_map(|(name, value)| [format!("{name}={value}"), format!("{}={value}", name.to_lowercase())])
    .collect()
}

pub(crate) fn add_default(env: &mut Vec<String>, name: &str, value: &str) {
    let given = |variable: &String| variable.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
    if !env.iter().any(given) {
        env.push(format!("{name}={value}"));
    }
}

pub(crate) fn net_mode(mode: kiln_llb::NetMode) -> NetMode {
    match mode {
        kiln_llb::NetMode::Sandbox => NetMode::Sandbox,
        kiln_llb::NetMode::Host => NetMode::Host,
        kiln_llb::NetMode::None => NetMode::None,
    }
}

pub(crate) fn security_mode(mode: kiln_llb::SecurityMode) -> SecurityMode {
    match mode {
        kiln_llb::SecurityMode::Sandbox => SecurityMode::Sandbox,
        kiln_llb::SecurityMode::Insecure => SecurityMode::Insecure,
    }
}

/// Lines of `/etc/hosts`, as names with addresses.
pub(crate) fn extra_hosts<'a>(hosts: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Vec<HostIp>> {
    hosts
        .map(|(host, ip)| match ip.parse::<IpAddr>() {
            Ok(ip) => Ok(HostIp { host: host.to_owned(), ip }),
            Err(_) => Err(Error::Text(format!("failed to parse IP {ip}"))),
        })
        .collect()
}

fn resources(limits: Option<&LinuxResources>) -> Resources {
    limits.map_or_else(Resources::default, |limits| Resources {
        memory_bytes: limits.memory,
        memory_swap_bytes: limits.memory_swap,
        cpu_shares: limits.cpu_shares,
        cpu_period_us: limits.cpu_period,
        cpu_quota_us: limits.cpu_quota,
        cpuset_cpus: limits.cpuset_cpus.clone(),
        cpuset_mems: limits.cpuset_mems.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_do_not_replace() {
        let mut env = vec!["PATHS=x".to_owned()];
        add_default(&mut env, "PATH", "/bin");
        add_default(&mut env, "PATH", "/other");
        assert_eq!(env, ["PATHS=x", "PATH=/bin"]);
    }

    #[test]
    fn proxies_come_in_both_cases() {
        let proxy = ProxyEnv { no_proxy: "a".into(), ..ProxyEnv::default() };
        assert_eq!(proxy_variables(&proxy), ["NO_PROXY=a", "no_proxy=a"]);
    }

    #[test]
    fn addresses_are_addresses() {
        assert!(extra_hosts([("h", "::1"), ("i", "1.2.3.4")].into_iter()).is_ok());
        let error = extra_hosts([("h", "x")].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "failed to parse IP x");
    }
}
