//! Environment variables in the order in which a process gets them.

use indexmap::IndexMap;

/// Variables by name. A variable that is set again moves to the end, as BuildKit writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvList(IndexMap<String, String>);

impl EnvList {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a variable; it is the last one now.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let key = key.into();
        self.0.shift_remove(&key);
        self.0.insert(key, value.into());
    }

    /// Sets a variable that is not there yet.
    pub fn set_default(&mut self, key: &str, value: &str) {
        if !self.0.contains_key(key) {
            self.set(key, value);
        }
    }

    /// Removes a variable.
    pub fn remove(&mut self, key: &str) {
        self.0.shift_remove(key);
    }

    /// A variable's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The names in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// `NAME=value` in order.
    pub fn to_vec(&self) -> Vec<String> {
        self.0.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for EnvList {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut list = Self::new();
        for (key, value) in pairs {
            list.set(key, value);
        }
        list
    }
}
