//! The client of Kiln: the command line that people use, and the plugin of the Docker CLI.
//!
//! * [`cli`] has commands and flags, [`flags`] the languages of their values, [`settings`] what the environment says.
//! * [`build`] turns flags into a request, [`lend`] answers what the daemon asks of this machine meanwhile, and [`printer`]
//!   shows the progress.
//! * [`builder`] chooses the daemon, and starts the embedded one where no other is chosen.
//! * [`docker`] is what belongs to the Docker CLI: its plugin protocol, its credentials, its contexts, its engine.
//!
//! The daemon is reached by its wire API alone; none of its code is in this program.
#![forbid(unsafe_code)]

mod blocking;
pub mod build;
pub mod builder;
pub mod cli;
mod command;
pub mod docker;
pub mod error;
pub mod files;
pub mod flags;
pub mod interrupt;
pub mod lend;
pub mod load;
mod output;
pub mod printer;
pub mod program;
mod random;
pub mod reference;
pub mod settings;
mod ssh;
