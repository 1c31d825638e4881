//! One bit for each file of a transfer.

/// Bits by number, added one after the other.
#[derive(Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    length: u32,
}

impl Bits {
    /// How many there are.
    pub(super) fn len(&self) -> u32 {
        self.length
    }

    /// Adds one behind all others; false: there are as many as numbers.
    pub(super) fn push(&mut self, bit: bool) -> bool {
        let Some(length) = self.length.checked_add(1) else { return false };
        let (word, mask) = place(self.length);
        if word == self.words.len() {
            self.words.push(0);
        }
        if bit {
            self.words[word] |= mask;
        }
        self.length = length;
        true
    }

    /// The one with this number.
    pub(super) fn get(&self, number: u32) -> Option<bool> {
        let (word, mask) = place(number);
        (number < self.length).then(|| self.words[word] & mask != 0)
    }

    /// Whether the one with this number was set; it is not any more.
    pub(super) fn take(&mut self, number: u32) -> bool {
        let was_set = self.get(number) == Some(true);
        if was_set {
            let (word, mask) = place(number);
            self.words[word] &= !mask;
        }
        was_set
    }
}

/// Which word has the bit, and the bit in it.
fn place(number: u32) -> (usize, u64) {
    ((number / u64::BITS) as usize, 1 << (number % u64::BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_itself() {
        let mut bits = Bits::default();
        for number in 0..200 {
            assert!(bits.push(number % 3 == 0));
        }
        assert_eq!(bits.len(), 200);
        for number in 0..200 {
            assert_eq!(bits.get(number), Some(number % 3 == 0));
            assert_eq!(bits.take(number), number % 3 == 0);
            assert!(!bits.take(number));
        }
        assert_eq!(bits.get(200), None);
        assert!(!bits.take(200) && !bits.take(u32::MAX));
    }
}
