//! `/etc/resolv.conf` of steps, from the host's own and the daemon's settings.

use std::net::IpAddr;
use std::path::Path;

use crate::{Dns, NetMode};

const HOST_FILE: &str = "/etc/resolv.conf";
/// What systemd-resolved knows of real servers, while the host's file only names its stub.
const SYSTEMD_FILE: &str = "/run/systemd/resolve/resolv.conf";
const SYSTEMD_STUB: &str = "127.0.0.53";

/// Servers for steps whose host names none that they could reach: Google's, as BuildKit and Docker have it.
const FALLBACK: [&str; 4] = ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];

#[derive(Debug, Default, PartialEq, Eq)]
struct ResolvConf {
    nameservers: Vec<Nameserver>,
    search: Vec<String>,
    options: Vec<String>,
    /// Lines of other kinds, kept as they are.
    other: Vec<String>,
}

/// An address, with the zone that a link-local one may have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Nameserver {
    ip: IpAddr,
    zone: Option<String>,
}

impl From<IpAddr> for Nameserver {
    fn from(ip: IpAddr) -> Self {
        Self { ip, zone: None }
    }
}

impl std::fmt::Display for Nameserver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.zone {
            Some(zone) => write!(f, "{}%{zone}", self.ip),
            None => write!(f, "{}", self.ip),
        }
    }
}

/// Text of the file for a step.
pub fn text(dns: &Dns, network: NetMode) -> String {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let host = read(HOST_FILE);
    let mut conf = parse(&host);
    if network != NetMode::Host && conf.nameservers.iter().map(ToString::to_string).eq([SYSTEMD_STUB]) {
        conf = parse(&read(SYSTEMD_FILE));
    }
    render(adapt(conf, dns, network))
}

fn adapt(mut conf: ResolvConf, dns: &Dns, network: NetMode) -> ResolvConf {
    let overridden = !dns.nameservers.is_empty();
    if overridden {
        conf.nameservers = dns.nameservers.iter().copied().map(Nameserver::from).collect();
    }
    if !dns.search_domains.is_empty() {
        conf.search = dns.search_domains.iter().filter(|s| *s != ".").cloned().collect();
    }
    if !dns.options.is_empty() {
        conf.options = dns.options.clone();
    }
    // A loopback server of the host is out of reach in another network namespace.
    if !overridden && (network != NetMode::Host || conf.nameservers.is_empty()) {
        conf.nameservers.retain(|server| !server.ip.is_loopback());
        if conf.nameservers.is_empty() {
            let fallback = FALLBACK.iter().map(|ip| ip.parse::<IpAddr>().expect("a literal address"));
            conf.nameservers = fallback.map(Nameserver::from).collect();
        }
    }
    conf
}

fn parse(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            None => {}
            Some("nameserver") => conf.nameservers.extend(words.next().and_then(|ip| parse_ip(&ip))),
            // Of these only the last counts.
            Some("domain" | "search") => {
                let domains: Vec<_> = words.collect();
                if !domains.is_empty() {
                    conf.search = domains;
                }
            }
            Some("options") => conf.options.extend(words),
            Some(_) => conf.other.push(line.to_owned()),
        }
    }
    conf
}

fn parse_ip(text: &str) -> Option<Nameserver> {
    let (ip, zone) = match text.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone.to_owned())),
        None => (text, None),
    };
    Some(Nameserver { ip: ip.parse().ok()?, zone })
}

fn render(conf: ResolvConf) -> String {
    let mut text = String::new();
    for server in &conf.nameservers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !conf.search.is_empty() {
        text.push_str(&format!("search {}\n", conf.search.join(" ")));
    }
    if !conf.options.is_empty() {
        text.push_str(&format!("options {}\n", conf.options.join(" ")));
    }
    for line in &conf.other {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str =
        "# c\nnameserver 127.0.0.1\nnameserver 10.0.0.1\nsearch a\ndomain b c\noptions ndots:1\nsortlist x\n";

    fn made(dns: &Dns, network: NetMode, host: &str) -> String {
        render(adapt(parse(host), dns, network))
    }

    #[test]
    fn loopback_servers_go_unless_the_network_is_the_hosts() {
        let dns = Dns::default();
        let rest = "search b c\noptions ndots:1\nsortlist x\n";
        assert_eq!(made(&dns, NetMode::Sandbox, HOST), format!("nameserver 10.0.0.1\n{rest}"));
        assert_eq!(
            made(&dns, NetMode::Host, HOST),
            format!("nameserver 127.0.0.1\nnameserver 10.0.0.1\n{rest}")
        );
        assert!(
            made(&dns, NetMode::None, "nameserver ::1\n")
                .starts_with("nameserver 8.8.8.8\nnameserver 8.8.4.4\n")
        );
        assert!(made(&dns, NetMode::Host, "").contains("2001:4860:4860::8844"));
    }

    #[test]
    fn settings_win() {
        let dns = Dns {
            nameservers: vec!["127.0.0.9".parse().unwrap()],
            options: vec!["edns0".into()],
            search_domains: vec![".".into(), "x.org".into()],
        };
        assert_eq!(
            made(&dns, NetMode::Sandbox, HOST),
            "nameserver 127.0.0.9\nsearch x.org\noptions edns0\nsortlist x\n"
        );
    }
}
