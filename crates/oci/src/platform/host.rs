//! Which platform this program runs on.

use std::sync::OnceLock;

use super::Platform;

/// The operating system in Go's name.
pub(super) fn os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    }
}

/// The processor in Go's name.
pub(super) fn architecture() -> &'static str {
    let little = cfg!(target_endian = "little");
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if little => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        "mips64" if little => "mips64le",
        "mips" if little => "mipsle",
        other => other,
    }
}

/// The variant of an ARM processor; empty on all others.
pub(super) fn variant() -> String {
    static VARIANT: OnceLock<String> = OnceLock::new();
    VARIANT
        .get_or_init(|| match architecture() {
            "arm64" => "v8".to_owned(),
            "arm" => {
                let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
                arm_variant(&cpuinfo).to_owned()
            }
            _ => String::new(),
        })
        .clone()
}

/// The variant that the kernel's description of the first core tells.
pub(super) fn arm_variant(cpuinfo: &str) -> &'static str {
    let field = |name: &str| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_lowercase())
        })
    };
    match field("Cpu architecture").as_deref() {
        // The first Raspberry Pi says 7 and is 6.
        Some("7") if field("model name").is_some_and(|name| name.starts_with("armv6-compatible")) => "v6",
        Some("8" | "aarch64") => "v8",
        Some("6" | "6tej") => "v6",
        Some("5" | "5t" | "5te" | "5tej") => "v5",
        _ => "v7",
    }
}

/// The platform of this host, normalised.
pub fn default_for_host() -> Platform {
    Platform {
        os: os().to_owned(),
        architecture: architecture().to_owned(),
        variant: variant(),
        ..Platform::default()
    }
    .normalized()
}

/// The x86-64 microarchitecture level (1 to 4) of this host's processor; 0 where it is another.
pub fn amd64_level() -> u8 {
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! has {
            ($($feature:tt),*) => { $(std::is_x86_feature_detected!($feature))&&* };
        }
        let v2 = has!("cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3");
        let v3 = v2 && has!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
        let v4 = v3 && has!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
        1 + u8::from(v2) + u8::from(v3) + u8::from(v4)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        0
    }
}
