//! `/etc/hosts` of steps.

use crate::HostIp;

pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// Text of the file. An empty hostname means the default one.
pub fn text(hostname: &str, extra: &[HostIp]) -> String {
    let hostname = if hostname.is_empty() { DEFAULT_HOSTNAME } else { hostname };
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for entry in extra {
        text.push_str(&format!("{}\t{}\n", entry.ip, entry.host));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_follow() {
        let extra = [HostIp { host: "myhost".into(), ip: "1.2.3.4".parse().unwrap() }];
        assert_eq!(
            text("", &extra),
            "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n1.2.3.4\tmyhost\n"
        );
        assert!(text("web", &[]).starts_with("127.0.0.1\tlocalhost web\n"));
    }
}
