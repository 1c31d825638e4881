//! The summary of warnings that ends a build.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::event::VertexWarning;
use crate::{color, sanitize, source};

/// The warnings without repeats: the same one may be reported at several vertices, or by both platforms of a build.
pub fn dedup(warnings: &[VertexWarning]) -> Vec<VertexWarning> {
    let mut seen = HashSet::new();
    warnings
        .iter()
        .filter(|warning| {
            let bare = VertexWarning { vertex: String::new(), ..(*warning).clone() };
            seen.insert(serde_json::to_string(&bare).expect("a warning has only string keys"))
        })
        .cloned()
        .collect()
}

/// `1 warning found …` and one line each; with `expand` also the detail, link and lines of each. Empty without warnings.
pub fn summary(warnings: &[VertexWarning], expand: bool, colors: &crate::Colors) -> String {
    if warnings.is_empty() {
        return String::new();
    }
    let count =
        if warnings.len() == 1 { "1 warning".to_owned() } else { format!("{} warnings", warnings.len()) };
    let hint = if expand { "" } else { " (use --debug to expand)" };
    let heading = format!("{count} found{hint}:\n");
    let mut out = String::from("\n ");
    if colors.summary.is_empty() {
        out.push_str(&heading);
    } else {
        write!(out, "{}{heading}{}", colors.summary, color::RESET).expect("a String takes every write");
    }
    for warning in warnings {
        writeln!(out, " - {}", sanitize::text(&String::from_utf8_lossy(&warning.short)))
            .expect("a String takes every write");
        if expand {
            expand_one(&mut out, warning);
        }
    }
    out
}

fn expand_one(out: &mut String, warning: &VertexWarning) {
    for detail in &warning.detail {
        out.push_str(&sanitize::text(&String::from_utf8_lossy(detail)));
        out.push('\n');
    }
    if !warning.url.is_empty() {
        writeln!(out, "More info: {}", sanitize::text(&warning.url)).expect("a String takes every write");
    }
    if let Some(excerpt) =
        warning.source_info.as_ref().and_then(|info| source::excerpt(info, &warning.ranges))
    {
        out.push_str(&excerpt);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Position, Range, SourceInfo};
    use crate::{Colors, VertexWarning};

    fn warning(vertex: &str, short: &str) -> VertexWarning {
        VertexWarning {
            vertex: vertex.into(),
            level: 1,
            short: short.to_owned().into(),
            detail: vec!["the detail".into()],
            url: "https://example.test/rule".into(),
            source_info: Some(SourceInfo {
                filename: "Dockerfile".into(),
                data: "FROM a AS b\n".into(),
                ..Default::default()
            }),
            ranges: vec![Range { start: Position { line: 1, character: 0 }, end: Position::default() }],
        }
    }

    #[test]
    fn counts_each_once() {
        let all = [warning("sha256:a", "one"), warning("sha256:b", "one"), warning("sha256:a", "two")];
        let distinct = dedup(&all);
        assert_eq!(distinct.len(), 2);
        insta::assert_snapshot!(summary(&distinct, false, &Colors::none()), @r"

         2 warnings found (use --debug to expand):
         - one
         - two
        ");
        assert_eq!(summary(&[], true, &Colors::none()), "");
    }

    #[test]
    fn expands_on_request() {
        insta::assert_snapshot!(summary(&[warning("", "one")], true, &Colors::none()), @r"

         1 warning found:
         - one
        the detail
        More info: https://example.test/rule
        Dockerfile:1
        --------------------
           1 | >>> FROM a AS b
           2 |     
        --------------------

        ");
    }
}
