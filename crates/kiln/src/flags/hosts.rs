//! `--add-host`.

use std::net::IpAddr;

use crate::error::{Error, Result};

/// Stands for the address by which a step reaches the builder's host.
const HOST_GATEWAY: &str = "host-gateway";

/// A name and one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The name.
    pub name: String,
    /// Where it leads.
    pub address: HostAddress,
}

/// Where a name leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// There.
    Ip(IpAddr),
    /// To the builder's host, whose address only the builder knows.
    Gateway,
}

/// Reads `NAME:IP`, `NAME=IP` and `NAME=IP,IP`.
pub fn hosts(values: &[String]) -> Result<Vec<Host>> {
    let mut found = Vec::new();
    for value in values {
        let wrong =
            || Error::user(format!("invalid host {value}")).hint("expected NAME:IP, such as db:10.0.0.7");
        let (name, addresses) = value.split_once('=').or_else(|| value.split_once(':')).ok_or_else(wrong)?;
        if name.is_empty() || addresses.is_empty() {
            return Err(wrong());
        }
        if addresses == HOST_GATEWAY {
            found.push(Host { name: name.to_owned(), address: HostAddress::Gateway });
            continue;
        }
        for text in addresses.split(',') {
            let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
            let ip = bare.parse().map_err(|_| wrong())?;
            found.push(Host { name: name.to_owned(), address: HostAddress::Ip(ip) });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_separators() {
        let values = ["a:10.0.0.1", "b=::1,[::2]", "c:::3", "d:host-gateway"].map(str::to_owned);
        let found: Vec<String> = hosts(&values)
            .unwrap()
            .iter()
            .map(|host| match &host.address {
                HostAddress::Ip(ip) => format!("{}={ip}", host.name),
                HostAddress::Gateway => format!("{}=?", host.name),
            })
            .collect();
        assert_eq!(found, ["a=10.0.0.1", "b=::1", "b=::2", "c=::3", "d=?"]);
        for wrong in ["a", ":1.2.3.4", "a:", "a:b", "a=1.2.3"] {
            assert!(hosts(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
