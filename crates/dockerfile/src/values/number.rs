//! Booleans and integers, with the spellings and the error texts that users of BuildKit know.

use super::quote;
use thiserror::Error;

/// Why a word is not a number.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NumberError {
    #[error("strconv.{parser}: parsing {}: invalid syntax", quote(.word))]
    Syntax { parser: &'static str, word: String },
    #[error("strconv.{parser}: parsing {}: value out of range", quote(.word))]
    Range { parser: &'static str, word: String },
}

/// The spellings of a boolean that flags and options accept.
pub fn parse_bool(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A signed decimal of at most `bits` bits.
pub fn parse_int(word: &str, bits: u32) -> Result<i64, NumberError> {
    let digits = word.strip_prefix(['+', '-']).unwrap_or(word);
    check_digits("ParseInt", word, digits, 10)?;
    let out_of_range = || NumberError::Range { parser: "ParseInt", word: word.to_owned() };
    let value: i64 = word.parse().map_err(|_| out_of_range())?;
    let limit = 1i128 << (bits - 1);
    if (-limit..limit).contains(&i128::from(value)) { Ok(value) } else { Err(out_of_range()) }
}

/// An unsigned number in base `radix` of at most `bits` bits.
pub fn parse_uint(word: &str, radix: u32, bits: u32) -> Result<u64, NumberError> {
    check_digits("ParseUint", word, word, radix)?;
    let out_of_range = || NumberError::Range { parser: "ParseUint", word: word.to_owned() };
    let value = u64::from_str_radix(word, radix).map_err(|_| out_of_range())?;
    if bits == 64 || value >> bits == 0 { Ok(value) } else { Err(out_of_range()) }
}

fn check_digits(parser: &'static str, word: &str, digits: &str, radix: u32) -> Result<(), NumberError> {
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(NumberError::Syntax { parser, word: word.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(parse_uint("0755", 8, 32), Ok(0o755));
        assert_eq!(parse_int("-3", 32), Ok(-3));
        assert_eq!(
            parse_int("2147483648", 32).unwrap_err().to_string(),
            "strconv.ParseInt: parsing \"2147483648\": value out of range"
        );
        assert_eq!(
            parse_uint("+1", 10, 32).unwrap_err().to_string(),
            "strconv.ParseUint: parsing \"+1\": invalid syntax"
        );
        assert_eq!(
            parse_uint("99999999999999999999", 10, 64).unwrap_err().to_string(),
            "strconv.ParseUint: parsing \"99999999999999999999\": value out of range"
        );
        assert!(parse_uint("9", 8, 32).is_err());
    }
}
