//! What a frontend answers.

use bytes::Bytes;
use std::collections::BTreeMap;

/// The results of a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refs<R> {
    /// One; `None` is an empty file system.
    Single(Option<R>),
    /// Several by name, the names of platforms in most cases.
    Map(BTreeMap<String, Option<R>>),
}

/// What a frontend answers: results, what exporters should know about them, and statements about them. `R` is a
/// handle of a result that may not be there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solution<R> {
    /// The results.
    pub refs: Refs<R>,
    /// For exporters, such as `containerimage.config`.
    pub metadata: BTreeMap<String, Bytes>,
    /// Statements about each result, by its name; empty for a single one.
    pub attestations: BTreeMap<String, Vec<Attestation<R>>>,
}

impl<R> Default for Solution<R> {
    fn default() -> Self {
        Solution::single(None)
    }
}

impl<R> Solution<R> {
    /// One result and nothing to say about it.
    pub fn single(reference: Option<R>) -> Self {
        Solution { refs: Refs::Single(reference), metadata: BTreeMap::new(), attestations: BTreeMap::new() }
    }

    /// All results that are not empty, those of attestations included.
    pub fn all_refs(&self) -> Vec<&R> {
        let mut all: Vec<&R> = match &self.refs {
            Refs::Single(one) => one.iter().collect(),
            Refs::Map(many) => many.values().flatten().collect(),
        };
        all.extend(self.attestations.values().flatten().filter_map(|one| one.reference.as_ref()));
        all
    }

    /// The same with other handles.
    pub fn try_map<S, E>(self, mut change: impl FnMut(R) -> Result<S, E>) -> Result<Solution<S>, E> {
        let refs = match self.refs {
            Refs::Single(one) => Refs::Single(one.map(&mut change).transpose()?),
            Refs::Map(many) => {
                let mut changed = BTreeMap::new();
                for (name, one) in many {
                    changed.insert(name, one.map(&mut change).transpose()?);
                }
                Refs::Map(changed)
            }
        };
        let mut attestations = BTreeMap::new();
        for (name, list) in self.attestations {
            let mut changed = Vec::with_capacity(list.len());
            for one in list {
                changed.push(Attestation {
                    kind: one.kind,
                    metadata: one.metadata,
                    reference: one.reference.map(&mut change).transpose()?,
                    path: one.path,
                    predicate_type: one.predicate_type,
                    subjects: one.subjects,
                });
            }
            attestations.insert(name, changed);
        }
        Ok(Solution { refs, metadata: self.metadata, attestations })
    }
}

/// How the statement lies in its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AttestationKind {
    /// A predicate in the file at [`Attestation::path`].
    #[default]
    InToto,
    /// Every file below it is one.
    Bundle,
}

/// A statement about a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation<R> {
    /// How it lies there.
    pub kind: AttestationKind,
    /// For exporters, such as why it was made.
    pub metadata: BTreeMap<String, Bytes>,
    /// Where it lies.
    pub reference: Option<R>,
    /// The file there.
    pub path: String,
    /// What sort of statement.
    pub predicate_type: String,
    /// What it is about.
    pub subjects: Vec<Subject>,
}

/// How a subject is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SubjectKind {
    /// The result that the attestation belongs to.
    #[default]
    Itself,
    /// By [`Subject::digests`].
    Raw,
}

/// What a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// How it is named.
    pub kind: SubjectKind,
    /// Its name.
    pub name: String,
    /// `algorithm:hex` each.
    pub digests: Vec<String>,
}
