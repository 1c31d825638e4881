//! `EXPOSE`: `port[/protocol]`, ranges of them, and for old times' sake addresses and host ports.

use super::Converter;
use super::dispatch::Current;
use super::error::ConvertError;
use super::history::{Layer, commit};
use crate::error::Error;
use crate::limits::EXPOSE_PORTS_MAX;
use crate::lint::Rule;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// A port specification in its parts; those that are not there are empty.
struct Parts<'a> {
    ip: String,
    host: &'a str,
    container: &'a str,
    protocol: &'a str,
}

impl Converter<'_> {
    pub(super) fn expose(&mut self, current: Current<'_>, written: &[String]) -> Result<(), Error> {
        let state = self.stages[current.id].state.clone();
        let mut words = Vec::new();
        for word in written {
            words.extend(self.lexer.split(word, &state.settings().env)?);
        }
        let mut ports = Vec::new();
        for word in &words {
            let parts = split(word)?;
            report(current, word, &parts);
            let protocol = parts.protocol.to_lowercase();
            let range = range(&parts)?;
            let stage = &mut self.stages[current.id];
            stage.port_count += (range.end() - range.start()) as usize + 1;
            if stage.port_count > EXPOSE_PORTS_MAX {
                return Err(ConvertError::Ports.into());
            }
            ports.extend(range.map(|number| format!("{number}/{protocol}")));
        }
        let image = &mut self.stages[current.id].image;
        image.config.exposed_ports.extend(ports.iter().map(|port| (port.clone(), kiln_oci::Empty {})));
        commit(image, &format!("EXPOSE [{}]", ports.join(" ")), Layer::None, self.epoch);
        Ok(())
    }
}

fn report(current: Current<'_>, port: &str, parts: &Parts<'_>) {
    let location = &current.command.command.location;
    if parts.protocol != parts.protocol.to_lowercase() {
        let detail = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
        current.lint.report(Rule::ExposeProtoCasing, location, detail);
    }
    if !parts.ip.is_empty() || !parts.host.is_empty() {
        let detail = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
        );
        current.lint.report(Rule::ExposeInvalidFormat, location, detail);
    }
}

fn split(port: &str) -> Result<Parts<'_>, ConvertError> {
    let mut parts = port.rsplitn(3, ':');
    let last = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let ip = parts.next().unwrap_or_default().to_owned();
    let (container, protocol) = last.split_once('/').unwrap_or((last, ""));
    let invalid = |reason: String| ConvertError::Port { port: port.to_owned(), reason };
    if container.is_empty() {
        return Err(invalid("no port specified".to_owned()));
    }
    let protocol = match protocol.to_lowercase().as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => protocol,
        _ => return Err(invalid(format!("invalid proto: {protocol}"))),
    };
    Ok(Parts { ip, host, container, protocol })
}

/// The ports in the container.
fn range(parts: &Parts<'_>) -> Result<RangeInclusive<u32>, ConvertError> {
    check_ip(&parts.ip)?;
    let container =
        port_range(parts.container).ok_or_else(|| ConvertError::ContainerPort(parts.container.to_owned()))?;
    if !parts.host.is_empty() {
        let host = port_range(parts.host).ok_or_else(|| ConvertError::HostPort(parts.host.to_owned()))?;
        let length = |range: &RangeInclusive<u32>| range.end() - range.start();
        // A single port may be mapped to any of a range.
        if length(&container) != length(&host) && length(&container) != 0 {
            let (container, host) = (parts.container.to_owned(), parts.host.to_owned());
            return Err(ConvertError::PortRanges { container, host });
        }
    }
    Ok(container)
}

fn check_ip(written: &str) -> Result<(), ConvertError> {
    let ip = match written.strip_prefix('[') {
        Some(rest) => {
            rest.strip_suffix(']').ok_or_else(|| ConvertError::PortBracketIp(written.to_owned()))?
        }
        None => written,
    };
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        return Err(ConvertError::PortIp(ip.to_owned()));
    }
    Ok(())
}

fn port_range(text: &str) -> Option<RangeInclusive<u32>> {
    let number = |word: &str| word.parse::<u32>().ok().filter(|port| *port <= u32::from(u16::MAX));
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (number(start)?, number(end)?);
    (start <= end).then_some(start..=end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(port: &str) -> Result<RangeInclusive<u32>, String> {
        split(port).and_then(|parts| range(&parts)).map_err(|error| error.to_string())
    }

    #[test]
    fn specifications() {
        assert_eq!(ports("80"), Ok(80..=80));
        assert_eq!(ports("8000-8002/UDP"), Ok(8000..=8002));
        assert_eq!(ports("127.0.0.1:80:90"), Ok(90..=90));
        assert_eq!(ports("[::1]:80:90"), Ok(90..=90));
        assert_eq!(ports("::1:80:90"), Ok(90..=90));
        assert_eq!(ports("8000-8010:80"), Ok(80..=80));
        assert_eq!(split("80").unwrap().protocol, "tcp");
    }

    #[test]
    fn mistakes() {
        for (port, text) in [
            ("", "invalid port: \"\": no port specified"),
            ("80/foo", "invalid port: \"80/foo\": invalid proto: foo"),
            ("x", "invalid containerPort: x"),
            ("65536", "invalid containerPort: 65536"),
            ("9-8", "invalid containerPort: 9-8"),
            ("x:80", "invalid hostPort: x"),
            ("a.b:80:80", "invalid IP address: a.b"),
            ("1-2:1-3", "invalid ranges specified for container and host Ports: 1-3 and 1-2"),
        ] {
            assert_eq!(ports(port), Err(text.to_owned()));
        }
    }
}
