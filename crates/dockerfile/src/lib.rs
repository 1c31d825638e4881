//! Dockerfiles: reading them, checking them, and turning them into a graph of build steps.
//!
//! [`parse`] splits a text into statements, [`Program::build`] understands them, and [`convert`] makes
//! the graph of one target for one platform. What lies outside the text (configs of base images, named
//! contexts, times of sources) comes through [`Resolver`]; nothing here does I/O, and every text is
//! taken to be hostile: see [`limits`].
//!
//! [`lint`], [`outline`] and [`targets`] answer the other questions that can be asked about a
//! Dockerfile. Messages, names of steps and history entries are part of the interface, and are
//! BuildKit's.

#![forbid(unsafe_code)]

mod convert;
mod error;
pub mod git_ref;
mod ignore;
pub mod instruction;
mod json;
pub mod limits;
mod lint;
pub mod location;
mod mode;
mod outline;
mod parser;
mod path;
pub mod shell;
mod signal;
mod source;
pub mod subrequest;
mod suggest;
mod table;
mod targets;
pub mod values;

pub use convert::{
    AttestationOptions, CacheImport, ConvertError, ConvertOptions, Converted, FrontendOptions, ImageAnswer,
    ImageConfigRequest, ImageStore, MainContext, NoCache, OptionError, ResolvedImage, Resolver, SbomOptions,
    SbomTargets, convert, lint, outline,
};
pub use error::{Error, ErrorKind, ResolveError};
pub use ignore::{IgnoreError, parse_ignore};
pub use instruction::{Command, Instruction, InstructionError, Program, Stage};
pub use lint::{Finding, Findings, LintConfig, LintError, LintOptionError, LintReport, Linter, Rule};
pub use outline::{Outline, OutlineArg, OutlineMount};
pub use parser::{
    Directive, Dockerfile, Heredoc, ParseError, Statement, detect_syntax, find_directive, parse,
};
pub use source::print_excerpt;
pub use targets::{Target, TargetList, targets};
