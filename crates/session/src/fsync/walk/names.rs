//! The names in one directory, eight bytes each beside the name itself: a directory may have a great many.

use std::collections::VecDeque;

use super::super::error::SyncError;
use super::super::filter::Verdict;
use super::look::Looked;

/// What was said about a file; none: it had vanished.
pub(super) type Answer = Result<Option<Looked>, SyncError>;

/// Names that matter, in order.
#[derive(Default)]
pub(super) struct Names {
    /// One after the other.
    text: String,
    /// Once they are sorted: last first.
    list: Vec<Listed>,
    /// What was said about the first of those that are sent.
    looked: VecDeque<Answer>,
}

#[derive(Clone, Copy)]
struct Listed {
    start: u32,
    length: u16,
    is_dir: bool,
    verdict: Verdict,
}

/// A file whose turn has come.
pub(super) struct Name {
    pub path: String,
    pub is_dir: bool,
    /// Never [`Verdict::Skip`].
    pub verdict: Verdict,
    /// Where it was looked at already.
    pub looked: Option<Answer>,
}

impl Names {
    /// How many are left.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Adds a name, in any order.
    pub(super) fn push(&mut self, name: &str, is_dir: bool, verdict: Verdict) -> Result<(), SyncError> {
        let place = (u32::try_from(self.text.len()), u16::try_from(name.len()));
        let (Ok(start), Ok(length)) = place else {
            return Err(SyncError::Limit { what: "names in a directory", limit: u32::MAX.into() });
        };
        self.text.push_str(name);
        self.list.push(Listed { start, length, is_dir, verdict });
        Ok(())
    }

    /// No more are added.
    pub(super) fn sort(&mut self) {
        let text = &self.text;
        self.list.sort_unstable_by(|a, b| b.name(text).as_bytes().cmp(a.name(text).as_bytes()));
    }

    /// Looks at the first `most` of those that are sent.
    pub(super) fn look_at_first(&mut self, most: usize, mut look: impl FnMut(&str) -> Answer) {
        let sent = self.list.iter().rev().filter(|listed| listed.verdict == Verdict::Send);
        self.looked = sent.take(most).map(|listed| look(listed.name(&self.text))).collect();
    }

    /// The next one, in the directory `dir`.
    pub(super) fn next(&mut self, dir: &str) -> Option<Name> {
        let listed = self.list.pop()?;
        let path = join(dir, listed.name(&self.text));
        let looked = if listed.verdict == Verdict::Send { self.looked.pop_front() } else { None };
        Some(Name { path, is_dir: listed.is_dir, verdict: listed.verdict, looked })
    }
}

impl Listed {
    fn name<'a>(&self, text: &'a str) -> &'a str {
        &text[self.start as usize..][..usize::from(self.length)]
    }
}

/// The path of a name in a directory.
pub(super) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_string() } else { format!("{dir}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_in_order_with_what_was_said() {
        let mut names = Names::default();
        for (name, verdict) in [
            ("c", Verdict::Send),
            ("a", Verdict::LookInside),
            ("ab", Verdict::Send),
            ("b", Verdict::Send),
            ("é", Verdict::Send),
        ] {
            names.push(name, name == "a", verdict).unwrap();
        }
        names.sort();
        let mut seen = Vec::new();
        names.look_at_first(2, |name| {
            seen.push(name.to_string());
            Ok(None)
        });
        assert_eq!(seen, ["ab", "b"]);
        let mut all = Vec::new();
        while let Some(name) = names.next("d") {
            all.push((name.path, name.is_dir, name.looked.is_some()));
        }
        let expected = [
            ("d/a", true, false),
            ("d/ab", false, true),
            ("d/b", false, true),
            ("d/c", false, false),
            ("d/é", false, false),
        ];
        assert_eq!(all, expected.map(|(path, is_dir, looked)| (path.to_string(), is_dir, looked)));
    }
}
