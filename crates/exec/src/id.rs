//! Fresh names.

/// 25 random characters of `a-z0-9`.
pub fn random() -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut bytes = [0u8; 25];
    let mut filled = 0;
    while filled < bytes.len() {
        // The kernel's source neither fails nor blocks for so few bytes once it is seeded; an interrupted call is repeated.
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes.iter().map(|b| ALPHABET[usize::from(*b) % ALPHABET.len()] as char).collect()
}

/// Container ids are ASCII letters and digits.
pub fn check(id: &str) -> crate::Result<()> {
    if id.is_empty() {
        return Err(crate::Error::EmptyContainerId);
    }
    if !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(crate::Error::InvalidContainerId { id: id.to_owned() });
    }
    Ok(())
}
