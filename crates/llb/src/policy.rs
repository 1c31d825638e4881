//! Source policies: rules that allow, deny or replace sources before they are used.
//!
//! The rules of one policy are tried in order and the last that allows or denies wins; one that changes the source
//! starts the judgement over, with all policies.

use kiln_proto::sourcepolicy::{
    AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule, Selector, Update,
};
use regex::Regex;

use crate::SourceOp;

/// Changes to one source before the rules count as going in circles.
const CHANGES_MAX: usize = 20;

/// What is wrong with a policy, or with a source in its eyes. Displays BuildKit's texts.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("invalid nil selector in policy")]
    NoSelector,
    #[error("error matching source policy: invalid regex {pattern:?}")]
    Regex { pattern: String, source: regex::Error },
    #[error(
        "error matching source policy: failed to translate wildcard {0:?} to regexp: invalid wildcard: \"**\""
    )]
    Wildcard(String),
    #[error("error matching source policy: unknown match type: {0}")]
    MatchType(i32),
    #[error("error matching source policy: unknown attr condition: {0}")]
    Condition(i32),
    #[error("source policy: rule {action} {selector}: unknown type {source_id:?}")]
    Action { action: i32, selector: String, source_id: String },
    #[error("error mutating source policy: missing destination for convert rule")]
    NoDestination,
    #[error("too many mutations on a single source: too many operations")]
    Circle,
    #[error("source {0:?} denied by policy: source denied by policy")]
    Denied(String),
}

/// Policies that are judged one after the other.
#[derive(Clone, Debug, Default)]
pub struct SourcePolicies {
    policies: Vec<Vec<Judge>>,
}

#[derive(Clone, Debug)]
struct Judge {
    rule: Rule,
    selector: Selector,
    pattern: Option<Regex>,
}

impl SourcePolicies {
    /// Reads policies.
    ///
    /// # Errors
    /// A rule without a selector, a pattern that is none.
    pub fn load(policies: impl IntoIterator<Item = Policy>) -> Result<Self, PolicyError> {
        let load = |policy: Policy| policy.rules.into_iter().map(Judge::load).collect::<Result<Vec<_>, _>>();
        Ok(Self { policies: policies.into_iter().map(load).collect::<Result<_, _>>()? })
    }

    /// These and then `others`.
    #[must_use]
    pub fn and(&self, others: Self) -> Self {
        let mut policies = self.policies.clone();
        policies.extend(others.policies);
        Self { policies }
    }

    /// Leaves the source as it is, changes it, or refuses it.
    ///
    /// # Errors
    /// [`PolicyError::Denied`], or what is wrong with a rule that was reached.
    pub fn evaluate(&self, source: &mut SourceOp) -> Result<(), PolicyError> {
        for _ in 0..=CHANGES_MAX {
            if !self.once(source)? {
                return Ok(());
            }
        }
        Err(PolicyError::Circle)
    }

    /// Whether the source was changed.
    fn once(&self, source: &mut SourceOp) -> Result<bool, PolicyError> {
        for policy in &self.policies {
            let mut denied = false;
            for judge in policy {
                if !judge.matches(source)? {
                    continue;
                }
                match PolicyAction::try_from(judge.rule.action) {
                    Ok(PolicyAction::Allow) => denied = false,
                    Ok(PolicyAction::Deny) => denied = true,
                    Ok(PolicyAction::Convert) => {
                        if judge.convert(source)? {
                            return Ok(true);
                        }
                    }
                    Err(_) => {
                        return Err(PolicyError::Action {
                            action: judge.rule.action,
                            selector: judge.selector.identifier.clone(),
                            source_id: source.identifier.clone(),
                        });
                    }
                }
            }
            if denied {
                return Err(PolicyError::Denied(source.identifier.clone()));
            }
        }
        Ok(false)
    }
}

impl Judge {
    fn load(mut rule: Rule) -> Result<Self, PolicyError> {
        let selector = rule.selector.take().ok_or(PolicyError::NoSelector)?;
        let identifier = &selector.identifier;
        let pattern = match MatchType::try_from(selector.match_type) {
            Ok(MatchType::Exact) => None,
            Ok(MatchType::Regex) => Some(regex(identifier)?),
            Ok(MatchType::Wildcard) if identifier.contains("**") => {
                return Err(PolicyError::Wildcard(identifier.clone()));
            }
            Ok(MatchType::Wildcard) => {
                Some(regex(&format!("^{}$", regex::escape(identifier).replace(r"\*", "(.*)")))?)
            }
            Err(_) => return Err(PolicyError::MatchType(selector.match_type)),
        };
        Ok(Self { rule, selector, pattern })
    }

    fn matches(&self, source: &SourceOp) -> Result<bool, PolicyError> {
        for constraint in &self.selector.constraints {
            if !holds(constraint, source)? {
                return Ok(false);
            }
        }
        Ok(self.selector.identifier == source.identifier
            || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(&source.identifier)))
    }

    /// Whether anything changed.
    fn convert(&self, source: &mut SourceOp) -> Result<bool, PolicyError> {
        let Update { identifier, attrs } = self.rule.updates.as_ref().ok_or(PolicyError::NoDestination)?;
        let template = if identifier.is_empty() { &self.selector.identifier } else { identifier };
        let wanted = self.expand(template, &source.identifier);
        let mut changed = false;
        if !wanted.is_empty() && wanted != source.identifier {
            source.identifier = wanted;
            changed = true;
        }
        for (key, value) in attrs {
            changed |= source.attrs.insert(key.clone(), value.clone()).as_ref() != Some(value);
        }
        Ok(changed)
    }

    /// The destination, with `$1` and `${name}` of the pattern put in.
    fn expand(&self, template: &str, identifier: &str) -> String {
        let Some(pattern) = &self.pattern else { return template.to_owned() };
        if self.selector.match_type == MatchType::Regex as i32 {
            return pattern.replace_all(identifier, template).into_owned();
        }
        let Some(found) = pattern.captures(identifier) else { return identifier.to_owned() };
        let mut expanded = String::new();
        found.expand(template, &mut expanded);
        expanded
    }
}

