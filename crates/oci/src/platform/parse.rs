//! Reading, writing and normalising platforms, with containerd's rules and texts.

use super::{Platform, host};

const SPECIFIER_PATTERN: &str = "^[A-Za-z0-9_.-]+$";
const OS_PATTERN: &str = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.%-]*)((?:\+[A-Za-z0-9_.%-]+)*)\))?$";

/// Why a text is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// It has a `*`.
    #[error("{0:?}: wildcards not yet supported: invalid argument")]
    Wildcard(String),
    /// The part before the first slash.
    #[error(
        "{part:?} is an invalid OS component of {whole:?}: OSAndVersion specifier component must match {OS_PATTERN:?}: invalid argument"
    )]
    Os {
        /// The part.
        part: String,
        /// The whole text.
        whole: String,
    },
    /// Another part.
    #[error(
        "{part:?} is an invalid component of {whole:?}: platform specifier component must match {SPECIFIER_PATTERN:?}: invalid argument"
    )]
    Component {
        /// The part.
        part: String,
        /// The whole text.
        whole: String,
    },
    /// A `%` escape that is none.
    #[error("{whole:?} has an invalid OS version or feature {part:?}")]
    Escape {
        /// The part.
        part: String,
        /// The whole text.
        whole: String,
    },
    /// One word that is neither system nor processor.
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    /// More than three parts.
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    TooManyParts(String),
}

pub(super) fn parse(text: &str) -> Result<Platform, PlatformError> {
    if text.contains('*') {
        return Err(PlatformError::Wildcard(text.to_owned()));
    }
    let parts: Vec<&str> = text.splitn(4, '/').collect();
    let mut platform = parse_os(parts[0], text)?;
    for part in &parts[1..] {
        if part.is_empty()
            || !part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        {
            return Err(PlatformError::Component { part: (*part).to_owned(), whole: text.to_owned() });
        }
    }
    match parts.as_slice() {
        [_] if is_known_os(&platform.os) => {
            platform.architecture = host::architecture().to_owned();
            let variant = host::variant();
            if platform.architecture == "arm" && variant != "v7" {
                platform.variant = variant;
            }
            Ok(platform)
        }
        [word] => {
            set_architecture(&mut platform, word);
            if !is_known_architecture(&platform.architecture) {
                return Err(PlatformError::Unknown(text.to_owned()));
            }
            platform.os = host::os().to_owned();
            Ok(platform)
        }
        [_, architecture] => {
            set_architecture(&mut platform, architecture);
            Ok(platform)
        }
        [_, architecture, variant] => {
            let (architecture, variant) = normalize_architecture(architecture, variant);
            platform.variant =
                if architecture == "arm64" && variant.is_empty() { "v8".to_owned() } else { variant };
            platform.architecture = architecture;
            Ok(platform)
        }
        _ => Err(PlatformError::TooManyParts(text.to_owned())),
    }
}

/// A processor that was named without its variant: the default one stays unsaid.
fn set_architecture(platform: &mut Platform, text: &str) {
    let (architecture, variant) = normalize_architecture(text, "");
    platform.variant = if architecture == "arm" && variant == "v7" { String::new() } else { variant };
    platform.architecture = architecture;
}

/// `os`, `os(version)` or `os(version+feature+feature)`.
fn parse_os(part: &str, whole: &str) -> Result<Platform, PlatformError> {
    let malformed = || PlatformError::Os { part: part.to_owned(), whole: whole.to_owned() };
    let (os, options) = match part.split_once('(') {
        Some((os, rest)) => (os, Some(rest.strip_suffix(')').ok_or_else(malformed)?)),
        None => (part, None),
    };
    if os.is_empty() || !os.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err(malformed());
    }
    let mut platform = Platform { os: normalize_os(os), ..Platform::default() };
    let Some(options) = options else { return Ok(platform) };
    let is_option = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'%' | b'-');
    for (i, option) in options.split('+').enumerate() {
        if !option.bytes().all(is_option) || (i > 0 && option.is_empty()) {
            return Err(malformed());
        }
        let decoded = unescape(option)
            .ok_or_else(|| PlatformError::Escape { part: option.to_owned(), whole: whole.to_owned() })?;
        if i == 0 {
            platform.os_version = decoded;
        } else if !decoded.is_empty() {
            platform.os_features.push(decoded);
        }
    }
    Ok(platform)
}

pub(super) fn format_all(platform: &Platform) -> String {
    if platform.os.is_empty() {
        return "unknown".to_owned();
    }
    let mut features: Vec<&str> =
        platform.os_features.iter().map(String::as_str).filter(|feature| !feature.is_empty()).collect();
    features.sort_unstable();
    features.dedup();
    if platform.os_version.is_empty() && features.is_empty() {
        return platform.short();
    }
    let mut os = format!("{}({}", platform.os, escape(&platform.os_version));
    for feature in features {
        os.push('+');
        os.push_str(&escape(feature));
    }
    os.push(')');
    join([os.as_str(), &platform.architecture, &platform.variant])
}

/// The parts that are there, with slashes between.
pub(super) fn join(parts: [&str; 3]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' | '+' | '(' | ')' | '/' => out.push_str(&format!("%{:02X}", c as u32)),
            _ => out.push(c),
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            out.extend(hex::decode(tail.get(..2)?).ok()?);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

pub(super) fn normalize_os(os: &str) -> String {
    if os.is_empty() {
        return host::os().to_owned();
    }
    match os.to_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

pub(super) fn normalize_architecture(architecture: &str, variant: &str) -> (String, String) {
    let architecture = architecture.to_lowercase();
    let variant = variant.to_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

#[rustfmt::skip]
fn is_known_os(os: &str) -> bool {
    matches!(
        os,
        "aix" | "android" | "darwin" | "dragonfly" | "freebsd" | "hurd" | "illumos" | "ios" | "js" | "linux"
            | "nacl" | "netbsd" | "openbsd" | "plan9" | "solaris" | "windows" | "zos"
    )
}

#[rustfmt::skip]
fn is_known_architecture(architecture: &str) -> bool {
    matches!(
        architecture,
        "386" | "amd64" | "amd64p32" | "arm" | "armbe" | "arm64" | "arm64be" | "ppc64" | "ppc64le" | "loong64"
            | "mips" | "mipsle" | "mips64" | "mips64le" | "mips64p32" | "mips64p32le" | "ppc" | "riscv" | "riscv64"
            | "s390" | "s390x" | "sparc" | "sparc64" | "wasm"
    )
}
