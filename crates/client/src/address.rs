//! Where a daemon is: `unix://`, `tcp://`, or behind a program whose standard input and output lead to it.

use std::fmt;
use std::path::PathBuf;

/// Where a daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `unix:///path/to/socket`.
    Unix(PathBuf),
    /// `tcp://host:port`.
    Tcp { host: String, port: u16 },
    /// A program that carries the connection over its standard input and output.
    Command { program: String, arguments: Vec<String>, shown: String },
}

/// Why a text is no address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is no builder address: expected unix://PATH, tcp://HOST:PORT, ssh://[USER@]HOST[:PORT], docker-container://NAME or kube-pod://NAME"
)]
pub struct ParseError(String);

impl Address {
    /// Reads an address as `BUILDKIT_HOST` has it.
    ///
    /// # Errors
    /// When the scheme is unknown or a part is missing.
    pub fn parse(text: &str) -> Result<Address, ParseError> {
        let wrong = || ParseError(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        if rest.is_empty() || rest.starts_with('-') {
            return Err(wrong());
        }
        match scheme {
            "unix" => Ok(Address::Unix(PathBuf::from(rest))),
            "tcp" => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let port = port.parse().map_err(|_| wrong())?;
                if host.is_empty() { Err(wrong()) } else { Ok(Address::Tcp { host, port }) }
            }
            "ssh" => Ok(ssh(rest, text)),
            "docker-container" => {
                let (name, context) = split_query(rest, "context");
                let mut arguments: Vec<String> =
                    context.into_iter().flat_map(|context| ["--context".to_owned(), context]).collect();
                arguments.extend(["exec", "-i", name, "buildctl", "dial-stdio"].map(str::to_owned));
                Ok(Address::Command { program: "docker".to_owned(), arguments, shown: text.to_owned() })
            }
            "kube-pod" => {
                let (name, namespace) = split_query(rest, "namespace");
                let mut arguments: Vec<String> =
                    namespace.into_iter().flat_map(|name| ["--namespace".to_owned(), name]).collect();
                arguments.extend(["exec", "-i", name, "--", "buildctl", "dial-stdio"].map(str::to_owned));
                Ok(Address::Command { program: "kubectl".to_owned(), arguments, shown: text.to_owned() })
            }
            _ => Err(wrong()),
        }
    }
}

fn ssh(rest: &str, text: &str) -> Address {
    let (place, socket) = match rest.split_once('/') {
        Some((place, socket)) => (place, Some(format!("/{socket}"))),
        None => (rest, None),
    };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, Some(port)),
        _ => (place, None),
    };
    let mut arguments: Vec<String> =
        port.into_iter().flat_map(|port| ["-p".to_owned(), port.to_owned()]).collect();
    arguments.extend(["--".to_owned(), host.to_owned(), "buildctl".to_owned()]);
    if let Some(socket) = socket {
        arguments.extend(["--addr".to_owned(), format!("unix://{socket}")]);
    }
    arguments.push("dial-stdio".to_owned());
    Address::Command { program: "ssh".to_owned(), arguments, shown: text.to_owned() }
}

/// `NAME?key=value&…` → the name, and the value of one key.
fn split_query<'a>(text: &'a str, key: &str) -> (&'a str, Option<String>) {
    let Some((name, query)) = text.split_once('?') else { return (text, None) };
    let value = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key);
    (name, value.map(|(_, value)| value.to_owned()))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Address::Command { shown, .. } => f.write_str(shown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(Address::parse("unix:///run/b.sock"), Ok(Address::Unix("/run/b.sock".into())));
        assert_eq!(Address::parse("tcp://[::1]:1234"), Ok(Address::Tcp { host: "::1".into(), port: 1234 }));
        assert_eq!(Address::parse("tcp://[::1]:1234").unwrap().to_string(), "tcp://[::1]:1234");
        let Ok(Address::Command { program, arguments, .. }) = Address::parse("ssh://me@host:22/run/b.sock")
        else {
            panic!("an ssh address is a command")
        };
        assert_eq!(program, "ssh");
        assert_eq!(
            arguments,
            ["-p", "22", "--", "me@host", "buildctl", "--addr", "unix:///run/b.sock", "dial-stdio"]
        );
        let Ok(Address::Command { arguments, .. }) = Address::parse("docker-container://b?context=x") else {
            panic!("a container address is a command")
        };
        assert_eq!(arguments, ["--context", "x", "exec", "-i", "b", "buildctl", "dial-stdio"]);
        for wrong in
            ["", "b.sock", "tcp://host", "tcp://:1", "npipe://x", "ssh://-oProxyCommand=x", "unix://"]
        {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
