//! `--chmod`: octal, or symbolic as `chmod(1)` has it. Symbolic modes are checked here and applied where
//! the files are.

use thiserror::Error;

/// Why a text is no mode.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ModeError {
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    NotOctal(String),
    #[error("invalid syntax")]
    Syntax,
}

/// The mode of copied files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    Octal(u32),
    Symbolic(String),
}

/// Reads a mode.
pub fn parse_mode(text: &str) -> Result<Mode, ModeError> {
    let not_octal = || ModeError::NotOctal(text.to_owned());
    if !text.is_empty() && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
        return match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Mode::Octal(mode)),
            _ => Err(not_octal()),
        };
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(not_octal());
    }
    if is_symbolic(text) { Ok(Mode::Symbolic(text.to_owned())) } else { Err(ModeError::Syntax) }
}

/// Clauses between commas: who, then one or more of an operator and what it grants.
fn is_symbolic(text: &str) -> bool {
    text.split(',').all(|clause| {
        let actions = clause.trim_start_matches(['a', 'u', 'g', 'o']);
        let mut operators = actions.chars().filter(|c| matches!(c, '+' | '-' | '='));
        actions.starts_with(['+', '-', '='])
            && operators.next().is_some()
            && actions.chars().all(|c| "+-=rwxXstugo".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(parse_mode("0755"), Ok(Mode::Octal(0o755)));
        for good in ["u+x", "+X", "u=rwX,go=rX", "go=", "a-w+r", "u=g", "=rw,+X", "+t"] {
            assert_eq!(parse_mode(good), Ok(Mode::Symbolic(good.to_owned())));
        }
        for bad in ["", "u", "rwx", "u+q", "u+x,", ",u+x"] {
            assert_eq!(parse_mode(bad), Err(ModeError::Syntax), "{bad}");
        }
        for bad in ["99999", "10000", "789", "07777777777777"] {
            assert_eq!(parse_mode(bad), Err(ModeError::NotOctal(bad.to_owned())));
        }
    }
}
