//! containerd's filter language over usage records: `field`, `field==value`, `field!=value`, `field~=pattern`, joined
//! by commas (and); several filters are alternatives (or).

use regex::Regex;

use super::UsageRecord;
use crate::error::{Error, Result};

/// Parsed filters.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    alternatives: Vec<Vec<Test>>,
}

#[derive(Clone, Debug)]
struct Test {
    field: String,
    operator: Operator,
}

#[derive(Clone, Debug)]
enum Operator {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Box<Regex>),
}

impl UsageFilter {
    /// Parses alternatives; none of them matches everything.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self> {
        let alternatives = filters.iter().map(|filter| parse(filter.as_ref())).collect::<Result<_>>()?;
        Ok(Self { alternatives })
    }

    /// Whether there is no filter at all.
    pub fn is_empty(&self) -> bool {
        self.alternatives.is_empty()
    }

    /// Whether a record is wanted.
    pub fn matches(&self, record: &UsageRecord) -> bool {
        self.alternatives.is_empty()
            || self.alternatives.iter().any(|tests| tests.iter().all(|test| test.holds(record)))
    }
}

impl Test {
    fn holds(&self, record: &UsageRecord) -> bool {
        let (value, present) = field(record, &self.field);
        match &self.operator {
            Operator::Present => present,
            Operator::Equal(wanted) => present && value == *wanted,
            Operator::NotEqual(unwanted) => value != *unwanted,
            Operator::Matches(pattern) => pattern.is_match(&value),
        }
    }
}

/// A field's value, and whether it is there. Yes-or-no fields have no value.
fn field(record: &UsageRecord, name: &str) -> (String, bool) {
    let flag = |yes| (String::new(), yes);
    let text = |text: String| {
        let present = !text.is_empty();
        (text, present)
    };
    match name {
        "id" => text(record.id.to_string()),
        "parents" => text(record.parents.iter().map(|parent| parent.as_str()).collect::<Vec<_>>().join(";")),
        "description" => text(record.description.clone()),
        "type" => text(record.record_type.as_str().to_owned()),
        "inuse" => flag(record.in_use),
        "mutable" => flag(record.mutable),
        "immutable" => flag(!record.mutable),
        "shared" => flag(record.shared),
        "private" => flag(!record.shared),
        _ => flag(false),
    }
}

fn parse(filter: &str) -> Result<Vec<Test>> {
    let failed = |reason: String| Error::Filter { filter: filter.to_owned(), reason };
    let mut tests = Vec::new();
    let mut rest = filter;
    while !rest.is_empty() {
        let (name, after) = take_field(rest).map_err(failed)?;
        let (operator, after) = take_operator(after).map_err(failed)?;
        // Of a path only the first part means something here.
        let field = name.split('.').next().unwrap_or_default().to_owned();
        tests.push(Test { field, operator });
        rest = match after.strip_prefix(',') {
            Some("") => return Err(failed("unexpected end after `,`".into())),
            Some(more) => more,
            None if after.is_empty() => after,
            None => return Err(failed(format!("unexpected `{after}`"))),
        };
    }
    Ok(tests)
}

fn take_field(text: &str) -> Result<(String, &str), String> {
    if text.starts_with('"') {
        return take_quoted(text);
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || "_-./".contains(c))).unwrap_or(text.len());
    match end {
        0 => Err(format!("expected a field at `{text}`")),
        end => Ok((text[..end].to_owned(), &text[end..])),
    }
}

fn take_operator(text: &str) -> Result<(Operator, &str), String> {
    if text.is_empty() || text.starts_with(',') {
        return Ok((Operator::Present, text));
    }
    let Some((operator, after)) = text.split_at_checked(2) else {
        return Err(format!("unsupported operator `{text}`"));
    };
    if !matches!(operator, "==" | "!=" | "~=") {
        return Err(format!("unsupported operator `{operator}`"));
    }
    let (value, rest) = match after.chars().next() {
        Some('"') => take_quoted(after)?,
        Some(quote @ ('|' | '/')) if operator == "~=" => {
            let end = after[1..].find(quote).ok_or("pattern is not closed")?;
            (after[1..=end].to_owned(), &after[end + 2..])
        }
        _ => {
            let end = after.find(',').unwrap_or(after.len());
            (after[..end].to_owned(), &after[end..])
        }
    };
    if value.is_empty() && rest.len() == after.len() {
        return Err("expected a value".into());
    }
    let operator = match operator {
        "==" => Operator::Equal(value),
        "!=" => Operator::NotEqual(value),
        _ => Operator::Matches(Box::new(Regex::new(&value).map_err(|error| error.to_string())?)),
    };
    Ok((operator, rest))
}

/// A string in double quotes with `\"` and `\\`.
fn take_quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                _ => return Err("unknown escape".into()),
            },
            c => value.push(c),
        }
    }
    Err("quote is not closed".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LayerId;
    use crate::layers::RecordType;

    fn record() -> UsageRecord {
        UsageRecord {
            id: LayerId::new("abc"),
            parents: vec![LayerId::new("p1"), LayerId::new("p2")],
            mutable: true,
            in_use: false,
            shared: false,
            size: 1,
            created_ms: 0,
            last_used_ms: None,
            usage_count: 0,
            description: "RUN echo, \"x\"".into(),
            record_type: RecordType::ExecCacheMount,
        }
    }

    #[test]
    fn matches_as_containerd_does() {
        for (filters, matches) in [
            (&[][..], true),
            (&["id==abc"], true),
            (&["id!=abc"], false),
            (&["id~=^a"], true),
            (&["id~=/^b/"], false),
            (&["type==exec.cachemount,mutable"], true),
            (&["type==exec.cachemount,immutable"], false),
            (&["inuse"], false),
            (&["inuse", "private"], true),
            (&["nothing"], false),
            (&["nothing!=x"], true),
            (&["parents==p1;p2"], true),
            (&[r#"description=="RUN echo, \"x\"",mutable"#], true),
        ] {
            assert_eq!(
                UsageFilter::parse(filters).expect("valid").matches(&record()),
                matches,
                "{filters:?}"
            );
        }
    }

    #[test]
    fn refuses_nonsense() {
        for filter in ["==x", "id=x", "id==", "id==\"x", "id~=(", "id==a,", "id ~= x"] {
            assert!(UsageFilter::parse(&[filter]).is_err(), "{filter}");
        }
    }
}
