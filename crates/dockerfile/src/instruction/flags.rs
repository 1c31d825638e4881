//! The `--flags` of one instruction.

use super::InstructionError;
use crate::error::Error;
use crate::suggest::Case;

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FlagKind {
    /// Nothing, or `=true` or `=false`.
    Bool,
    /// One value, once.
    Text,
    /// A value, as often as wanted.
    Texts,
}

/// The flags that were given.
pub(super) struct Flags {
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// Reads `flags`; only those in `known` may occur.
    pub(super) fn parse(flags: &[String], known: &[(&'static str, FlagKind)]) -> Result<Self, Error> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for flag in flags {
            let flag = flag.strip_prefix("--").unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let Some((known_name, kind)) = known.iter().find(|(known_name, _)| *known_name == name) else {
                let error = Error::from(InstructionError::UnknownFlag(name.to_owned()));
                return Err(error.suggest(name, known.iter().map(|(name, _)| *name), Case::Sensitive));
            };
            if *kind != FlagKind::Texts && given.iter().any(|(given_name, _)| *given_name == name) {
                return Err(InstructionError::DuplicateFlag(name.to_owned()).into());
            }
            let missing = || InstructionError::MissingFlagValue(name.to_owned());
            let value = match (kind, value) {
                (FlagKind::Bool, Some("")) => return Err(missing().into()),
                (FlagKind::Bool, value) => match value.unwrap_or("true").to_lowercase().as_str() {
                    "true" => "true".to_owned(),
                    "false" => "false".to_owned(),
                    _ => {
                        let value = value.unwrap_or_default().to_owned();
                        return Err(InstructionError::FlagNotBool { flag: name.to_owned(), value }.into());
                    }
                },
                (_, value) => value.ok_or_else(missing)?.to_owned(),
            };
            given.push((known_name, value));
        }
        Ok(Self { given })
    }

    /// No flag may be given.
    pub(super) fn none(flags: &[String]) -> Result<(), Error> {
        Self::parse(flags, &[]).map(drop)
    }

    /// The value of a flag.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The value of a flag, or nothing.
    pub(super) fn text_or_empty(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_owned()
    }

    /// A switch, if it was given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }

    /// All values of a flag.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.given.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(&str, FlagKind); 3] =
        [("link", FlagKind::Bool), ("chown", FlagKind::Text), ("exclude", FlagKind::Texts)];

    fn parse(flags: &[&str]) -> Result<Flags, Error> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Flags::parse(&flags, &KNOWN)
    }

    #[test]
    fn good_flags() {
        let flags = parse(&["--link", "--chown=a=b", "--exclude=x", "--exclude=y"]).unwrap();
        assert_eq!(flags.switch("link"), Some(true));
        assert_eq!(flags.text("chown"), Some("a=b"));
        assert_eq!(flags.texts("exclude"), ["x", "y"]);
        assert_eq!(parse(&["--link=FALSE"]).unwrap().switch("link"), Some(false));
    }

    #[test]
    fn bad_flags() {
        for (flags, text) in [
            (vec!["--chwn=x"], "unknown flag: --chwn (did you mean chown?)"),
            (vec!["--chown=x", "--chown=y"], "duplicate flag specified: --chown"),
            (vec!["--chown"], "missing a value on flag: --chown"),
            (vec!["--link="], "missing a value on flag: --link"),
            (vec!["--link=yes"], "expecting boolean value for flag --link, not: yes"),
        ] {
            assert_eq!(parse(&flags).err().unwrap().to_string(), text);
        }
    }
}
