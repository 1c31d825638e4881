//! Cache keys as they arise during a build, with the chain of keys below them.

use crate::{Digest, KeyId, RecordId, root_key};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyOutput {
    /// This output of an op.
    Index(usize),
    /// The content of something.
    Content,
}

impl KeyOutput {
    /// As it enters [`root_key`].
    pub(crate) fn number(self) -> i64 {
        match self {
            KeyOutput::Index(index) => i64::try_from(index).unwrap_or(i64::MAX),
            KeyOutput::Content => -1,
        }
    }
}

/// One way to know an input of an edge: by a key and the part of it that the op looks at.
#[derive(Clone, Debug)]
pub struct KeyInput {
    /// The input's key.
    pub key: Arc<CacheKey>,
    /// The part; none for content keys.
    pub selector: Option<Digest>,
}

/// A record found under a key, and the cache that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordRef {
    /// Name of the cache.
    pub cache: Arc<str>,
    /// The record in it.
    pub record: RecordId,
    /// When the result was made.
    pub created: SystemTime,
}

/// A key of an edge: its op's digest and, for each input, all the ways the input is known.
#[derive(Debug)]
pub struct CacheKey {
    digest: Digest,
    output: KeyOutput,
    vertex: Option<Digest>,
    inputs: Vec<Vec<KeyInput>>,
    records: Vec<RecordRef>,
    export: Option<bool>,
    extra: Vec<Arc<CacheKey>>,
    ephemeral: bool,
    /// Names of this key in the caches that know it. Grows when the key is saved.
    ids: Mutex<Vec<(Arc<str>, KeyId)>>,
    root: OnceLock<Digest>,
}

impl CacheKey {
    pub(crate) fn new(
        digest: Digest,
        output: KeyOutput,
        vertex: Option<Digest>,
        inputs: Vec<Vec<KeyInput>>,
    ) -> Self {
        let lost = |ways: &Vec<KeyInput>| ways.iter().all(|way| way.key.ephemeral);
        let ephemeral = digest.is_ephemeral() || inputs.iter().any(lost);
        CacheKey {
            digest,
            output,
            vertex,
            inputs,
            records: Vec::new(),
            export: None,
            extra: Vec::new(),
            ephemeral,
            ids: Mutex::default(),
            root: OnceLock::new(),
        }
    }

    /// The key of an input's content.
    pub(crate) fn content(digest: Digest) -> Self {
        CacheKey::new(digest, KeyOutput::Content, None, Vec::new())
    }

    pub(crate) fn with_ids(mut self, ids: Vec<(Arc<str>, KeyId)>) -> Self {
        self.ids = Mutex::new(ids);
        self
    }

    pub(crate) fn with_records(mut self, records: Vec<RecordRef>) -> Self {
        self.records = records;
        self
    }

    pub(crate) fn with_export(mut self, export: Option<bool>) -> Self {
        self.export = export;
        self
    }

    pub(crate) fn with_extra(mut self, extra: Vec<Arc<CacheKey>>) -> Self {
        self.extra = extra;
        self
    }

    /// Digest of the op, or of the content.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What it is the key of.
    pub fn output(&self) -> KeyOutput {
        self.output
    }

    /// The vertex it was made for; none for content.
    pub fn vertex(&self) -> Option<&Digest> {
        self.vertex.as_ref()
    }

    /// For every input of the op, the keys it is known by; empty for sources and content.
    pub fn inputs(&self) -> &[Vec<KeyInput>] {
        &self.inputs
    }

    /// Records known under this key, best first.
    pub fn records(&self) -> &[RecordRef] {
        &self.records
    }

    /// Whether the vertex wants to be in cache exports, if it says.
    pub fn export(&self) -> Option<bool> {
        self.export
    }

    /// Keys of what the op has built by itself on the way; they are exported with this one.
    pub fn extra(&self) -> &[Arc<CacheKey>] {
        &self.extra
    }

    /// No other build will ever compute this key, so that it is not kept.
    pub fn is_ephemeral(&self) -> bool {
        self.ephemeral
    }

    /// `<digest>@<output>` hashed: the name of the key if it has no inputs, and what exports call the op.
    pub fn root(&self) -> &Digest {
        self.root.get_or_init(|| root_key(&self.digest, self.output.number()))
    }

    /// The names of this key in the cache called `cache`.
    pub fn ids_in(&self, cache: &str) -> Vec<KeyId> {
        if self.inputs.is_empty() {
            return vec![KeyId::from(self.root())];
        }
        let ids = self.ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ids.iter().filter(|(name, _)| **name == *cache).map(|(_, id)| id.clone()).collect()
    }

    pub(crate) fn all_ids(&self) -> Vec<(Arc<str>, KeyId)> {
        self.ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(crate) fn add_id(&self, cache: &Arc<str>, id: KeyId) {
        let mut ids = self.ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let entry = (cache.clone(), id);
        if !ids.contains(&entry) {
            ids.push(entry);
        }
    }
}

impl Drop for CacheKey {
    /// Chains of keys are as long as chains of steps: taken apart in a loop, not by recursion.
    fn drop(&mut self) {
        fn take(key: &mut CacheKey, stack: &mut Vec<Arc<CacheKey>>) {
            stack.extend(key.inputs.drain(..).flatten().map(|input| input.key));
            stack.append(&mut key.extra);
        }
        let mut stack = Vec::new();
        take(self, &mut stack);
        while let Some(key) = stack.pop() {
            if let Some(mut key) = Arc::into_inner(key) {
                take(&mut key, &mut stack);
            }
        }
    }
}
