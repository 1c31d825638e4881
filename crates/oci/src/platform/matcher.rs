//! Which platforms a platform can run, best first.

use std::cmp::{Ordering, Reverse};

use super::{Platform, windows};

/// Decides whether a platform is wanted, and which of two is wanted more.
#[derive(Clone, Debug)]
pub struct PlatformMatcher {
    /// Normalised, best first.
    wanted: Vec<Platform>,
    ranked: bool,
}

impl PlatformMatcher {
    /// What `platform` can run: itself first, then what its processor runs too (`arm64` runs `arm/v8` and
    /// below, `amd64/v3` runs `v2`, `v1` and `386`).
    pub fn only(platform: &Platform) -> Self {
        Self { wanted: runnable(&platform.normalized()), ranked: true }
    }

    /// `platform` and nothing else.
    pub fn only_strict(platform: &Platform) -> Self {
        Self { wanted: vec![platform.normalized()], ranked: true }
    }

    /// These platforms and nothing else, earlier ones rather than later ones.
    pub fn ordered<'a>(platforms: impl IntoIterator<Item = &'a Platform>) -> Self {
        Self { wanted: platforms.into_iter().map(Platform::normalized).collect(), ranked: true }
    }

    /// These platforms and nothing else, none before another.
    pub fn any<'a>(platforms: impl IntoIterator<Item = &'a Platform>) -> Self {
        Self { ranked: false, ..Self::ordered(platforms) }
    }

    /// Whether `platform` is wanted.
    pub fn matches(&self, platform: &Platform) -> bool {
        self.rank(&platform.normalized()).is_some()
    }

    /// `Less` for what is wanted more, so that sorting puts the best first. A stable sort keeps the order
    /// of an index otherwise.
    pub fn compare(&self, a: &Platform, b: &Platform) -> Ordering {
        self.key(a).cmp(&self.key(b))
    }

    fn key(&self, platform: &Platform) -> (usize, Reverse<usize>) {
        let mut platform = platform.normalized();
        let features = platform.os_features.len();
        match self.rank(&platform) {
            Some(rank) => (rank, Reverse(features)),
            None => {
                // Better the right processor with a feature too many than anything else.
                platform.os_features.clear();
                let rank = self.rank(&platform).unwrap_or(self.wanted.len());
                (self.wanted.len() + 1 + rank, Reverse(0))
            }
        }
    }

    fn rank(&self, normalized: &Platform) -> Option<usize> {
        let rank = self.wanted.iter().position(|wanted| fits(wanted, normalized))?;
        Some(if self.ranked { rank } else { 0 })
    }
}

/// Whether what was asked for as `wanted` may be served by `offered`; both are normalised.
fn fits(wanted: &Platform, offered: &Platform) -> bool {
    let is_windows = wanted.os == "windows";
    wanted.os == offered.os
        && wanted.architecture == offered.architecture
        && wanted.variant == offered.variant
        && (!is_windows || windows::runs(&wanted.os_version, &offered.os_version))
        && offered
            .os_features
            .iter()
            .filter(|feature| !(is_windows && *feature == "win32k"))
            .all(|feature| wanted.os_features.contains(feature))
}

/// What the processor of `platform` runs, best first.
fn runnable(platform: &Platform) -> Vec<Platform> {
    let with = |architecture: &str, variant: String| {
        Platform { architecture: architecture.to_owned(), variant, ..platform.clone() }.normalized()
    };
    match platform.architecture.as_str() {
        "amd64" => {
            let mut all = vec![platform.clone()];
            all.extend((1..level(&platform.variant)).rev().map(|v| with("amd64", format!("v{v}"))));
            all.push(with("386", String::new()));
            all
        }
        "arm" => {
            let mut all = vec![platform.clone()];
            all.extend((5..level(&platform.variant)).rev().map(|v| with("arm", format!("v{v}"))));
            all
        }
        "arm64" => {
            let mut all: Vec<Platform> =
                arm64_variants(&platform.variant).into_iter().map(|variant| with("arm64", variant)).collect();
            let variant = match platform.variant.as_str() {
                "" => "v8",
                v if v.starts_with("v8") || v.starts_with("v9") => "v8",
                other => other,
            };
            all.extend(runnable(&with("arm", variant.to_owned())));
            all
        }
        _ => vec![platform.clone()],
    }
}

/// The number behind the `v` of a variant; 0 where there is none. Bounded: it drives a loop and comes from
/// outside.
fn level(variant: &str) -> u32 {
    const LEVEL_MAX: u32 = 16;
    variant.strip_prefix('v').unwrap_or(variant).parse().unwrap_or(0).min(LEVEL_MAX)
}

/// `v9.2` runs 9.2, 9.1, 9.0 and, since version 9.n contains 8.(n+5), also 8.7 down to 8.0.
fn arm64_variants(variant: &str) -> Vec<String> {
    let (major, minor) = match variant {
        "" | "v8" | "v8.0" => (8, 0),
        "v9" => (9, 0),
        other => {
            let parsed = other.strip_prefix('v').and_then(|v| v.split_once('.'));
            match parsed.map(|(major, minor)| (major.parse::<u32>(), minor.parse::<u32>())) {
                Some((Ok(8), Ok(minor @ 0..=9))) => (8, minor),
                Some((Ok(9), Ok(minor @ 0..=7))) => (9, minor),
                _ => return Vec::new(),
            }
        }
    };
    let versions = |major: u32, minor: u32| {
        (0..=minor).rev().map(move |m| if m == 0 { format!("v{major}") } else { format!("v{major}.{m}") })
    };
    if major == 9 {
        versions(9, minor).chain(versions(8, (minor + 5).min(9))).collect()
    } else {
        versions(8, minor).collect()
    }
}
