use super::*;
use kiln_llb::EnvList;
use proptest::prelude::*;

fn env() -> EnvList {
    [("HOME", "/root"), ("EMPTY", ""), ("TAG", "v1.2.3"), ("PAIR", "a b"), ("LAND", "한국")]
        .into_iter()
        .collect()
}

fn expand(word: &str) -> Result<String, ShellError> {
    Lexer::new('\\').expand(word, &env())
}

#[test]
fn words_and_quotes() {
    for (word, want) in [
        ("plain", "plain"),
        ("a'b c'd", "ab cd"),
        (r"a\'b", "a'b"),
        (r"a\tb", "atb"),
        (r#""a\tb\\c""#, r"a\tb\c"),
        (r"'a\tb'", r"a\tb"),
        ("end\\", "end"),
        ("$HOME/bin", "/root/bin"),
        (r"\$HOME", "$HOME"),
        ("'$HOME'", "$HOME"),
        ("\"$HOME\"", "/root"),
        ("x$.y", "x$.y"),
        ("$1a${22}b", "ab"),
        ("$@x$*y$#z", "xyz"),
        ("안$LAND", "안한국"),
        (r"\${}", "${}"),
    ] {
        assert_eq!(expand(word).as_deref(), Ok(want), "{word}");
    }
}

#[test]
fn modifiers() {
    for (word, want) in [
        ("${HOME}", "/root"),
        ("${NOPE:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${EMPTY:-x}", "x"),
        ("${HOME:+x}", "x"),
        ("${EMPTY+x}", "x"),
        ("${EMPTY:+x}", ""),
        ("${NOPE+x}", ""),
        ("${NOPE:-${EMPTY:-$HOME}}!", "/root!"),
        ("${HOME?no}", "/root"),
        ("${TAG#v}", "1.2.3"),
        ("${TAG##*.}", "3"),
        ("${TAG%.*}", "v1.2"),
        ("${TAG%%.*}", "v1"),
        ("${TAG/./_}", "v1_2.3"),
        ("${TAG//./_}", "v1_2_3"),
        ("${HOME//\\//-}", "-root"),
        ("${TAG#\"v\"}", "1.2.3"),
        (r"${NOPE:-\${X}y}z", "${Xy}z"),
    ] {
        assert_eq!(expand(word).as_deref(), Ok(want), "{word}");
    }
}

#[test]
fn mistakes() {
    for (word, want) in [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:-a}", "syntax error: bad substitution"),
        ("${{a}", "syntax error: bad substitution"),
        ("${a:-b", "syntax error: missing '}'"),
        ("${a/b}", "syntax error: missing '/' in ${}"),
        ("${a:=b}", "unsupported modifier (:=) in substitution"),
        ("${a:#b}", "unsupported modifier (:#) in substitution"),
        ("${.}", "unsupported modifier (.) in substitution"),
        ("${NOPE?}", "NOPE: is not allowed to be unset"),
        ("${EMPTY:?}", "EMPTY: is not allowed to be empty"),
        ("${EMPTY:?say it}", "EMPTY: say it"),
        ("${TAG#\\v}", "invalid pattern (\\v) in substitution: invalid escape '\\v'"),
    ] {
        let shown = expand(word).expect_err(word).to_string();
        assert_eq!(shown, format!("failed to process {}: {want}", quote(word)));
    }
}

#[test]
fn splitting() {
    let split = |word: &str| Lexer::new('\\').split(word, &env()).unwrap();
    assert_eq!(split("a  b"), ["a", "b"]);
    assert_eq!(split("x$PAIR y"), ["xa", "b", "y"]);
    assert_eq!(split("\"$PAIR\" '' y\\ z"), ["a b", "y z"]);
    assert_eq!(split("8${NOPE:-0}-9"), ["80-9"]);
}

#[test]
fn unset_references_can_stay() {
    let lexer = Lexer { keep_unset: true, raw_quotes: true, ..Lexer::new('\\') };
    for word in ["$NOPE", "${NOPE}", "${NOPE:-a}", "${NOPE#a}", "${NOPE/a/b}", "'x' \"y\""] {
        assert_eq!(lexer.expand(word, &env()).as_deref(), Ok(word));
    }
    assert_eq!(lexer.expand("\"$HOME\"", &env()).as_deref(), Ok("\"/root\""));
}

#[test]
fn uses_are_noted_even_on_failure() {
    let mut uses = Uses::default();
    let result = Lexer::new('\\').expand_noting("$HOME$NOPE$NOPE${", &env(), &mut uses);
    assert!(result.is_err());
    assert_eq!(uses, Uses { matched: ["HOME".into()].into(), unmatched: ["NOPE".into()].into() });
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = format!("{}x{}", "${a:-".repeat(5000), "}".repeat(5000));
    assert!(expand(&deep).is_err());
    let mut big = EnvList::default();
    big.set("BIG", "x".repeat(1 << 15));
    assert!(Lexer::new('\\').expand(&"$BIG".repeat(40), &big).is_err());
}

proptest! {
    #[test]
    fn never_panics(word in "[a-zA-Z$\\{\\}:+?#%/\\\\'\"< *0-9-]{0,64}") {
        let _ = expand(&word);
        let _ = Lexer::new('`').split(&word, &env());
    }

    #[test]
    fn single_quotes_keep_everything(text in "[^']{0,32}") {
        prop_assert_eq!(expand(&format!("'{text}'")), Ok(text));
    }
}
