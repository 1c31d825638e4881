//! Where variables come from.

use kiln_llb::EnvList;

/// Variables by name. Names are compared as they are.
pub trait Env {
    /// The value of a variable, or `None` if it is not set.
    fn get(&self, name: &str) -> Option<&str>;

    /// All names, in a stable order.
    fn keys(&self) -> Vec<&str>;
}

/// No variables at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEnv;

impl Env for NoEnv {
    fn get(&self, _name: &str) -> Option<&str> {
        None
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

impl Env for EnvList {
    fn get(&self, name: &str) -> Option<&str> {
        EnvList::get(self, name)
    }

    fn keys(&self) -> Vec<&str> {
        EnvList::keys(self).collect()
    }
}
