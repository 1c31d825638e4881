use super::*;
use crate::lint::Findings;
use crate::parser::parse;
use proptest::prelude::*;

fn build(text: &str) -> Result<Program, Error> {
    Program::build(&parse(text.as_bytes())?, &Linter::off())
}

fn only_command(line: &str) -> Instruction {
    let mut program = build(&format!("FROM scratch\n{line}\n")).expect(line);
    program.stages[0].commands.remove(0).instruction
}

fn failure(line: &str) -> String {
    build(&format!("FROM scratch\n{line}\n")).expect_err(line).to_string()
}

#[test]
fn stages_and_global_args() {
    let program =
        build("ARG A=1 B\nFROM --platform=$P $A AS Build\nRUN x\n# out is it\nFROM build as out\n").unwrap();
    assert_eq!(program.global_args[0].args[1].key, "B");
    let [first, second] = program.stages.as_slice() else { panic!("two stages") };
    assert_eq!(
        (first.name.as_str(), first.base_name.as_str(), first.platform.as_str()),
        ("build", "$A", "$P")
    );
    assert_eq!((second.name.as_str(), second.doc_comment.as_str()), ("out", "is it"));
    assert_eq!(first.commands[0].location, crate::location::lines(3, 3));
}

#[test]
fn heredocs_become_files() {
    let Instruction::Copy(copy) = only_command("COPY <<a <<-'b' /x\none $v\na\n\t\ttwo\n\tb") else {
        panic!()
    };
    assert_eq!(copy.sources.destination, "/x");
    let files: Vec<_> =
        copy.sources.inline.iter().map(|f| (f.path.as_str(), f.data.as_str(), f.expand)).collect();
    assert_eq!(files, [("a", "one $v\n", true), ("b", "two\n", false)]);

    let Instruction::Run(run) = only_command("RUN <<EOF cat && <<E2 cat\na\nEOF\nb\nE2") else { panic!() };
    assert_eq!(run.command.words, ["<<EOF cat && <<E2 cat"]);
    assert_eq!(run.command.files.len(), 2);
}

#[test]
fn triggers_keep_their_heredocs() {
    assert_eq!(
        only_command("ONBUILD  RUN <<EOF\nx\nEOF"),
        Instruction::Onbuild("RUN <<EOF\nx\nEOF".to_owned())
    );
    assert_eq!(
        only_command("onbuild copy [\"a\", \"b\"]"),
        Instruction::Onbuild("copy [\"a\", \"b\"]".to_owned())
    );
}

#[test]
fn command_lines() {
    let Instruction::Cmd(cmd) = only_command("CMD [\"a\", \"b c\"]") else { panic!() };
    assert_eq!((cmd.words.len(), cmd.prepend_shell), (2, false));
    let Instruction::Cmd(cmd) = only_command("CMD [ -f x ] && y") else { panic!() };
    assert_eq!((cmd.words.as_slice(), cmd.prepend_shell), (&["[ -f x ] && y".to_owned()][..], true));
    let Instruction::Healthcheck(check) = only_command("HEALTHCHECK --interval=5s --retries=3 CMD curl x")
    else {
        panic!()
    };
    assert_eq!(
        (check.test.as_slice(), check.interval, check.retries),
        (&["CMD-SHELL".to_owned(), "curl x".to_owned()][..], 5_000_000_000, 3)
    );
    assert_eq!(only_command("EXPOSE 90 80/tcp"), Instruction::Expose(vec!["80/tcp".into(), "90".into()]));
}

#[test]
fn pairs() {
    let pair = |key: &str, value: &str, legacy| KeyValue { key: key.into(), value: value.into(), legacy };
    assert_eq!(
        only_command("ENV a=\"b c\" d='e'"),
        Instruction::Env(vec![pair("a", "\"b c\"", false), pair("d", "'e'", false)])
    );
    assert_eq!(only_command("LABEL a  b c=d"), Instruction::Label(vec![pair("a", "b c=d", true)]));
}

#[test]
fn failures_have_known_texts() {
    for (line, text) in [
        ("BADCMD", "unknown instruction: BADCMD"),
        ("cpoy a b", "unknown instruction: cpoy (did you mean copy?)"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV =b", "ENV names can not be blank"),
        ("ENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("COPY --form=x a b", "unknown flag: --form (did you mean from?)"),
        ("COPY a <<EOF\nEOF", "COPY cannot accept a heredoc as a destination"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("SHELL sh", "SHELL requires the arguments to be in JSON form"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("RUN [1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("RUN --network=foo x", "invalid network mode \"foo\""),
        ("RUN --security=foo x", "security \"foo\" is not valid"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK FOO", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        (
            "FROM a as 1b",
            "invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
        ),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("VOLUME [\" \"]", "VOLUME specified can not be an empty string"),
        ("RUN <<EOF\nx", "unterminated heredoc"),
    ] {
        let shown = failure(line);
        let shown = shown.strip_prefix("dockerfile parse error on line 2: ").unwrap_or(&shown);
        assert_eq!(shown, text);
    }
    assert_eq!(build("RUN x").unwrap_err().to_string(), "no build stage in current context");
}

#[test]
fn each_failure_has_one_place() {
    for text in ["FROM a\nenv", "FROM a\ncopy --foo=bar / /", "FROM a\nfoo \\\n bar"] {
        let error = build(text).unwrap_err();
        assert_eq!(error.locations().len(), 1, "{text}");
        assert_eq!(error.locations()[0][0].start.line, 2);
    }
}

#[test]
fn casing_is_checked() {
    let findings = Findings::default();
    let lint = Linter::new(Default::default(), findings.clone());
    Program::build(
        &parse(b"FROM a AS Bad\nFROM a as b\nMAINTAINER x\n# check=skip=all\nMAINTAINER y\n").unwrap(),
        &lint,
    )
    .unwrap();
    let short: Vec<String> = findings.take().iter().map(|finding| finding.short()).collect();
    assert_eq!(
        short,
        [
            "StageNameCasing: Stage name 'Bad' should be lowercase (line 1)",
            "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 2)",
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 3)",
        ]
    );
}

proptest! {
    #[test]
    fn never_panics(text in "(FROM a|RUN|COPY|ENV|ARG|ONBUILD|HEALTHCHECK|LABEL|#|<<|EOF|\\\\|\n| |=|-|--mount=|\\[|\\]|\"|'|,|\\$|\\{|\\}|x|\t){0,40}") {
        let _ = build(&text);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }
}
