//! "Did you mean …?": the nearest of a set of known words.

/// Words farther away than this many edits are no suggestion (exclusive).
const DISTANCE_LIMIT: usize = 3;

/// Whether the case of letters counts when words are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    Sensitive,
    Insensitive,
}

/// The first of `options` that is nearest to `word`, if any is near enough. An exact match gives
/// `None`: then the mistake lies elsewhere. Without regard to case the answer takes the case of `word`.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>, case: Case) -> Option<String> {
    let wanted = fold(word, case);
    let mut best: Option<String> = None;
    let mut limit = DISTANCE_LIMIT;
    for option in options {
        let option = fold(option, case);
        if option == wanted {
            return None;
        }
        let edits = distance(&wanted, &option, limit);
        if edits < limit {
            limit = edits;
            best = Some(match case {
                Case::Sensitive => option,
                Case::Insensitive => match_case(option, word),
            });
        }
    }
    best.filter(|best| !best.is_empty())
}

fn fold(word: &str, case: Case) -> String {
    match case {
        Case::Sensitive => word.to_owned(),
        Case::Insensitive => word.to_lowercase(),
    }
}

fn match_case(option: String, like: &str) -> String {
    if like == like.to_lowercase() {
        option.to_lowercase()
    } else if like == like.to_uppercase() {
        option.to_uppercase()
    } else {
        option
    }
}

/// Levenshtein distance in characters; anything of at least `limit` may come back as `limit`.
fn distance(a: &str, b: &str, limit: usize) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) >= limit {
        return limit;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replace = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_word() {
        let options = ["copy", "cmd", "arg"];
        assert_eq!(nearest("cpy", options, Case::Sensitive).as_deref(), Some("copy"));
        assert_eq!(nearest("COPPY", options, Case::Insensitive).as_deref(), Some("COPY"));
        assert_eq!(nearest("label", options, Case::Sensitive), None);
    }

    #[test]
    fn an_exact_match_is_no_suggestion() {
        assert_eq!(nearest("copy", ["cop", "copy"], Case::Sensitive), None);
    }

    #[test]
    fn distances() {
        for (a, b, edits) in [("", "ab", 2), ("kitten", "sitting", 3), ("äbc", "abc", 1), ("x", "x", 0)] {
            assert_eq!(distance(a, b, 10), edits, "{a} {b}");
        }
    }
}
