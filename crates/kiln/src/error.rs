//! What went wrong, whose it is to mend, and how.

use std::fmt;

/// Whose it is to mend; decides nothing but the words around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The command line or a file that the user wrote.
    User,
    /// The machine, the network or another program.
    Environment,
    /// The build itself: what it ran failed.
    Build,
    /// A mistake of Kiln.
    Ours,
}

/// Exit codes, which scripts rely on.
pub mod exit {
    /// Everything that has no code of its own.
    pub const FAILURE: u8 = 1;
    /// The daemon failed internally.
    pub const INTERNAL: u8 = 100;
    /// The daemon ran out of something.
    pub const EXHAUSTED: u8 = 102;
    /// Cancelled, as after SIGINT.
    pub const CANCELED: u8 = 130;
}

/// An error on its way to the user.
#[derive(Debug)]
pub struct Error {
    class: Class,
    message: String,
    hint: Option<String>,
    exit: u8,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// Printed before the error itself: excerpts of files.
    preface: Vec<String>,
    /// Everything was said already.
    silent: bool,
}

/// Results of this program.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(class: Class, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            class,
            message,
            hint: None,
            exit: exit::FAILURE,
            source: None,
            preface: Vec::new(),
            silent: false,
        }
    }

    /// The user asked for something that cannot be.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Class::User, message)
    }

    /// The machine does not play along.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(Class::Environment, message)
    }

    /// The build failed.
    pub fn build(message: impl Into<String>) -> Self {
        Self::new(Class::Build, message)
    }

    /// Should not happen.
    pub fn ours(message: impl Into<String>) -> Self {
        Self::new(Class::Ours, message)
            .hint("this is a mistake in kiln; please report it with the command you ran")
    }

    /// A flag or command that a later version will have.
    pub fn not_yet(what: impl fmt::Display) -> Self {
        Self::user(format!("{what} is not supported yet: it comes with a later version of kiln"))
    }

    /// Ends the program with this code and no word.
    pub fn silent(exit: u8) -> Self {
        Self { exit, silent: true, ..Self::new(Class::Build, "") }
    }

    /// Cancelled by the user.
    pub fn canceled() -> Self {
        Self { exit: exit::CANCELED, ..Self::new(Class::User, "context canceled") }
    }

    /// Adds what the user could do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Sets the exit code.
    #[must_use]
    pub fn exit_code(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Adds the cause; it is printed after a colon.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds a text to be printed before.
    #[must_use]
    pub fn after(mut self, preface: String) -> Self {
        self.preface.push(preface);
        self
    }

    /// Puts `context: ` before the message.
    #[must_use]
    pub fn in_context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// The code to end the program with.
    pub fn exit(&self) -> u8 {
        self.exit
    }

    /// Whose it is.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What to print to standard error; empty where everything was said.
    pub fn report(&self) -> String {
        if self.silent {
            return String::new();
        }
        let mut out: String = self.preface.concat();
        out.push_str("ERROR: ");
        out.push_str(&self.to_string());
        out.push('\n');
        if let Some(hint) = &self.hint {
            out.push_str(&format!("hint: {hint}\n"));
        }
        out
    }
}

/// The message and every cause that it does not already tell.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut said = self.message.clone();
        let mut next: Option<&dyn std::error::Error> = self.source.as_deref().map(|source| source as _);
        while let Some(error) = next {
            let text = match error.downcast_ref::<tonic::Status>() {
                // Its own text repeats the message beside a code, which says nothing to people.
                Some(status) => status.message().to_owned(),
                None => plain(error.to_string()),
            };
            if !text.is_empty() && !said.ends_with(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            next = error.source();
        }
        Ok(())
    }
}

/// What the system says, without the number that Rust adds and in the style of the rest.
fn plain(text: String) -> String {
    match text.split_once(" (os error ") {
        Some((words, number)) if number.ends_with(')') => {
            let mut chars = words.chars();
            let first = chars.next().map(|first| first.to_ascii_lowercase());
            first.into_iter().chain(chars).collect()
        }
        _ => text,
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        None
    }
}

/// Turns a failed system call into an error that says what was tried.
pub trait Context<T> {
    /// `what` is a phrase: ``read `/etc/x` ``.
    fn when(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for Result<T, E> {
    fn when(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::environment(format!("cannot {what}")).because(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_message_cause_and_hint() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::environment("cannot write `x`").because(io).hint("put it out");
        assert_eq!(error.report(), "ERROR: cannot write `x`: disk on fire\nhint: put it out\n");
        let missing = Error::environment("cannot read `x`").because(std::io::Error::from_raw_os_error(2));
        assert_eq!(missing.to_string(), "cannot read `x`: no such file or directory");
        assert_eq!(Error::silent(3).report(), "");
        assert_eq!(Error::silent(3).exit(), 3);
    }

    #[test]
    fn excerpts_come_first() {
        let error = Error::build("failed").after("Dockerfile:1\n".into());
        assert_eq!(error.report(), "Dockerfile:1\nERROR: failed\n");
    }
}
