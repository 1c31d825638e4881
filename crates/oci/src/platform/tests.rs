use proptest::prelude::*;

use super::host::arm_variant;
use super::*;

fn parse(text: &str) -> Platform {
    Platform::parse(text).unwrap()
}

#[test]
fn reads_and_writes() {
    for (text, written, normal) in [
        ("linux/amd64", "linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64", "linux/amd64"),
        ("Linux/aarch64", "linux/arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/v9.0", "linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/7", "linux/arm/v7", "linux/arm/v7"),
        ("linux/i386", "linux/386", "linux/386"),
        ("linux/amd64/v1", "linux/amd64", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3", "linux/amd64/v3"),
        ("macos/arm64", "darwin/arm64", "darwin/arm64"),
        ("linux/unheard-of", "linux/unheard-of", "linux/unheard-of"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ("windows(10.0+b+a)/amd64", "windows(10.0+a+b)/amd64", "windows(10.0+a+b)/amd64"),
        ("windows(+win32k)/amd64", "windows(+win32k)/amd64", "windows(+win32k)/amd64"),
        ("linux(a%2Fb)/amd64", "linux(a%2Fb)/amd64", "linux(a%2Fb)/amd64"),
    ] {
        assert_eq!(parse(text).to_string(), written, "{text}");
        assert_eq!(parse(text).normalized().to_string(), normal, "{text}");
    }
    assert_eq!(parse("linux").architecture, default_for_host().architecture);
    assert_eq!(parse("arm64").os, default_for_host().os);
    assert_eq!(Platform::default().to_string(), "unknown");
    assert_eq!(parse("windows(10.0.1)/amd64").short(), "windows/amd64");
}

#[test]
fn refuses() {
    for (text, message) in [
        ("linux/*", r#""linux/*": wildcards not yet supported: invalid argument"#),
        ("foo", r#""foo": unknown operating system or architecture: invalid argument"#),
        ("linux/a/b/c", r#""linux/a/b/c": cannot parse platform specifier: invalid argument"#),
    ] {
        assert_eq!(Platform::parse(text).unwrap_err().to_string(), message);
    }
    for text in [
        "",
        "/",
        "linux/",
        "linux//v8",
        "li nux/amd64",
        "linux(/amd64",
        "linux(1+)/amd64",
        "linux(%zz)/amd64",
    ] {
        assert!(Platform::parse(text).is_err(), "{text}");
    }
}

#[test]
fn json_is_go_s() {
    let platform = parse("windows(10.0.1+x)/arm/v6");
    let text = serde_json::to_string(&platform).unwrap();
    assert_eq!(
        text,
        r#"{"architecture":"arm","os":"windows","os.version":"10.0.1","os.features":["x"],"variant":"v6"}"#
    );
    assert_eq!(serde_json::from_str::<Platform>(&text).unwrap(), platform);
}

/// Sorts the offers with the matcher of `wanted` and keeps those that match.
fn pick(wanted: &str, offers: &[&str]) -> Vec<String> {
    let matcher = PlatformMatcher::only(&parse(wanted));
    let mut found: Vec<Platform> = offers.iter().map(|o| parse(o)).filter(|p| matcher.matches(p)).collect();
    found.sort_by(|a, b| matcher.compare(a, b));
    found.iter().map(Platform::to_string).collect()
}

#[test]
fn picks_the_best() {
    let arm = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm64", "linux/arm/v8", "linux/amd64"];
    assert_eq!(
        pick("linux/arm64", &arm),
        ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]
    );
    assert_eq!(pick("linux/arm/v6", &arm), ["linux/arm/v6", "linux/arm/v5"]);
    assert_eq!(
        pick("linux/arm64/v9.1", &["linux/arm64", "linux/arm64/v8.6", "linux/arm64/v8.7"]),
        ["linux/arm64/v8.6", "linux/arm64"]
    );
    let amd = ["linux/386", "linux/amd64/v2", "linux/amd64", "linux/amd64/v4"];
    assert_eq!(pick("linux/amd64", &amd), ["linux/amd64", "linux/386"]);
    assert_eq!(pick("linux/amd64/v3", &amd), ["linux/amd64/v2", "linux/amd64", "linux/386"]);
    assert_eq!(pick("windows/amd64", &["linux/amd64"]), Vec::<String>::new());
    assert_eq!(
        pick("windows(10.0.20348)/amd64", &["windows(10.0.17763)/amd64", "windows(10.0.20348.1)/amd64"]),
        ["windows(10.0.20348.1)/amd64"]
    );
    assert!(!PlatformMatcher::only_strict(&parse("linux/arm64")).matches(&parse("linux/arm/v7")));
    let any = PlatformMatcher::any(&[parse("linux/arm64"), parse("linux/amd64")]);
    assert_eq!(any.compare(&parse("linux/amd64"), &parse("linux/arm64")), std::cmp::Ordering::Equal);
}

#[test]
fn knows_arm_hosts() {
    assert_eq!(arm_variant("CPU architecture: 8\n"), "v8");
    assert_eq!(arm_variant("model name : ARMv6-compatible processor\nCPU architecture: 7\n"), "v6");
    assert_eq!(arm_variant(""), "v7");
}

proptest! {
    #[test]
    fn round_trips(text in r"\PC{0,30}|[a-z]{1,5}(\([0-9.]{0,4}(\+[a-z%]{1,3})?\))?/[a-z0-9]{1,5}(/v?[0-9.]{1,3})?") {
        if let Ok(platform) = Platform::parse(&text) {
            prop_assert_eq!(parse(&platform.to_string()).normalized(), platform.normalized());
            prop_assert_eq!(platform.normalized().normalized(), platform.normalized());
            prop_assert!(PlatformMatcher::only(&platform).matches(&platform) || platform.architecture == "arm64");
        }
    }
}
