//! Names that nobody else draws.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Context as _, Result};

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// As long as the names that BuildKit's own clients give their builds.
const BUILD_ID_DIGITS: usize = 25;

/// A name for a build.
pub fn build_id() -> Result<String> {
    let mut bytes = [0u8; BUILD_ID_DIGITS];
    fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(DIGITS[usize::from(*byte) % DIGITS.len()])).collect())
}

/// So many random bytes in hexadecimal digits.
pub fn hex(bytes: usize) -> Result<String> {
    let mut random = vec![0u8; bytes];
    fill(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty()).when("draw random numbers")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        let (a, b) = (build_id().unwrap(), build_id().unwrap());
        assert_eq!(a.len(), 25);
        assert_ne!(a, b);
        assert!(a.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        assert_eq!(hex(8).unwrap().len(), 16);
    }
}