fn holds(constraint: &AttrConstraint, source: &SourceOp) -> Result<bool, PolicyError> {
    let value = source.attrs.get(&constraint.key).map_or("", String::as_str);
    match AttrMatch::try_from(constraint.condition) {
        Ok(AttrMatch::Equal) => Ok(value == constraint.value),
        Ok(AttrMatch::Notequal) => Ok(value != constraint.value),
        Ok(AttrMatch::Matches) => Ok(regex(&constraint.value)?.is_match(value)),
        Err(_) => Err(PolicyError::Condition(constraint.condition)),
    }
}

fn regex(pattern: &str) -> Result<Regex, PolicyError> {
    Regex::new(pattern).map_err(|source| PolicyError::Regex { pattern: pattern.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: PolicyAction, kind: MatchType, identifier: &str, to: &str) -> Rule {
        let selector =
            Selector { identifier: identifier.into(), match_type: kind as i32, constraints: vec![] };
        let updates = (!to.is_empty()).then(|| Update { identifier: to.into(), ..Update::default() });
        Rule { action: action as i32, selector: Some(selector), updates }
    }

    fn judge(rules: Vec<Rule>, identifier: &str) -> Result<String, String> {
        let policies = SourcePolicies::load([Policy { version: 1, rules }]).map_err(|e| e.to_string())?;
        let mut source = SourceOp::new(identifier);
        policies.evaluate(&mut source).map_err(|e| e.to_string())?;
        Ok(source.identifier)
    }

    #[test]
    fn the_last_rule_that_matches_wins() {
        use MatchType::{Exact, Wildcard};
        use PolicyAction::{Allow, Deny};
        let all = || rule(Deny, Wildcard, "*", "");
        let one = || rule(Allow, Exact, "docker-image://a", "");
        assert_eq!(judge(vec![all(), one()], "docker-image://a").unwrap(), "docker-image://a");
        assert_eq!(
            judge(vec![one(), all()], "docker-image://a").unwrap_err(),
            r#"source "docker-image://a" denied by policy: source denied by policy"#
        );
        assert!(judge(vec![all(), one()], "docker-image://ab").is_err());
    }

    #[test]
    fn sources_are_replaced() {
        use MatchType::{Exact, Regex, Wildcard};
        use PolicyAction::{Convert, Deny};
        let wild = rule(Convert, Wildcard, "https://a/*/x", "https://b/$1");
        assert_eq!(judge(vec![wild], "https://a/1.2/x").unwrap(), "https://b/1.2");
        let regex = rule(Convert, Regex, r"docker-image://(.*)/(\w+)", "https://m/${2}-$1");
        assert_eq!(judge(vec![regex], "docker-image://h/n").unwrap(), "https://m/n-h");
        // What a source was made into is judged again.
        let chain =
            vec![rule(Deny, Exact, "c", ""), rule(Convert, Exact, "a", "b"), rule(Convert, Exact, "b", "c")];
        assert!(judge(chain, "a").unwrap_err().contains("denied"));
        let circle = vec![rule(Convert, Exact, "a", "b"), rule(Convert, Exact, "b", "a")];
        assert!(judge(circle, "a").unwrap_err().contains("too many"));
    }

    #[test]
    fn broken_rules_are_told() {
        let convert = rule(PolicyAction::Convert, MatchType::Exact, "a", "");
        assert!(judge(vec![convert], "a").unwrap_err().contains("missing destination for convert rule"));
        let strange = Rule { action: 77, ..rule(PolicyAction::Allow, MatchType::Exact, "a", "") };
        assert!(judge(vec![strange], "a").unwrap_err().contains("unknown type"));
        assert_eq!(judge(vec![Rule::default()], "a").unwrap_err(), "invalid nil selector in policy");
        let twice = rule(PolicyAction::Deny, MatchType::Wildcard, "a**", "");
        assert!(judge(vec![twice], "a").unwrap_err().contains("invalid wildcard"));
    }

    #[test]
    fn attributes_decide_and_are_set() {
        let mut rule = rule(PolicyAction::Convert, MatchType::Wildcard, "git://*", "");
        let constraint = |key: &str, value: &str, condition: AttrMatch| AttrConstraint {
            key: key.into(),
            value: value.into(),
            condition: condition as i32,
        };
        rule.updates =
            Some(Update { identifier: "git://r".into(), attrs: [("k".into(), "v".into())].into() });
        rule.selector.as_mut().unwrap().constraints =
            vec![constraint("k", "v", AttrMatch::Notequal), constraint("t", "^x", AttrMatch::Matches)];
        let policies = SourcePolicies::load([Policy { version: 1, rules: vec![rule] }]).unwrap();
        let mut source = SourceOp::new("git://r");
        policies.evaluate(&mut source).unwrap();
        assert!(source.attrs.is_empty());
        source.attrs.insert("t".into(), "xy".into());
        policies.evaluate(&mut source).unwrap();
        assert_eq!(source.attrs["k"], "v");
    }
}
