//! Build checks: rules, which of them apply where, and what they found.

mod checks;
mod config;
mod report;
mod rules;

pub(crate) use checks::{
    check_command_casing, check_copy_source, check_description, check_secret_key, check_stage_names,
};
pub use config::{LintConfig, LintOptionError};
pub use report::{LINT_VERSION, LintError, LintReport};
pub use rules::Rule;

use crate::location::Range;
use crate::parser::parse_comment_directive;
use std::sync::{Arc, Mutex, PoisonError};

/// A place where a rule does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    /// What is wrong here.
    pub detail: String,
    pub location: Vec<Range>,
}

impl Finding {
    /// The one-line form that progress displays show.
    pub fn short(&self) -> String {
        let name = self.rule.name();
        match self.location.first() {
            Some(first) if first.start.line > 0 => {
                format!("{name}: {} (line {})", self.detail, first.start.line)
            }
            _ => format!("{name}: {}", self.detail),
        }
    }
}

/// Where findings are collected; clones share one list. They are there whether or not what looked for
/// them succeeds.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    list: Arc<Mutex<Vec<Finding>>>,
}

impl Findings {
    fn push(&self, finding: Finding) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }

    /// Everything found so far, in order; the list is empty afterwards.
    pub fn take(&self) -> Vec<Finding> {
        std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reports violations of those rules that are on.
#[derive(Debug, Clone)]
pub struct Linter {
    config: LintConfig,
    findings: Option<Findings>,
    called: Arc<Mutex<Vec<Rule>>>,
}

impl Linter {
    /// A linter that puts what it finds into `findings`.
    pub fn new(config: LintConfig, findings: Findings) -> Self {
        Self { config, findings: Some(findings), called: Arc::default() }
    }

    /// A linter that does nothing.
    pub fn off() -> Self {
        Self { config: LintConfig::default(), findings: None, called: Arc::default() }
    }

    /// The same with the options that a `check=` comment above an instruction adds.
    pub(crate) fn with_comments(&self, comments: &[String]) -> Self {
        let directive = comments
            .iter()
            .filter_map(|comment| parse_comment_directive(comment))
            .find(|directive| directive.name == "check");
        match directive.map(|directive| LintConfig::parse(directive.first_word())) {
            Some(Ok(config)) => Self { config: self.config.merged(&config), ..self.clone() },
            _ => self.clone(),
        }
    }

    /// Notes that `rule` does not hold at `location`, if the rule is on.
    pub(crate) fn report(&self, rule: Rule, location: &[Range], detail: String) {
        let Some(findings) = self.findings.as_ref().filter(|_| self.config.applies(rule)) else { return };
        let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        if !called.contains(&rule) {
            called.push(rule);
        }
        findings.push(Finding { rule, detail, location: location.to_vec() });
    }

    /// The rules that were violated, if that is to fail the build.
    pub(crate) fn violations(&self) -> Option<Vec<String>> {
        let called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.config.fail || called.is_empty() {
            return None;
        }
        Some(called.iter().map(|rule| rule.name().to_owned()).collect())
    }
}

#[cfg(test)]
mod tests;
