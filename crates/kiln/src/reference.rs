//! The reference page of commands and flags, made from the command line's own definition.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};

use crate::cli::Cli;

/// The page `docs/reference/kiln.md`.
pub fn page() -> String {
    let mut out = String::from(
        "# kiln: commands and flags\n\nMade from `kiln --help`; a test keeps it so. To make it anew: \
         `KILN_WRITE_REFERENCE=1 cargo test -p kiln --test reference`.\n",
    );
    let mut root = Cli::command();
    root.build();
    section(&mut out, &root, "kiln");
    out
}

fn section(out: &mut String, command: &Command, path: &str) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    writeln!(out, "\n## {path}\n\n{about}").expect("a String takes every write");
    let positionals: Vec<&Arg> = command.get_positionals().filter(|arg| !arg.is_hide_set()).collect();
    let options: Vec<&Arg> = command.get_opts().filter(|arg| !arg.is_hide_set()).collect();
    if !positionals.is_empty() || !options.is_empty() {
        out.push_str("\n| flag | meaning |\n|---|---|\n");
        for arg in positionals.into_iter().chain(options) {
            writeln!(out, "| {} | {} |", flag(arg), meaning(arg)).expect("a String takes every write");
        }
    }
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        section(out, sub, &format!("{path} {}", sub.get_name()));
    }
}

fn flag(arg: &Arg) -> String {
    let value =
        arg.get_value_names().filter(|_| arg.get_action().takes_values()).map(|names| names.join(" "));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let short = arg.get_short().map(|short| format!("-{short}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    let text = match (names.is_empty(), value) {
        (true, value) => value.unwrap_or_default(),
        (false, Some(value)) if arg.is_require_equals_set() => format!("{}[={value}]", names.join(", ")),
        (false, Some(value)) => format!("{} {value}", names.join(", ")),
        (false, None) => names.join(", "),
    };
    format!("`{}`", text.replace('|', "\\|"))
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let shown = !arg.is_hide_default_value_set() && arg.get_action().takes_values() && !defaults.is_empty();
    let default = if shown { format!(" (default `{}`)", defaults.join(",")) } else { String::new() };
    format!("{}{default}", help.replace('|', "\\|"))
}
