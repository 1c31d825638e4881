//! Names that nobody else draws.

use ring::rand::{SecureRandom, SystemRandom};

/// Random bytes of a name.
const BYTES: usize = 16;
/// Characters of a name.
pub(crate) const NAME_DIGITS: usize = 2 * BYTES;

/// A name, in hexadecimal digits; none: this machine has no random numbers to give.
pub(crate) fn name() -> Option<String> {
    let mut random = [0; BYTES];
    SystemRandom::new().fill(&mut random).ok()?;
    Some(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
