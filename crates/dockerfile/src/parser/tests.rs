use super::*;
use crate::limits::LINE_BYTES_MAX;
use crate::location::Range;

fn statements(text: &str) -> Vec<Statement> {
    parse(text.as_bytes()).expect(text).statements
}

fn message(text: &str) -> String {
    parse(text.as_bytes()).expect_err(text).to_string()
}

#[test]
fn lines_are_joined() {
    let all = statements("RUN a \\\n  # note\n  b \\\n c\nUSER \\\\\nCMD x \\  \n y\n");
    let originals: Vec<&str> = all.iter().map(|s| s.original.as_str()).collect();
    assert_eq!(originals, ["RUN a   b  c", "USER \\\\", "CMD x  y"]);
    assert_eq!(all[0].location, [1, 2, 3, 4].map(Range::line));
    assert_eq!(all[2].location, [6, 7].map(Range::line));
}

#[test]
fn empty_lines_within_continuations_are_noted() {
    let dockerfile = parse(b"FROM a\nRUN x \\\n\n y\n").unwrap();
    assert_eq!(dockerfile.empty_continuations, [4]);
    assert_eq!(dockerfile.statements[1].original, "RUN x  y");
}

#[test]
fn the_escape_character_can_be_chosen() {
    let dockerfile = parse(b"\xef\xbb\xbf# escape=`\r\nFROM a `\r\n AS b\r\nRUN c:\\\r\n").unwrap();
    assert_eq!(dockerfile.escape, '`');
    assert_eq!(dockerfile.statements[0].original, "FROM a  AS b");
    assert_eq!(dockerfile.statements[1].original, "RUN c:\\");
    assert_eq!(message("#escape=x\nFROM a"), "invalid escape token 'x' does not match ` or \\");
    assert_eq!(message("#escape=\\\n#escape=`\nFROM a"), "only one escape parser directive can be used");
}

#[test]
fn comments_belong_to_what_follows() {
    let all = statements("# syntax=x\n# one\n\n# two\nFROM a\n# gone\n#\n# three\nRUN x");
    assert_eq!(all[0].comments, ["one", "two"]);
    assert_eq!(all[1].comments, ["three"]);
}

#[test]
fn directives_are_found() {
    let value = |text: &str, name: &str| find_directive(name, text.as_bytes()).map(|d| d.value);
    assert_eq!(
        value("# syntax = a b\n# check=skip=all;error=true\nFROM x", "check").as_deref(),
        Some("skip=all;error=true")
    );
    assert_eq!(value("#!/bin/x\n#check=error=true", "check").as_deref(), Some("error=true"));
    assert_eq!(value("# other=1\n#check=error=true", "check"), None);
    let syntax = |text: &str| detect_syntax(text.as_bytes());
    assert_eq!(syntax("# syntax=a b").unwrap().first_word(), "a");
    assert_eq!(syntax("// syntax=a").unwrap().value, "a");
    assert_eq!(syntax("#!x\n//syntax=a").unwrap().location, [Range::line(2)]);
    assert_eq!(syntax("{\"syntax\": \"a\"}").unwrap().value, "a");
    assert_eq!(syntax("FROM a"), None);
}

#[test]
fn long_lines_end_the_file() {
    let long = "x".repeat(LINE_BYTES_MAX);
    assert_eq!(
        message(&format!("FROM a\nRUN {long}")),
        "dockerfile line greater than max allowed size of 65535"
    );
    assert_eq!(message(&format!("RUN {long}")), "file with no instructions");
    assert_eq!(message("# nothing"), "file with no instructions");
}

#[test]
fn nested_triggers_do_not_recurse() {
    let deep = format!("FROM a\n{}", "ONBUILD \\\n".repeat(9_000));
    assert!(parse(deep.as_bytes()).is_ok());
}

#[test]
fn sizes_are_bounded() {
    let many = "USER a\n".repeat(crate::limits::STATEMENTS_MAX + 1);
    assert_eq!(message(&many), "more than 20000 instructions");
    let long = format!("RUN {}x", "\\\n".repeat(crate::limits::CONTINUATION_LINES_MAX + 1));
    assert_eq!(message(&long), "more than 10000 lines are joined to one");
    assert_eq!(message(&"#\n".repeat(5 << 20)), "the Dockerfile is larger than 8388608 bytes");
}
