//! What a token allows.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Access;

/// Resources with the actions allowed on them, `repository:name:pull,push`; sorted and merged, so that equal
/// sets have equal texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    pub(crate) fn repository(path: &str, access: Access) -> Self {
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let mut scopes = Self::default();
        scopes.add(&format!("repository:{path}:{actions}"));
        scopes
    }

    /// Adds scopes as a challenge writes them, separated by spaces.
    pub(crate) fn add(&mut self, text: &str) {
        for scope in text.split_whitespace() {
            // The name may hold a port's colon: type is before the first, actions after the last colon.
            let (kind, rest) = scope.split_once(':').unwrap_or((scope, ""));
            let (name, actions) = rest.rsplit_once(':').unwrap_or((rest, ""));
            let allowed = self.0.entry(format!("{kind}:{name}")).or_default();
            allowed.extend(actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned));
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (resource, actions) in &other.0 {
            self.0.entry(resource.clone()).or_default().extend(actions.iter().cloned());
        }
    }

    pub(crate) fn to_strings(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(resource, actions)| {
                let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
                format!("{resource}:{}", actions.join(","))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges() {
        let mut scopes = Scopes::repository("b/c", Access::Push);
        scopes.add("repository:a:pull repository:b/c:delete,pull registry:catalog:*");
        scopes.merge(&Scopes::repository("a", Access::Pull));
        assert_eq!(
            scopes.to_strings(),
            ["registry:catalog:*", "repository:a:pull", "repository:b/c:delete,pull,push"]
        );
    }
}
