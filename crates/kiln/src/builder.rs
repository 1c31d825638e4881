//! Which builder to use, and a connection to it.

mod choice;
mod embedded;
mod instance;
mod lock;
mod paths;
mod spawn;

use kiln_client::{Address, Client, TlsOptions};

pub use choice::{Choice, choose};
pub use embedded::{Running, running};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// Name of the embedded builder.
pub const EMBEDDED: &str = "kiln";

/// A builder that answers.
#[derive(Clone, Debug)]
pub struct Builder {
    /// Its name, for people.
    pub name: String,
    /// `kiln` for the embedded one, else `remote`.
    pub driver: &'static str,
    /// Where it answers.
    pub address: Address,
    /// The connection.
    pub client: Client,
}

impl Builder {
    /// Whether this is the daemon that belongs to this program and user.
    pub fn is_embedded(&self) -> bool {
        self.driver == EMBEDDED
    }
}

/// Connects to what was chosen; starts the embedded daemon where that is not running.
pub async fn connect(settings: &Settings, choice: &Choice) -> Result<Builder> {
    match choice {
        Choice::Embedded => embedded::connect(settings).await,
        Choice::Remote { name, address, tls } => {
            let client = dial(address, tls.as_ref()).await?;
            Ok(Builder { name: name.clone(), driver: "remote", address: address.clone(), client })
        }
    }
}

async fn dial(address: &Address, tls: Option<&TlsOptions>) -> Result<Client> {
    Client::dial(address, tls).await.map_err(|error| {
        let hint = match address {
            Address::Unix(_) => "is the daemon running, and may you use its socket?",
            _ => "check the address and that the daemon listens there",
        };
        Error::environment(format!("cannot connect to the builder at {address}")).because(error).hint(hint)
    })
}
