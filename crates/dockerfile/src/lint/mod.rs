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

use crate::limits::{FINDING_LINES_MAX, FINDINGS_MAX};
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
    list: Arc<Mutex<Kept>>,
}

/// What is kept, and how many lines it points to.
#[derive(Debug, Default)]
struct Kept {
    findings: Vec<Finding>,
    lines: usize,
}

impl Findings {
    fn push(&self, finding: Finding) {
        let mut kept = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        kept.lines += finding.location.len();
        kept.findings.push(finding);
    }

    /// No more are kept: there are so many that they are no help to anyone.
    fn is_full(&self) -> bool {
        let kept = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        kept.findings.len() >= FINDINGS_MAX || kept.lines >= FINDING_LINES_MAX
    }

    /// Everything found so far, in order; the list is empty afterwards.
    pub fn take(&self) -> Vec<Finding> {
        std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner)).findings
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

    /// Whether a violation of `rule` would be noted.
    pub(crate) fn wants(&self, rule: Rule) -> bool {
        self.findings.as_ref().is_some_and(|findings| self.config.applies(rule) && !findings.is_full())
    }

    /// Notes that `rule` does not hold at `location`, if the rule is on.
    pub(crate) fn report(&self, rule: Rule, location: &[Range], detail: String) {
        let Some(findings) = self.findings.as_ref().filter(|_| self.wants(rule)) else { return };
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
