//! Which Windows images a Windows host of some version can run.

/// Builds from which on a host also runs images of the long-term release before its own.
const LTSC_2022: u16 = 20348;
const LTSC_2025: u16 = 26100;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    major: u8,
    minor: u8,
    build: u16,
}

fn version(text: &str) -> Option<Version> {
    let mut parts = text.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    let build = parts.next()?.parse().ok()?;
    Some(Version { major, minor, build })
}

/// Whether a host of version `host` runs an image of version `image`. What is not said always fits.
pub(super) fn runs(host: &str, image: &str) -> bool {
    let Some(host) = version(host) else { return true };
    if image.is_empty() {
        return true;
    }
    let Some(image) = version(image) else { return false };
    if (host.major, host.minor) != (image.major, image.minor) {
        return false;
    }
    if host.build < LTSC_2022 {
        return host.build == image.build;
    }
    let oldest = if host.build > LTSC_2025 { LTSC_2025 } else { LTSC_2022 };
    (oldest..=host.build).contains(&image.build)
}
