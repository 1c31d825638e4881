//! What this kernel is.

use std::sync::LazyLock;

/// Major and minor version of the running kernel; (0, 0) when its release cannot be read.
pub fn version() -> (u32, u32) {
    static VERSION: LazyLock<(u32, u32)> =
        LazyLock::new(|| parse(&rustix::system::uname().release().to_string_lossy()).unwrap_or((0, 0)));
    *VERSION
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn releases() {
        assert_eq!(super::parse("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(super::parse("5.10-rc1"), Some((5, 10)));
        assert_eq!(super::parse("odd"), None);
    }
}
