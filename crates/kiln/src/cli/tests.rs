use clap::CommandFactory as _;

use super::*;

fn build(arguments: &[&str]) -> Result<BuildArgs, clap::Error> {
    let all = ["kiln", "build"].iter().chain(arguments).copied();
    match Cli::try_parse_from(all)?.command {
        Command::Build(args) => Ok(*args),
        other => panic!("not a build: {other:?}"),
    }
}

#[test]
fn clap_is_content() {
    Cli::command().debug_assert();
}

#[test]
fn truth_values_are_those_of_go() {
    assert!(build(&["--pull", "."]).unwrap().pull);
    assert!(build(&["--pull=1", "."]).unwrap().pull);
    assert!(!build(&["--pull=false", "."]).unwrap().pull);
    assert!(!build(&["."]).unwrap().pull);
    assert!(build(&["--pull=maybe", "."]).is_err());
    assert!(build(&["-q", "--check", "."]).unwrap().check);
}

#[test]
fn the_last_of_a_flag_counts_and_lists_add_up() {
    let found =
        build(&["--target", "a", "--target=b", "-t", "x", "-tz", "--build-arg", "A=1,2", "."]).unwrap();
    assert_eq!(found.target, "b");
    assert_eq!(found.tag, ["x", "z"]);
    assert_eq!(found.build_arg, ["A=1,2"]);
}

#[test]
fn old_flags_are_taken() {
    let found =
        build(&["-m", "1g", "--memory-swap", "-1", "--rm", "--force-rm=true", "--squash", "."]).unwrap();
    assert_eq!(found.legacy.resources(), ["memory=1g", "memory-swap=-1"]);
    assert_eq!(found.legacy.warnings().len(), 2);
}

#[test]
fn commands_of_later_versions_are_known() {
    let found = Cli::try_parse_from(["kiln", "bake", "--help", "-f", "x"]).unwrap();
    assert!(matches!(found.command, Command::Bake(later) if later.arguments.len() == 3));
}

#[test]
fn mistakes_are_told() {
    for wrong in [&[] as &[&str], &["--no-such", "."], &["a", "b"], &["--shm-size=x", "."]] {
        assert!(build(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn help() {
    let mut command = Cli::command().term_width(100);
    insta::assert_snapshot!("kiln", command.render_long_help());
    for (name, part) in [("build", "build"), ("prune", "prune")] {
        let part = command.find_subcommand_mut(part).expect("a command of ours");
        insta::assert_snapshot!(name, part.clone().term_width(100).render_long_help());
    }
}
