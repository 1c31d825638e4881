//! The program from its arguments to its exit code.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _};

use crate::cli::{Cli, Command};
use crate::docker::GlobalFlags;
use crate::docker::plugin::{self, Invocation, ORIGINAL_CLI_VARIABLE};
use crate::error::{Error, Result, exit};
use crate::settings::{Environment as _, ProcessEnvironment, Settings};
use crate::{build, command, output};

/// The version that `kiln version` tells.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Runs the program.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told that standard error is closed.
            let _ = std::io::stderr().lock().write_all(error.report().as_bytes());
            ExitCode::from(error.exit())
        }
    }
}

fn run(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let mut arguments = arguments.map(|argument| {
        argument
            .into_string()
            .map_err(|bad| Error::user(format!("the argument {} is not UTF-8", bad.display())))
    });
    let program = arguments.next().transpose()?.unwrap_or_else(|| "kiln".to_owned());
    let rest = arguments.collect::<Result<Vec<String>>>()?;
    let environment = ProcessEnvironment;
    let called_by_docker = environment.var(ORIGINAL_CLI_VARIABLE).is_some();
    let (name, docker, rest) = match Invocation::of(&program, rest, called_by_docker)? {
        Invocation::Metadata => return output::print(&(plugin::metadata() + "\n")),
        Invocation::Plugin { docker, arguments } => ("docker buildx", docker, arguments),
        Invocation::Standalone { arguments } => ("kiln", GlobalFlags::default(), arguments),
    };
    let Some(cli) = parse(name, rest)? else { return Ok(()) };
    let debug = cli.global.debug || docker.debug;
    let settings = Settings::new(environment, docker);
    if matches!(cli.command, Command::Version) {
        return output::print(&format!("kiln {VERSION}\n"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::environment("cannot start").because(error))?;
    let result = runtime.block_on(dispatch(cli, &settings, debug));
    // A thread may still wait for standard input, or for a program that asks the user.
    runtime.shutdown_background();
    result
}

/// Reads the command line; nothing where it asked for help and got it.
fn parse(name: &'static str, arguments: Vec<String>) -> Result<Option<Cli>> {
    let command = Cli::command().name(name).bin_name(name);
    let all = std::iter::once(name.to_owned()).chain(arguments);
    let parsed = command.try_get_matches_from(all).and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => Ok(Some(cli)),
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Prints help to standard output, and mistakes to standard error.
            let _ = error.print();
            if asked { Ok(None) } else { Err(Error::silent(exit::FAILURE)) }
        }
    }
}

async fn dispatch(cli: Cli, settings: &Settings, debug: bool) -> Result<()> {
    let builder = cli.global.builder.as_deref();
    match &cli.command {
        Command::Build(args) => build::run(args, settings, builder, debug).await,
        Command::Image(args) => command::image(args, settings, builder).await,
        Command::Du(args) => command::disk_usage(args, settings, builder).await,
        Command::Prune(args) => command::prune(args, settings, builder).await,
        Command::Ls(args) => command::list(args, settings, builder).await,
        Command::Inspect(args) => command::inspect(args, settings, builder).await,
        Command::DialStdio(args) => {
            if args.platform.is_some() {
                return Err(Error::not_yet("dial-stdio --platform"));
            }
            command::dial_stdio(settings, builder).await
        }
        Command::Version => Ok(()),
        Command::Bake(_) => Err(Error::not_yet("the command `bake`")),
        Command::Create(_) => Err(Error::not_yet("the command `create`")),
        Command::Use(_) => Err(Error::not_yet("the command `use`")),
        Command::Rm(_) => Err(Error::not_yet("the command `rm`")),
        Command::Stop(_) => Err(Error::not_yet("the command `stop`")),
        Command::Install(_) => Err(Error::not_yet("the command `install`")),
        Command::Uninstall(_) => Err(Error::not_yet("the command `uninstall`")),
        Command::Imagetools(_) => Err(Error::not_yet("the command `imagetools`")),
        Command::History(_) => Err(Error::not_yet("the command `history`")),
        Command::Policy(_) => Err(Error::not_yet("the command `policy`")),
        Command::Debug(_) => Err(Error::not_yet("the command `debug`")),
        Command::Dap(_) => Err(Error::not_yet("the command `dap`")),
    }
}
